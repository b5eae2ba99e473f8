"""The ClickHouse sink on a real server: every row exactly once, wherever a writer dies, and errors without
values."""

import random
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_driver import Client  # type: ignore[import-untyped]

from connectors.clickhouse import (
    ClickHouseSink,
    Columns,
    Resume,
    client,
)
from connectors.migrate import migrate_clickhouse
from connectors.rows.position import Position
from connectors.rows.traces import TRACE_COLUMNS, TRACE_TABLE, trace_columns
from connectors.sink import SinkFenced, SinkRefused, SinkStopped
from infra.devstack import Stack
from schemas.internal import Execution, Step, TraceBatch

pytestmark = pytest.mark.timeout(180)
TOPIC = "flowchain.traces.v1"
HOUR_US = 3_600_000_000
START_US = 1_500_000_000_000_000


class Crash(BaseException):
    """The process is gone; nothing catches this."""


class Mortal(ClickHouseSink):
    """A sink whose process dies before its n-th insert of rows (0 = never)."""

    dies_at = 0

    def insert(self, columns: Columns, token: str, inserted_at: int | None = None) -> None:
        self.dies_at -= 1
        if self.dies_at == 0:
            raise Crash
        super().insert(columns, token, inserted_at)


class Delayed(ClickHouseSink):
    """A sink that stands still just before it inserts rows, until `late`."""

    def insert(self, columns: Columns, token: str, inserted_at: int | None = None) -> None:
        self.late = lambda: ClickHouseSink.insert(self, columns, token, inserted_at)


class Interrupted(ClickHouseSink):
    """A sink beside which something happens just before its claim of a partition stands."""

    def between(self) -> None:
        """Nothing."""

    def _claim(self, *args: Any) -> int:
        self.between()
        return super()._claim(*args)


@pytest.fixture(scope="module")
def database(stack: Stack) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex}"
    migrate_clickhouse(stack.clickhouse_dsn, name)
    yield name
    with client(stack.clickhouse_dsn, "default") as server:
        server.execute(f"DROP DATABASE {name} SYNC")


@pytest.fixture
def server(stack: Stack, database: str) -> Iterator[Client]:
    with client(stack.clickhouse_dsn, database) as server:
        yield server


@pytest.fixture
def tenant() -> str:
    return uuid.uuid4().hex


OPEN: list[ClickHouseSink] = []


def sink(stack: Stack, database: str, kind: type[ClickHouseSink] = ClickHouseSink, **options: Any) -> Any:
    options = {"max_rows": 10, **options}
    OPEN.append(kind(stack.clickhouse_dsn, TRACE_TABLE, TRACE_COLUMNS, database=database, **options))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def block(tenant: str, first: int, last: int) -> Columns:
    """Three rows per record: an execution, a failed step and a good one, spread over hours long ago."""
    return trace_columns(
        (Position(TOPIC, 0, offset), batch(tenant, offset)) for offset in range(first, last + 1)
    )


def batch(tenant: str, offset: int) -> TraceBatch:
    start_us = START_US + offset % 5 * HOUR_US
    steps = {
        "a": Step(
            "a",
            "pay",
            "bank",
            offset,
            status="failed",
            start_us=start_us,
            duration_us=5,
            error_type="Timeout",
        ),
        "b": Step("b", "ship", "post", offset, status="completed", start_us=start_us, duration_us=offset),
    }
    execution = Execution(
        tenant, "order", f"e{offset}", offset, offset, tier="pro", start_us=start_us, steps=steps
    )
    return TraceBatch("flowchain.events.v1", 0, start_us, [execution])


def check(server: Client, tenant: str, records: int) -> None:
    """Assert that each record's rows are there once, in the table as it stands and in the materialized
    view."""
    who = {"tenant": tenant}
    table = (
        "SELECT count(), uniqExact(source_offset, source_row) FROM chain_execution_traces WHERE tenant ="
        " %(tenant)s"
    )
    assert server.execute(table, who) == [(3 * records, 3 * records)]
    view = (
        "SELECT step, sum(runs), sum(failed) FROM trace_use(tenant = %(tenant)s, since_us = 0, until_us = 4000000000000000)"
        " WHERE record_kind = 'step' GROUP BY step ORDER BY step"
    )
    assert server.execute(view, who) == [("pay", records, records), ("ship", records, 0)]


def test_nothing_was_ever_written(stack: Stack, database: str, tenant: str) -> None:
    assert sink(stack, database).resume(tenant, 0) == Resume(None, None)


def test_blocks_one_after_another_then_settled(
    stack: Stack, database: str, server: Client, tenant: str
) -> None:
    writer = sink(stack, database)
    writer.resume(tenant, 0)
    writer.write(tenant, 0, 0, 3, block(tenant, 0, 3))
    writer.write(tenant, 0, 6, 10, block(tenant, 6, 10))
    writer.settle(tenant, 0)
    assert sink(stack, database).resume(tenant, 0) == Resume(11, None)
    check(server, tenant, 9)


