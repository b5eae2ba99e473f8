"""The ClickHouse tables as they are on a real server: retention, projections that queries use, views that
stay right."""

import re
import uuid
from collections.abc import Iterator

import pytest
from clickhouse_driver import Client  # type: ignore[import-untyped]

from connectors.clickhouse import ClickHouseSink, Columns, client
from connectors.migrate import migrate_clickhouse
from connectors.rows import clickhouse as rows
from connectors.rows.position import Position
from connectors.rows.traces import TRACE_COLUMNS, TRACE_TABLE
from infra.devstack import Stack
from schemas.analysis import Anomaly, FeatureContribution
from schemas.health import (
    DependencyWindow,
    HealthWindow,
    Histogram,
    OffsetRange,
    ResourceSummary,
)
from schemas.operations import RecoveryAction

pytestmark = pytest.mark.timeout(120)
RETENTION_DAYS = {
    "chain_health_metrics": 90,
    "chain_execution_traces": 30,
    "chain_dependency_events": 60,
    "chain_anomalies": 180,
    "chain_recovery_actions": 180,
}
COLUMNS = {
    TRACE_TABLE: TRACE_COLUMNS,
    rows.HEALTH_TABLE: rows.HEALTH_COLUMNS,
    rows.DEPENDENCY_TABLE: rows.DEPENDENCY_COLUMNS,
    rows.ANOMALY_TABLE: rows.ANOMALY_COLUMNS,
    rows.RECOVERY_TABLE: rows.RECOVERY_COLUMNS,
}
HOUR_US = 3_600_000_000
START_US = 416_666 * HOUR_US
AT = Position("topic", 0, 1)


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


def window(tenant: str, minute: int, revision: int = 0, **values: int) -> HealthWindow:
    start_us = START_US + minute * 60_000_000
    counts = {"events": 10, "started": 5, "completed": 4, "failed": 1, "affected_executions": 1, **values}
    return HealthWindow(
        id=f"{tenant}{minute}", kind="step", tenant=tenant, chain="c", step="s", component="k",
        window_start_unix_us=start_us, window_end_unix_us=start_us + 60_000_000, revision=revision,
        watermark_unix_us=start_us, error_ratio=0.2, throughput_per_s=0.1, mean_us=10.0 + minute, p50_us=9.0,
        p95_us=20.0,
        p99_us=30.0 + minute, max_us=40, durations=Histogram(scale=3, buckets={"5": 5}),
        violations={"step.slow": 1},
        affected_sample=["e"], cpu_us=1, io_wait_us=2, memory_max_bytes=3, broker_mean_us=4.0,
        broker_max_us=5,
        resources={"cpu_ratio": ResourceSummary(count=1, mean=0.5, max=0.5)},
        sources=[OffsetRange(topic="e", partition=0, first_offset=1, last_offset=2)], **counts,
    )  # fmt: skip


def edge(tenant: str, minute: int, revision: int = 0, count: int = 4) -> DependencyWindow:
    start_us = START_US + minute * 60_000_000
    return DependencyWindow(
        id=f"{tenant}{minute}", tenant=tenant, chain="c", kind="call", source="a", target="b",
        window_start_unix_us=start_us, window_end_unix_us=start_us + 60_000_000, revision=revision,
        count=count, failed=1,
        latency_mean_us=5.0, latency_max_us=9 + minute,
    )  # fmt: skip


def insert(
    stack: Stack, database: str, table: str, columns: Columns, token: str, inserted_at: int | None = None
) -> None:
    sink = ClickHouseSink(stack.clickhouse_dsn, table, COLUMNS[table], database=database)
    sink.insert(columns, token, inserted_at)
    sink.close()


@pytest.mark.parametrize("table", RETENTION_DAYS)
def test_retention_counts_from_insertion(server: Client, database: str, table: str) -> None:
    found = server.execute(
        "SELECT engine_full FROM system.tables WHERE database = %(d)s AND name = %(t)s",
        {"d": database, "t": table},
    )
    assert f"TTL inserted_at + toIntervalDay({RETENTION_DAYS[table]})" in found[0][0]
    assert "non_replicated_deduplication_window = 10000" in found[0][0]
    assert 30 <= RETENTION_DAYS[table] <= 180


