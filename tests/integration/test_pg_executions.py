"""Executions in weekly partitions, as the real sink writes them: held against a dictionary; usage exact whatever happens."""

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from helpers_postgres import Space, space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.merging import ensure_partitions
from connectors.postgres import PostgresSink, connect
from connectors.rows.position import Position
from connectors.rows.postgres import EXECUTIONS, execution_rows
from infra.devstack import Stack
from infra.verification.compare import Tally
from infra.verification.postgres import compare_executions
from schemas.internal import Execution, TraceBatch

pytestmark = pytest.mark.timeout(120)
SATURDAY_US = 1_736_553_600_000_000  # 2025-01-11; the week ends on the day after it
DAY_US = 86_400_000_000
Key = tuple[str, str]


@pytest.fixture(scope="module")
def pg(stack: Stack) -> Iterator[Space]:
    with space(stack) as found:
        yield found


def execution(name: str, day: int, revision: int = 0, status: str = "completed", tenant: str = "t", **more: Any) -> Execution:
    return Execution(tenant, more.pop("chain", "c"), name, 0, 0, start_us=SATURDAY_US + day * DAY_US, revision=revision, status=status, **more)


def rows(executions: list[Execution], offset: int = 0) -> dict[str, Any]:
    return dict(execution_rows([(Position("t", 0, offset + place), TraceBatch("e", 0, 1, [one])) for place, one in enumerate(executions)]))


class Model:
    """What is stored: {(tenant, execution): {day: row}}."""

    def __init__(self) -> None:
        self.stored: dict[Key, dict[date, tuple[int, int, Execution]]] = {}

    def take(self, x: Execution, offset: int) -> None:
        day = (date(1970, 1, 1) + timedelta(microseconds=x.start_us)) if x.start_us else date(1970, 1, 1)
        held = self.stored.setdefault((x.tenant, x.execution), {})
        near = [d for d in held if abs((d - day).days) <= 1]
        if all(held[d][:2] <= (x.revision, offset) for d in near):
            for d in near:
                del held[d]
            held[day] = (x.revision, offset, x)

    def rows(self) -> set[tuple[Any, ...]]:
        return {
            (*key, day, revision, offset, x.status, x.duration_us)
            for key, held in self.stored.items()
            for day, (revision, offset, x) in held.items()
        }

    def usage(self) -> dict[tuple[Any, ...], tuple[int, ...]]:
        found: dict[tuple[Any, ...], Counter[str]] = {}
        for (tenant, _), held in self.stored.items():
            for day, (_, _, x) in held.items():
                counts = found.setdefault((tenant, day, x.user, x.chain, x.tier), Counter())
                counts.update({"n": 1, x.status: 1, "us": x.duration_us})
        return {key: (c["n"], c["completed"], c["failed"], c["us"]) for key, c in found.items()}


STORED = "SELECT tenant, execution, started_on, revision, source_offset, status, duration_us FROM flow_executions"
USAGE = "SELECT tenant, day, user_id, chain, tier, executions, completed, failed, duration_sum_us FROM flow_usage_daily"
one_execution = st.builds(
    execution, st.sampled_from("ab"), st.integers(-2, 3), st.integers(0, 3), st.sampled_from(["completed", "failed", "incomplete"]),
    st.sampled_from(["t", "u"]), duration_us=st.integers(0, 3), user=st.sampled_from(["", "x"]), chain=st.sampled_from("cd"),
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(one_execution, max_size=8), max_size=5))
def test_batches_are_what_a_dictionary_makes_of_single_rows(pg: Space, batches: list[list[Execution]]) -> None:
    model, offset = Model(), 0
    with pg.owner() as connection:
        connection.execute("TRUNCATE flow_executions, flow_usage_daily, sink_offsets")
        sink = PostgresSink(pg.settings.postgres_dsn.get_secret_value(), "s", [EXECUTIONS], schema=pg.schema)
        for batch in batches:
            for place, x in enumerate(batch):
                model.take(x, offset + place)
            sink.write("t", 0, offset, offset + len(batch), rows(batch, offset))
            offset += len(batch) + 1
        sink.close()
        assert set(connection.execute(STORED).fetchall()) == model.rows()
        assert {row[:5]: row[5:] for row in connection.execute(USAGE).fetchall()} == model.usage()


def write(pg: Space, name: str, executions: list[Execution]) -> None:
    sink = PostgresSink(pg.settings.postgres_dsn.get_secret_value(), name, [EXECUTIONS], schema=pg.schema)
    sink.write("t", 0, 0, len(executions), rows(executions))
    sink.close()


