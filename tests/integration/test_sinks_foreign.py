"""Sinks on real engines: what they cannot read becomes a dead letter, and a database that is away does not hold a rebalance up."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pytest
from faust.types import TP
from helpers_ingest import metrics, pipeline, stop
from pydantic import SecretStr

from agents.sinks import SinkAgent
from connectors.deadletters import read_dead_letters
from connectors.migrate import migrate_postgres
from connectors.settings import Settings
from connectors.stores import BINDINGS
from connectors.telemetry import RETRIES, Health
from infra.devstack import Stack
from infra.supervisor import free_port
from schemas.internal import Execution, TraceBatch
from schemas.topics import DEAD_LETTERS, HEALTH, TRACES

pytestmark = pytest.mark.timeout(200)


def test_foreign_records_are_dead_lettered_and_their_neighbours_written(stack: Stack, tmp_path: Path) -> None:
    migrate_postgres(stack.postgres_dsn)
    port = free_port()
    with pipeline(
        stack, tmp_path, source_partitions=1, http_port=port, sink_interval_s=0.1, postgres_dsn=SecretStr(stack.postgres_dsn)
    ) as pipe:
        tenant = pipe.settings.topic_prefix
        batch = msgspec.json.encode(TraceBatch("e", 0, 1, [Execution(tenant, "c", "e", 0, 0, status="completed")]))
        pipe.put(TRACES, {b"1": b"\xff", b"2": b'{"source_topic":5}'}, [("sender", b"x")])
        pipe.put(TRACES, {b"3": batch})
        pipe.put(HEALTH, {b"4": b'{"id":"hidden"}', b"5": b"{"})
        worker = pipe.start("sinks-postgres")

        def letters() -> list[Any]:
            return [x for topic in (TRACES, HEALTH) for x in read_dead_letters(pipe.settings, DEAD_LETTERS[topic.name])]

        pipe.eventually(lambda: len(letters()) == 4)
        with psycopg.connect(stack.postgres_dsn, autocommit=True) as database:
            query = "SELECT count(*) FROM flowchain.flow_executions WHERE tenant = %s"
            pipe.eventually(lambda: database.execute(query, [tenant]).fetchone() == (1,))
        found = {x.key: x for x in letters()}
        assert {key: x.letter.stage for key, x in found.items()} == {b"1": "decode", b"2": "validate", b"4": "validate", b"5": "decode"}
        assert (found[b"1"].value, found[b"1"].own_headers) == (b"\xff", [("sender", b"x")])
        assert (found[b"2"].letter.topic, found[b"2"].letter.offset) == (pipe.settings.topic(TRACES.name), 1)
        assert "hidden" not in found[b"4"].letter.reason
        told = metrics(port)
        assert told['flowchain_sink_records_total{outcome="foreign",table="flow_executions"}'] == 2
        assert told['flowchain_sink_records_total{outcome="foreign",table="flow_metrics"}'] == 2
        assert told['flowchain_sink_records_total{outcome="written",table="flow_executions"}'] == 1
        assert not any("outcome=\"foreign\"" in name for name in told if name.startswith("flowchain_ingest"))
        assert stop(worker) == 0


def test_partitions_are_given_up_while_the_database_is_away() -> None:
    settings = Settings(clickhouse_dsn=SecretStr("clickhouse://127.0.0.1:1/x"))
    binding = next(found for found in BINDINGS["clickhouse"] if found.topic is TRACES)
    acknowledged: list[int] = []
    app: Any = SimpleNamespace(consumer_generation_id=1, consumer=SimpleNamespace(highwater=lambda tp: 1))
    agent = SinkAgent(binding, settings, app, Health("sinks"))
    message = SimpleNamespace(generation_id=1, partition=0, offset=0, tp=TP(agent.topic, 0), value=b"{}")
    event: Any = SimpleNamespace(message=message, ack=lambda: acknowledged.append(0))
    tries = RETRIES.labels(binding.table)._value

    async def rebalance() -> None:
        before = tries.get()
        taking = asyncio.create_task(agent.take(event))
        while tries.get() == before:
            await asyncio.sleep(0.01)
        agent.drop()
        await taking

    asyncio.run(rebalance())
    agent.close()
    assert (agent.waiting, acknowledged) == (0, [])