@pytest.mark.parametrize("table", COLUMNS)
def test_columns_are_those_of_the_rows(server: Client, database: str, table: str) -> None:
    found = server.execute(
        "SELECT name FROM system.columns WHERE database = %(d)s AND table = %(t)s",
        {"d": database, "t": table},
    )
    assert {name for (name,) in found} == {*COLUMNS[table], "inserted_at"}


def test_rows_expire_by_insertion_and_not_by_event_time(
    stack: Stack, database: str, server: Client, tenant: str
) -> None:
    expired, now = 1_600_000_000, None
    for token, inserted_at in (("old", expired), ("new", now)):
        insert(
            stack,
            database,
            rows.HEALTH_TABLE,
            rows.health_columns([(AT, window(f"{tenant}{token}", 0))]),
            f"{tenant}{token}",
            inserted_at,
        )
    server.execute("OPTIMIZE TABLE chain_health_metrics FINAL")
    query = "SELECT tenant, toYear(window_start) FROM chain_health_metrics WHERE tenant LIKE %(t)s"
    assert server.execute(query, {"t": f"{tenant}%"}) == [(f"{tenant}new", 2017)]


IN_THE_LAST_HOUR = ">= '2020-01-02 03:00:00'"
QUERIES = {
    "slowest steps of a chain": (
        "by_chain",
        "SELECT execution, span, duration_us FROM chain_execution_traces WHERE tenant = 't' AND chain = 'c1'"
        f" AND record_kind = 'step' AND start_time {IN_THE_LAST_HOUR} ORDER BY duration_us DESC LIMIT 10",
    ),
    "health of everything": (
        "by_time",
        "SELECT chain, step, error_ratio FROM chain_health_metrics WHERE tenant = 't'"
        f" AND window_start {IN_THE_LAST_HOUR}",
    ),
    "who depends on a component": (
        "by_target",
        "SELECT source, sum(count) FROM chain_dependency_events WHERE tenant = 't' AND target = 'b1' GROUP BY source",
    ),
    "what was unusual": (
        "by_time",
        f"SELECT chain, step, score FROM chain_anomalies WHERE tenant = 't' AND window_start {IN_THE_LAST_HOUR}",
    ),
    "what was done about an incident": (
        "by_incident",
        "SELECT strategy, status FROM chain_recovery_actions WHERE tenant = 't' AND incident = 'i1' ORDER BY time",
    ),
}


@pytest.mark.parametrize(("projection", "query"), QUERIES.values(), ids=QUERIES)
def test_projection_is_used(server: Client, projection: str, query: str) -> None:
    table = query.split(" FROM ")[1].split()[0]
    fill(server, table)
    plan = "\n".join(line for (line,) in server.execute(f"EXPLAIN projections = 1 {query}"))
    assert re.search(rf"ReadFrom\w+ \({projection}\)", plan), plan


def fill(server: Client, table: str) -> None:
    """Put 100,000 rows of a tenant into a table: a projection is only taken where it reads less."""
    structure = "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = %(t)s"
    given = {
        "tenant": "'t'",
        "inserted_at": "now()",
        "window_start": "toDateTime64('2020-01-01', 6) + number",
        "start_time": "toDateTime64('2020-01-01', 6) + number",
        "time": "toDateTime64('2020-01-01', 6) + number",
        "execution": "toString(cityHash64(number))",
        "id": "toString(number)",
        "record_kind": "'step'",
        "chain": "concat('c', toString(number % 50))",
        "target": "concat('b', toString(number % 50))",
        "source": "concat('a', toString(number % 999))",
        "component": "concat('k', toString(number % 50))",
        "incident": "concat('i', toString(number % 999))",
    }
    columns = [name for name, _ in server.execute(structure, {"t": table}) if name in given]
    values = ", ".join(given[name] for name in columns)
    server.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM numbers(100000)")


