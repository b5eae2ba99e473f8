"""Use of chains and steps per quarter of an hour: the traces' own numbers, whether a quarter has been counted or not."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_driver import Client  # type: ignore[import-untyped]

from connectors.clickhouse import client
from connectors.http.clickhouse import text_of
from connectors.migrate import SCHEMAS, load, migrate_clickhouse
from infra.devstack import Stack

pytestmark = pytest.mark.timeout(120)
QUARTER_S = 900
START_S = 1_900_000 * QUARTER_S
STRETCH = {"since_us": START_S * 1_000_000, "until_us": (START_S + 96 * QUARTER_S) * 1_000_000, "limit": 100, "tier": "", "step_us": 900_000_000}
SUMS = """SELECT record_kind, toUnixTimestamp(quarter), chain, step, component, tier, runs, completed, failed, completed_us, busy_us, u.cpu_us, u.io_wait_us,
    u.memory_max_bytes, finalizeAggregation(users) FROM trace_use(tenant = %(tenant)s, since_us = %(since_us)s, until_us = %(until_us)s) AS u ORDER BY ALL"""


@pytest.fixture
def server(stack: Stack) -> Iterator[Client]:
    name = f"use{uuid.uuid4().hex}"
    migrate_clickhouse(stack.clickhouse_dsn, name)
    with client(stack.clickhouse_dsn, name) as server:
        yield server
    with client(stack.clickhouse_dsn, "default") as other:
        other.execute(f"DROP DATABASE {name} SYNC")


def row(execution: str, quarter: int = 0, span: str = "", **values: Any) -> dict[str, Any]:
    start = (START_S + quarter * QUARTER_S + 7) * 1_000_000
    about = {"record_kind": "step" if span else "execution", "step": f"s-{span}" if span else "", "component": "k" if span else ""}
    return {
        "tenant": "t", "chain": "c", "execution": execution, "span": span, "user": f"u{execution}", "tier": "pro", "status": "completed",
        "start_time": start, "end_time": start, "duration_us": 10, "cpu_us": 3, "io_wait_us": 2, "memory_bytes": 5, "revision": 1, "inserted_at": int(time.time()), **about, **values,
    }  # fmt: skip


def write(server: Client, *written: dict[str, Any]) -> None:
    server.execute(f"INSERT INTO chain_execution_traces ({', '.join(written[0])}) VALUES", list(written))


def sums(server: Client, tenant: str = "t") -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = server.execute(SUMS, STRETCH | {"tenant": tenant})
    return found


def settle(server: Client) -> None:
    """Let ten minutes pass, as far as marks and counts are concerned, and count what is due."""
    views = ("trace_use_counted_mv", "dependency_use_counted_mv")
    aged = {"trace_quarters": "changed_at", "trace_use_counted": "counted_at", "dependency_hours": "changed_at", "dependency_use_counted": "counted_at"}
    for view in views:
        server.execute(f"SYSTEM STOP VIEW {view}")  # it also counts by itself, once a minute
    for table, column in aged.items():
        server.execute(f"CREATE TABLE older ENGINE = Memory AS SELECT * REPLACE ({column} - 600 AS {column}) FROM {table}")
        server.execute(f"TRUNCATE TABLE {table}")
        server.execute(f"INSERT INTO {table} SELECT * FROM older")
        server.execute("DROP TABLE older")
    for view in views:
        server.execute(f"SYSTEM START VIEW {view}")
        server.execute(f"SYSTEM REFRESH VIEW {view}")
        server.execute(f"SYSTEM WAIT VIEW {view}")


def test_newest_revision_of_a_run_counts_once(server: Client) -> None:
    write(server, row("1"), row("1", 0, "a"), row("2", status="failed"), row("2", 0, "a", status="failed"), row("3", 5))
    write(server, row("1"), row("1", 0, "a"))
    write(server, row("2", revision=2, duration_us=30), row("2", 0, "a", revision=2), row("2", 0, "b", revision=2, status="heard_of"))
    assert sums(server) == [
        ("execution", START_S, "c", "", "", "pro", 2, 2, 0, 40, 40, 6, 4, 5, 2),
        ("execution", START_S + 5 * QUARTER_S, "c", "", "", "pro", 1, 1, 0, 10, 10, 3, 2, 5, 1),
        ("step", START_S, "c", "s-a", "k", "pro", 2, 2, 0, 20, 20, 6, 4, 5, 2),
    ]


def test_counting_changes_no_answer_and_a_later_change_is_seen_at_once(server: Client) -> None:
    write(server, *(row(str(n), n % 9, "a" if n % 3 else "", tier=f"t{n % 2}", status="failed" if n % 5 == 0 else "completed") for n in range(200)))
    before = sums(server)
    settle(server)
    assert server.execute("SELECT uniq(quarter), countIf(record_kind = '') FROM trace_use_counted") == [(9, 9)]
    assert sums(server) == before
    server.execute("TRUNCATE TABLE chain_execution_traces")
    assert sums(server) == before, "what has settled is read as it was counted"
    write(server, row("new", 4, "a", tier="t0"))
    changed = sums(server)
    assert [x for x in changed if x[1] != START_S + 4 * QUARTER_S] == [x for x in before if x[1] != START_S + 4 * QUARTER_S]
    assert [x[6] for x in changed if x[1] == START_S + 4 * QUARTER_S] == [1], "a quarter that changed is read from the traces again"
    settle(server)
    assert sums(server) == changed


def test_quarter_that_has_not_been_quiet_is_not_counted(server: Client) -> None:
    write(server, row("1"))
    server.execute("SYSTEM REFRESH VIEW trace_use_counted_mv")
    server.execute("SYSTEM WAIT VIEW trace_use_counted_mv")
    assert server.execute("SELECT count() FROM trace_use_counted") == [(0,)]


def test_all_rows_of_a_counting_have_one_moment_and_come_together(server: Client) -> None:
    write(server, *(row(str(n), n % 90, "a", tier=f"t{n % 7}") for n in range(2_000)))
    settle(server)
    moments, parts = server.execute("SELECT uniq(counted_at), uniq(_part) FROM trace_use_counted")[0]
    assert (moments, parts) == (1, 1)


def test_tenants_are_counted_apart(server: Client) -> None:
    write(server, row("1"), row("1", tenant="other"), row("2", tenant="other"))
    for _ in range(2):
        assert [x[6] for x in sums(server)] == [1]
        assert [x[6] for x in sums(server, "other")] == [2]
        settle(server)


def test_run_without_a_beginning_counts_where_it_ended(server: Client) -> None:
    write(server, row("1", 3, "a", start_time=0))
    for _ in range(2):
        assert [x[:2] for x in sums(server)] == [("step", START_S + 3 * QUARTER_S)]
        settle(server)


def test_traces_from_before_the_marks_are_marked_by_the_migration(server: Client) -> None:
    write(server, row("1"), row("2", 1))
    server.execute("TRUNCATE TABLE trace_quarters")
    assert sums(server) == []
    (migration,) = [m for m in load(SCHEMAS / "clickhouse") if m.name.endswith("use_by_quarter")]
    for statement in migration.statements:
        server.execute(statement.rstrip(";"))
    assert [x[6] for x in sums(server)] == [1, 1]


def test_business_questions_are_answered_from_both(server: Client) -> None:
    runs = [row(str(n), n % 4, status="failed" if n % 4 == 1 else "completed", duration_us=10 + 10 * (n % 4)) for n in range(40)]
    steps = [row(str(n), n % 4, "a", status="failed" if n % 4 == 1 else "completed") for n in range(40)]
    write(server, *runs, *steps)
    asked = {name: server.execute(text_of(name), STRETCH | {"tenant": "t"}) for name in ("most_used_chains", "failing_steps", "resource_use", "chain_trends")}
    assert asked["most_used_chains"] == [("c", 40, 40, 0.75, ["pro"])]
    assert asked["failing_steps"] == [("c", "s-a", "k", "pro", 40, 10, 0.25)]
    assert asked["resource_use"] == [("c", 40, 120, 80, 5, 400, 3.0)]
    (trend,) = asked["chain_trends"]
    assert trend[:4] == ("c", 3, 30, pytest.approx((10 + 30 + 40) / 3)) and trend[5] == "slower"
    settle(server)
    assert {name: server.execute(text_of(name), STRETCH | {"tenant": "t"}) for name in asked} == asked


def edge(target: str, window: int, **values: Any) -> dict[str, Any]:
    start = (START_S + window * 60) * 1_000_000
    return {
        "id": f"{target}{window}", "tenant": "t", "chain": "c", "kind": "call", "source": "a", "target": target, "window_start": start, "window_end": start,
        "revision": 0, "count": 4, "failed": 1, "latency_mean_us": 5.0, "latency_max_us": 9 + window, "inserted_at": int(time.time()), **values,
    }  # fmt: skip


def write_edges(server: Client, *written: dict[str, Any]) -> None:
    server.execute(f"INSERT INTO chain_dependency_events ({', '.join(written[0])}) VALUES", list(written))


def test_dependencies_are_those_of_the_newest_windows_counted_or_not(server: Client) -> None:
    write_edges(server, *(edge(target, window) for target in "bc" for window in (0, 1, 70)), edge("b", 0, tenant="other"))
    write_edges(server, edge("b", 0, revision=1, count=6), edge("b", 1))
    query = STRETCH | {"tenant": "t", "chain": ""}
    before = server.execute(text_of("edges"), query)
    hour = START_S // 3600 * 3600 * 1_000_000
    assert [edge[:10] for edge in before] == [
        ("call", "a", "b", "", ["c"], hour, hour + 3_600_000_000, 14, 3, 5.0), ("call", "a", "c", "", ["c"], hour, hour + 3_600_000_000, 12, 3, 5.0),
    ]  # fmt: skip
    settle(server)
    assert server.execute("SELECT uniq(tenant, hour) FROM dependency_use_counted") == [(3,)]
    server.execute("TRUNCATE TABLE chain_dependency_events")
    assert server.execute(text_of("edges"), query) == before
    write_edges(server, edge("d", 70))
    for _ in range(2):
        found = server.execute(text_of("edges"), query)
        assert [(edge[2], edge[7]) for edge in found] == [("b", 10), ("c", 8), ("d", 4)], "the hour that changed is read from the windows again"
        settle(server)