def test_writer_that_did_not_settle_redoes_its_last_block(
    stack: Stack, database: str, server: Client, tenant: str
) -> None:
    writer = sink(stack, database)
    writer.resume(tenant, 0)
    writer.write(tenant, 0, 0, 3, block(tenant, 0, 3))
    again = sink(stack, database)
    assert again.resume(tenant, 0) == Resume(4, (0, 3))
    with pytest.raises(ValueError, match=r"block \(0, 3\) is to be redone"):
        again.write(tenant, 0, 0, 2, block(tenant, 0, 2))
    again.write(tenant, 0, 0, 3, block(tenant, 0, 3))
    with pytest.raises(ValueError, match="does not follow"):
        again.write(tenant, 0, 3, 4, block(tenant, 3, 4))
    check(server, tenant, 4)


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4])
def test_crash_between_begin_and_end(
    stack: Stack, database: str, server: Client, tenant: str, dies_at: int
) -> None:
    """9 records are 27 rows are 3 inserts: the writer dies before the first, second, third, and after the
    last."""
    writer = sink(stack, database, Mortal)
    writer.resume(tenant, 0)
    writer.dies_at = dies_at
    if dies_at < 4:
        with pytest.raises(Crash):
            writer.write(tenant, 0, 0, 8, block(tenant, 0, 8))
    else:
        writer.write(tenant, 0, 0, 8, block(tenant, 0, 8))
    again = sink(stack, database)
    assert again.resume(tenant, 0) == Resume(9, (0, 8))
    again.write(tenant, 0, 0, 8, block(tenant, 0, 8))
    again.write(tenant, 0, 9, 9, block(tenant, 9, 9))
    again.close()
    assert sink(stack, database).resume(tenant, 0) == Resume(10, None)
    check(server, tenant, 10)


def test_many_crashes_at_random(stack: Stack, database: str, server: Client, tenant: str) -> None:
    dice, records = random.Random(7), 120
    position: int | None = None
    while position != records:
        writer = sink(stack, database, Mortal)
        resume = writer.resume(tenant, 0)
        writer.dies_at, position = dice.randint(0, 9), resume.next_offset or 0
        try:
            if resume.redo:
                writer.write(tenant, 0, *resume.redo, block(tenant, *resume.redo))
            while position < records:
                last = min(position + dice.randint(0, 12), records - 1)
                writer.write(tenant, 0, position, last, block(tenant, position, last))
                position = last + 1
                if dice.random() < 0.3:
                    writer.settle(tenant, 0)
        except Crash:
            position = None
    check(server, tenant, records)


def test_writer_that_lost_its_partition_writes_no_row(
    stack: Stack, database: str, server: Client, tenant: str
) -> None:
    """A process that was stopped and goes on knows nothing of the one that took its place."""
    old, new = sink(stack, database), sink(stack, database)
    old.resume(tenant, 0)
    old.write(tenant, 0, 0, 4, block(tenant, 0, 4))
    assert new.resume(tenant, 0) == Resume(5, (0, 4))
    new.write(tenant, 0, 0, 4, block(tenant, 0, 4))
    new.write(tenant, 0, 5, 7, block(tenant, 5, 7))
    with pytest.raises(SinkFenced, match="another writer"):
        old.write(tenant, 0, 5, 6, block(tenant, 5, 6))
    with pytest.raises(SinkFenced):
        old.write(tenant, 0, 5, 6, block(tenant, 5, 6))
    old.close()
    assert sink(stack, database).resume(tenant, 0) == Resume(8, (5, 7))
    check(server, tenant, 8)


def test_block_announced_while_another_claims_is_redone_by_it(
    stack: Stack, database: str, server: Client, tenant: str
) -> None:
    """The old writer has looked before the claim and inserts after it: the new one inserts the same."""
    old, new = sink(stack, database, Delayed), sink(stack, database, Interrupted)
    old.resume(tenant, 0)
    new.between = lambda: old.write(tenant, 0, 0, 4, block(tenant, 0, 4))
    assert new.resume(tenant, 0) == Resume(5, (0, 4))
    new.write(tenant, 0, 0, 4, block(tenant, 0, 4))
    new.write(tenant, 0, 5, 7, block(tenant, 5, 7))
    old.late()
    new.close()
    assert sink(stack, database).resume(tenant, 0) == Resume(8, None)
    check(server, tenant, 8)


def test_two_writers_before_anything_was_written(stack: Stack, database: str, tenant: str) -> None:
    old, new = sink(stack, database), sink(stack, database)
    assert [old.resume(tenant, 0), new.resume(tenant, 0)] == [Resume(None), Resume(None)]
    new.write(tenant, 0, 0, 4, block(tenant, 0, 4))
    with pytest.raises(SinkFenced):
        old.write(tenant, 0, 0, 1, block(tenant, 0, 1))
    assert sink(stack, database).resume(tenant, 0) == Resume(5, (0, 4))


