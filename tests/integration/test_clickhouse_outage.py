"""Both sinks while their servers stop, are killed and come back: every row once, nobody gives up.

In a stack of its own, because other tests would notice.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.clickhouse import ClickHouseSink, client
from connectors.migrate import migrate_clickhouse, migrate_postgres
from connectors.postgres import PostgresSink
from connectors.rows.position import Position
from connectors.rows.postgres import EXECUTIONS, execution_rows
from connectors.rows.traces import TRACE_COLUMNS, TRACE_TABLE, trace_columns
from infra import devstack
from infra.devstack import EngineName, Stack
from schemas.internal import Execution, TraceBatch

pytestmark = pytest.mark.timeout(180)
BLOCKS, RECORDS = 60, 50
ENGINES: tuple[EngineName, ...] = ("postgres", "clickhouse")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outage").resolve()


@pytest.fixture(scope="module")
def own_stack(home: Path) -> Iterator[Stack]:
    with devstack.running(home, engines=ENGINES) as running:
        migrate_clickhouse(running.clickhouse_dsn)
        migrate_postgres(running.postgres_dsn)
        yield running


def records(topic: str, number: int) -> tuple[int, int, list[tuple[Position, TraceBatch]]]:
    first = number * RECORDS
    found = [
        (
            Position(topic, 0, offset),
            TraceBatch("e", 0, 1, [Execution(topic, "c", f"e{offset}", 0, 0, status="completed")]),
        )
        for offset in range(first, first + RECORDS)
    ]
    return first, first + RECORDS - 1, found


def write_while(
    home: Path, engine: EngineName, end: Callable[[Path, str], None], write: Callable[[int], None]
) -> None:
    """Write all blocks; after a third of them the server goes away for a second."""
    third = threading.Event()

    def outage() -> None:
        third.wait()
        end(home, engine)
        time.sleep(1)
        devstack.start(home, engine)

    breaker = threading.Thread(target=outage)
    breaker.start()
    for number in range(BLOCKS):
        if number == BLOCKS // 3:
            third.set()
        write(number)
        time.sleep(0.02)
    breaker.join()


@pytest.mark.parametrize("end", [devstack.stop, devstack.kill])
def test_clickhouse_goes_away_and_comes_back(own_stack: Stack, home: Path, end: Any) -> None:
    topic, retries = f"ch{end.__name__}", list[str]()
    sink = ClickHouseSink(
        own_stack.clickhouse_dsn,
        TRACE_TABLE,
        TRACE_COLUMNS,
        database="flowchain",
        max_rows=20,
        on_retry=retries.append,
    )
    sink.resume(topic, 0)

    def write(number: int) -> None:
        first, last, found = records(topic, number)
        sink.write(topic, 0, first, last, trace_columns(found))

    write_while(home, "clickhouse", end, write)
    sink.close()
    assert retries
    with client(own_stack.clickhouse_dsn, "flowchain") as server:
        count = (
            "SELECT count(), uniqExact(source_offset) FROM chain_execution_traces WHERE tenant = %(topic)s"
        )
        assert server.execute(count, {"topic": topic}) == [(BLOCKS * RECORDS, BLOCKS * RECORDS)]


@pytest.mark.parametrize("end", [devstack.stop, devstack.kill])
def test_postgresql_goes_away_and_comes_back(own_stack: Stack, home: Path, end: Any) -> None:
    topic, retries = f"pg{end.__name__}", list[str]()
    sink = PostgresSink(own_stack.postgres_dsn, "executions", [EXECUTIONS], on_retry=retries.append)
    assert sink.resume(topic, 0) is None

    def write(number: int) -> None:
        first, last, found = records(topic, number)
        sink.write(topic, 0, first, last, execution_rows(found))

    write_while(home, "postgres", end, write)
    assert retries
    with psycopg.connect(own_stack.postgres_dsn) as connection:
        count = "SELECT count(*) FROM flowchain.flow_executions WHERE tenant = %s"
        assert connection.execute(count, [topic]).fetchone() == (BLOCKS * RECORDS,)
    assert sink.resume(topic, 0) == BLOCKS * RECORDS
    sink.close()