def test_start_that_moves_over_the_end_of_a_week_leaves_one_row(pg: Space) -> None:
    write(pg, "move", [execution("e", 2, 0, tenant="move")])
    write(pg, "back", [execution("e", 1, 1, tenant="move")])
    write(pg, "late", [execution("e", 2, 0, tenant="move")])
    assert pg.ask("SELECT tableoid::regclass::text, revision FROM flow_executions WHERE tenant = 'move'") == [("flow_executions_2025w02", 1)]


def test_execution_without_a_time_and_old_ones_have_a_place(pg: Space) -> None:
    ancient = Execution("old", "c", "ancient", 0, 0, start_us=1_000_000)
    write(pg, "old", [Execution("old", "c", "timeless", 0, 0), ancient, execution("e", 0, tenant="old")])
    found = pg.ask("SELECT execution, tableoid::regclass::text FROM flow_executions WHERE tenant = 'old' ORDER BY 1")
    assert found == [("ancient", "flow_executions_old"), ("e", "flow_executions_2025w02"), ("timeless", "flow_executions_old")]


def test_sinks_that_need_the_same_new_weeks_at_once_make_each_once(pg: Space) -> None:
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            write(pg, f"sink{number}", [execution(f"e{number}", 7 * week, tenant="race") for week in range(100, 110)])
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = pg.ask("SELECT tableoid::regclass::text, count(*) FROM flow_executions WHERE tenant = 'race' GROUP BY 1")
    assert sorted(count for _, count in found) == [6 * 1] * 10
    assert pg.ask("SELECT sum(executions) FROM flow_usage_daily WHERE tenant = 'race'") == [(60,)]


def test_new_week_is_made_while_others_read_and_write(pg: Space) -> None:
    """Attaching locks out neither: both transactions are open when it happens."""
    write(pg, "before", [execution("e", 0, tenant="open")])
    dsn = pg.settings.postgres_dsn.get_secret_value()
    with (
        connect(dsn, pg.schema) as reader, connect(dsn, pg.schema) as writer, connect(dsn, pg.schema) as maker,
        reader.transaction(), writer.transaction(),
    ):  # fmt: skip
        reader.execute("SELECT count(*) FROM flow_executions")
        writer.execute("UPDATE flow_executions SET violations = 1 WHERE tenant = 'open'")
        maker.execute("SET lock_timeout = '5s'")
        ensure_partitions(maker, EXECUTIONS, rows([execution("e", 7 * 500)])[EXECUTIONS.table])
        reader.execute("SELECT count(*) FROM flow_executions")


def test_week_that_was_dropped_meanwhile_is_made_again(pg: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("connectors.postgres.ensure_partitions", lambda *_: None)

    def mend(reason: str) -> None:
        told.append(reason)
        monkeypatch.undo()

    sink = PostgresSink(pg.settings.postgres_dsn.get_secret_value(), "drop", [EXECUTIONS], schema=pg.schema, on_retry=mend)
    sink.write("t", 0, 0, 1, rows([execution("e", 7 * 600, tenant="drop")]))
    sink.close()
    assert told == ["CheckViolation 23514"]
    assert pg.ask("SELECT count(*) FROM flow_executions WHERE tenant = 'drop'") == [(1,)]


def test_day_must_be_that_of_the_start(pg: Space) -> None:
    write(pg, "day", [execution("e", 0, tenant="day")])
    with pytest.raises(psycopg.errors.CheckViolation, match="flow_executions_day"):
        pg.ask("UPDATE flow_executions SET started_on = started_on + 1 WHERE tenant = 'day' RETURNING 1")


def test_verification_finds_a_row_that_a_later_revision_should_have_replaced(pg: Space) -> None:
    runs = [execution("e", 0, 0, tenant="twice"), execution("e", 1, 1, tenant="twice")]
    truth: Any = SimpleNamespace(keys_of_runs=[("twice", "e")], is_settled=lambda *_: True, runs=lambda *_: runs)

    def compared() -> Tally:
        tally = Tally("postgres executions")
        with pg.owner() as connection, connection.transaction():
            compare_executions(connection, pg.schema, "twice", 0, 10, truth, tally)
        return tally

    with pg.owner() as connection:
        connection.execute("SELECT ensure_flow_executions('{2025-01-11}')")
        for x in runs:
            row = rows([x])[EXECUTIONS.table][0]
            names = ", ".join(EXECUTIONS.columns)
            marks = ", ".join(["%s"] * len(row))
            connection.execute(f"INSERT INTO flow_executions ({names}) VALUES ({marks})".encode(), [*row[:-3], "twice", 0, 0])
    assert (compared().duplicated, compared().different, compared().missing) == (1, 0, 0)
    pg.ask("DELETE FROM flow_executions WHERE tenant = 'twice' AND revision = 0 RETURNING 1")
    assert compared().right