def test_close_ends_a_wait_in_another_thread(stack: Stack, database: str) -> None:
    waiting, ended = threading.Event(), list[str]()
    away = ClickHouseSink("clickhouse://127.0.0.1:1/x", "t", ["a"], on_retry=lambda _: waiting.set())

    def resume() -> None:
        try:
            away.resume("topic", 0)
        except SinkStopped:
            ended.append("stopped")

    thread = threading.Thread(target=resume)
    thread.start()
    waiting.wait()
    away.close()
    thread.join(timeout=5)
    assert ended == ["stopped"]


def test_redo_keeps_the_time_of_insertion(stack: Stack, database: str, server: Client, tenant: str) -> None:
    """A block redone on another day must fall into the same partition, or its token would not be known
    there."""
    yesterday = int(time.time()) - 86_400
    writer = sink(stack, database, Mortal, clock=lambda: yesterday)
    writer.resume(tenant, 0)
    writer.dies_at = 2
    with pytest.raises(Crash):
        writer.write(tenant, 0, 0, 8, block(tenant, 0, 8))
    again = sink(stack, database, clock=lambda: yesterday + 86_400)
    again.resume(tenant, 0)
    again.write(tenant, 0, 0, 8, block(tenant, 0, 8))
    stamps = (
        "SELECT DISTINCT toUnixTimestamp(inserted_at) FROM chain_execution_traces WHERE tenant = %(tenant)s"
    )
    assert server.execute(stamps, {"tenant": tenant}) == [(yesterday,)]


def test_same_rows_under_another_token_change_no_answer(
    stack: Stack, database: str, server: Client, tenant: str
) -> None:
    writer = sink(stack, database)
    for token in ("one", "two"):
        writer.insert(block(tenant, 0, 4), f"{tenant}{token}")
    view = (
        "SELECT sum(runs) FROM trace_use(tenant = %(tenant)s, since_us = 0, until_us = 4000000000000000)"
        " WHERE record_kind = 'step'"
    )
    table = "SELECT count() FROM chain_execution_traces {} WHERE tenant = %(tenant)s"
    assert server.execute(view, {"tenant": tenant}) == [(10,)]
    assert server.execute(table.format("FINAL"), {"tenant": tenant}) == [(15,)]


def test_block_without_rows_moves_on(stack: Stack, database: str, tenant: str) -> None:
    writer = sink(stack, database)
    writer.resume(tenant, 0)
    writer.write(tenant, 0, 0, 5, trace_columns([]))
    writer.close()
    assert sink(stack, database).resume(tenant, 0) == Resume(6, None)


def test_skip_gives_up_a_block_that_the_log_has_lost(stack: Stack, database: str, tenant: str) -> None:
    writer = sink(stack, database)
    writer.resume(tenant, 0)
    writer.write(tenant, 0, 0, 5, block(tenant, 0, 5))
    again = sink(stack, database)
    again.resume(tenant, 0)
    again.skip(tenant, 0, 99)
    assert sink(stack, database).resume(tenant, 0) == Resume(100, None)


def test_partitions_do_not_mix(stack: Stack, database: str, tenant: str) -> None:
    writer = sink(stack, database)
    for partition in (0, 1):
        writer.resume(tenant, partition)
        writer.write(tenant, partition, 0, partition, block(tenant, 0, partition))
    writer.settle(tenant, 1)
    again = sink(stack, database)
    assert again.resume(tenant, 0) == Resume(1, (0, 0))
    assert again.resume(tenant, 1) == Resume(2, None)


@pytest.mark.parametrize("column", ["execution", "duration_us", "start_time", "parents"])
def test_value_of_a_wrong_type_is_refused_without_showing_it(
    stack: Stack, database: str, tenant: str, column: str
) -> None:
    columns = block(tenant, 0, 0)
    secret: list[object] = [object(), "secret-value", ["secret-value"]]
    broken = [
        secret if name == column else list(values)
        for name, values in zip(TRACE_COLUMNS, columns, strict=True)
    ]
    with pytest.raises(SinkRefused) as caught:
        sink(stack, database).insert(broken, tenant)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_missing_table_is_refused(stack: Stack, database: str) -> None:
    writer = ClickHouseSink(stack.clickhouse_dsn, "nothing", ["a"], database=database)
    with pytest.raises(SinkRefused, match="UNKNOWN_TABLE"):
        writer.insert([[1]], "t")
    writer.close()


def test_server_that_is_away_is_waited_for_until_told_to_stop() -> None:
    stop, reasons = threading.Event(), list[str]()

    def note(reason: str) -> None:
        reasons.append(reason)
        if len(reasons) == 3:
            stop.set()

    away = ClickHouseSink("clickhouse://127.0.0.1:1/x", "t", ["a"], stop=stop, on_retry=note)
    with pytest.raises(SinkStopped):
        away.resume("topic", 0)
    assert reasons == ["NetworkError 210 NETWORK_ERROR"] * 3