def test_one_execution_is_found_by_the_sorting_key(server: Client) -> None:
    fill(server, TRACE_TABLE)
    query = f"EXPLAIN indexes = 1 SELECT * FROM {TRACE_TABLE} WHERE tenant = 't' AND execution = '123'"
    plan = "\n".join(line for (line,) in server.execute(query))
    assert "PrimaryKey" in plan, plan
    assert "Condition: and((execution in ['123', '123']), (tenant in ['t', 't']))" in plan, plan


def test_health_per_hour_takes_the_highest_revision_once(
    stack: Stack, database: str, server: Client, tenant: str
) -> None:
    late = window(tenant, 0, revision=1, events=12, completed=5)
    for number, windows in enumerate(
        [[window(tenant, 0), window(tenant, 1)], [late], [window(tenant, 0)], [late]]
    ):
        insert(
            stack,
            database,
            rows.HEALTH_TABLE,
            rows.health_columns((AT, one) for one in windows),
            f"{tenant}{number}",
        )
    query = """SELECT windows, events, completed, failed, round(error_ratio, 3), round(mean_us, 2),
    worst_p99_us,
        affected_executions, toUnixTimestamp(hour) FROM chain_health_hourly WHERE tenant = %(t)s"""
    mean = (6 * 10 + 5 * 11) / 11
    assert server.execute(query, {"t": tenant}) == [
        (2, 22, 9, 2, 0.182, round(mean, 2), 31.0, 2, START_US // 1_000_000)
    ]


def test_edges_per_hour_take_the_highest_revision_once(
    stack: Stack, database: str, server: Client, tenant: str
) -> None:
    for number, one in enumerate(
        [edge(tenant, 0), edge(tenant, 0, 1, 6), edge(tenant, 0), edge(tenant, 1), edge(tenant, 60)]
    ):
        insert(
            stack, database, rows.DEPENDENCY_TABLE, rows.dependency_columns([(AT, one)]), f"{tenant}{number}"
        )
    query = (
        "SELECT count, failed, latency_sum_us / count, latency_max_us FROM dependency_use(tenant = %(t)s,"
        " since_us = 0, until_us = 4000000000000000) ORDER BY hour"
    )
    assert server.execute(query, {"t": tenant}) == [(10, 2, 5.0, 10), (4, 1, 5.0, 69)]


def test_anomalies_and_actions_come_back_as_they_were(
    stack: Stack, database: str, server: Client, tenant: str
) -> None:
    reason = FeatureContribution(feature="p99_us", detector="novelty", value=9.0, contribution=1.0)
    anomaly = Anomaly(
        id="a", tenant=tenant, chain="c", step="s", component="k", window_start_unix_us=START_US,
        window_end_unix_us=START_US + 1, score=0.9, threshold=0.5, direction="higher", features=[reason],
        learned_windows=9, detectors_version="1",
    )  # fmt: skip
    action = RecoveryAction(
        id="r", command="m", incident="i", tenant=tenant, component="k", strategy="restart", status="planned",
        revision=0,
        time_unix_us=START_US,
    )  # fmt: skip
    done = action.model_copy(update={"status": "succeeded", "revision": 1})
    insert(stack, database, rows.ANOMALY_TABLE, rows.anomaly_columns([(AT, anomaly)]), tenant)
    insert(stack, database, rows.RECOVERY_TABLE, rows.recovery_columns([(AT, action), (AT, done)]), tenant)
    who = {"t": tenant}
    assert server.execute("SELECT features, score FROM chain_anomalies WHERE tenant = %(t)s", who) == [
        ([("p99_us", "novelty", 9.0, None, 1.0)], 0.9)
    ]  # fmt: skip
    history = "SELECT status FROM chain_recovery_actions FINAL WHERE tenant = %(t)s ORDER BY revision"
    assert server.execute(history, who) == [("planned",), ("succeeded",)]
