"""How fast the real sink code writes step rows into ClickHouse and executions into PostgreSQL, beside the bare database."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
from psycopg import sql

from connectors.clickhouse import client
from connectors.postgres import connect
from connectors.rows import postgres as pg
from connectors.rows import traces
from connectors.rows.position import Position
from connectors.settings import Settings
from connectors.stores import BINDINGS, Binding, Records
from infra.bench.loading import Tell
from infra.bench.machine import machine
from infra.simulator import definitions, generate
from schemas.internal import Execution, TraceBatch
from schemas.topics import TRACES
from streams.events import decode_chunk
from streams.rules import RuleBook
from streams.tracker import Tracker

BATCH_STEPS = 2_000
encode = msgspec.json.Encoder().encode
Block = list[tuple[int, bytes]]
"""(offset, record of the traces topic) of what a sink writes at once."""


def measure(settings: Settings, events: int, tell: Tell) -> dict[str, Any]:
    """Return rows/s of both databases; they have our newest schema."""
    executions = list(_finished(settings, events, tell))
    records = list(_records(settings, executions))
    clickhouse = _clickhouse(settings, records, tell)
    postgres = _postgres(settings, executions, records, tell)
    return {"events": events, "executions": len(executions), "clickhouse": clickhouse, "postgres": postgres, "machine": machine()}


def _finished(settings: Settings, events: int, tell: Tell) -> Iterator[Execution]:
    """Yield the executions that events of the simulator make."""
    tracker = Tracker(settings.topic("events"), 0, RuleBook(definitions()), settings.limits)
    source = (value for _, value in generate(events))
    done = 0
    while values := list(islice(source, 5_000)):
        found = decode_chunk(values).events
        broker_us = [getattr(event, "time_unix_us", 0) for event in found]
        tracker.apply(found, list(range(done, done + len(found))), broker_us)
        done += len(found)
        yield from [tracked.execution.record() for tracked in tracker.take().finished.values()]
        tell("executions", done, events)


def _records(settings: Settings, executions: Sequence[Execution]) -> Iterator[bytes]:
    """Yield them as ingest publishes them."""
    batch: list[Execution] = []
    steps = number = 0
    for execution in executions:
        batch.append(execution)
        steps += 1 + len(execution.steps)
        if steps >= BATCH_STEPS:
            number += 1
            yield encode(TraceBatch(settings.topic("events"), 0, execution.finished_us, batch, number))
            batch, steps = [], 0
    if batch:
        yield encode(TraceBatch(settings.topic("events"), 0, batch[-1].finished_us, batch, number + 1))


def _blocks(settings: Settings, records: Sequence[bytes], first: int) -> list[Block]:
    """Return the records as a sink takes them: so many rows at a time."""
    per_block = max(1, settings.sink_rows // BATCH_STEPS)
    return [
        list(enumerate(records[start : start + per_block], first + start)) for start in range(0, len(records), per_block)
    ]


def _binding(database: str) -> Binding:
    return next(binding for binding in BINDINGS[database] if binding.topic is TRACES)


def _written(settings: Settings, binding: Binding, records: Sequence[bytes], first: int, told: Callable[[int], None]) -> float:
    """Write records with the code of the sink, decoding included; return seconds."""
    topic, store = settings.topic(TRACES.name), binding.open(settings, threading.Event())
    blocks = _blocks(settings, records, first)
    store.resume(topic, 0)
    began_s = time.perf_counter()
    for number, block in enumerate(blocks, 1):
        read: Records = [(Position(topic, 0, offset), binding.decode(value)) for offset, value in block]
        store.write(topic, 0, block[0][0], block[-1][0], read)
        told(number * 1000 // len(blocks))
    took_s = time.perf_counter() - began_s
    store.settle(topic, 0)
    store.close()
    return took_s


def _clickhouse(settings: Settings, records: Sequence[bytes], tell: Tell) -> dict[str, Any]:
    binding = _binding("clickhouse")
    took_s = _written(settings, binding, records, 0, lambda done: tell("ClickHouse", done, 1000))
    columns = traces.trace_columns(
        [(Position("bare", 0, offset), binding.decode(value)) for offset, value in enumerate(records)]
    )
    rows = len(columns[0])
    bare_s = _bare_clickhouse(settings, columns, settings.sink_rows)
    return _compared(rows, took_s, bare_s, "rows")


def _bare_clickhouse(settings: Settings, columns: Sequence[Sequence[Any]], size: int) -> float:
    """Insert columns that are ready, in blocks of the same size, into a table without keys and views; return seconds."""
    names = ", ".join(traces.TRACE_COLUMNS)
    blocks = [[column[start : start + size] for column in columns] for start in range(0, len(columns[0]), size)]
    with client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database) as server:
        server.execute(f"CREATE TABLE bench_bare AS {traces.TRACE_TABLE} ENGINE = MergeTree ORDER BY tuple()")
        began_s = time.perf_counter()
        for block in blocks:
            server.execute(f"INSERT INTO bench_bare ({names}) VALUES", block, columnar=True, settings={"async_insert": 0})
        took_s = time.perf_counter() - began_s
        server.execute("DROP TABLE bench_bare")
    return took_s


def _postgres(settings: Settings, executions: Sequence[Execution], records: Sequence[bytes], tell: Tell) -> dict[str, Any]:
    binding = _binding("postgres")
    new_s = _written(settings, binding, records, 0, lambda done: tell("PostgreSQL, new", done, 1000))
    for execution in executions:
        execution.revision += 1
    revised = list(_records(settings, executions))
    again_s = _written(settings, binding, revised, len(records), lambda done: tell("PostgreSQL, again", done, 1000))
    read: Records = [(Position("bare", 0, offset), binding.decode(value)) for offset, value in enumerate(records)]
    bare_s = _copied(settings, pg.execution_rows(read)[pg.EXECUTIONS.table])
    return {**_compared(len(executions), new_s, bare_s, "upserts"), "updates_per_s": round(len(executions) / again_s)}


def _copied(settings: Settings, rows: Sequence[Sequence[Any]]) -> float:
    """COPY rows that are ready into a table without keys; return seconds."""
    table = sql.Identifier("bench_bare")
    names = sql.SQL(", ").join(map(sql.Identifier, pg.EXECUTIONS.columns))
    with connect(settings.postgres_dsn.get_secret_value(), settings.postgres_schema) as connection:
        connection.execute(sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING DEFAULTS)").format(table, sql.Identifier(pg.EXECUTIONS.table)))
        began_s = time.perf_counter()
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(table, names)
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
        return time.perf_counter() - began_s


def _compared(rows: int, took_s: float, bare_s: float, unit: str) -> dict[str, Any]:
    return {
        "count": rows, f"{unit}_per_s": round(rows / took_s), f"bare_{unit}_per_s": round(rows / bare_s),
        "ratio": round(bare_s / took_s, 2),
    }  # fmt: skip


