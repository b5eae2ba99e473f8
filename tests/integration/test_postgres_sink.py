"""The PostgreSQL sink on a real server: rows and offset together, revisions, stale writers, errors without
values."""

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from connectors.migrate import migrate_postgres
from connectors.postgres import PostgresSink, StaleWriter
from connectors.rows.position import Position
from connectors.rows.postgres import (
    ALERTS,
    DEPENDENCIES,
    EXECUTIONS,
    INCIDENTS,
    METRICS,
    alert_rows,
    dependency_rows,
    execution_rows,
    incident_rows,
    metric_rows,
)
from connectors.sink import SinkRefused, SinkStopped
from infra.devstack import Stack
from schemas.analysis import Alert, Cause, Incident
from schemas.health import DependencyWindow, HealthWindow, Histogram
from schemas.internal import Execution, TraceBatch

pytestmark = pytest.mark.timeout(120)
ALL = (EXECUTIONS, METRICS, DEPENDENCIES, INCIDENTS, ALERTS)


@pytest.fixture(scope="module")
def schema(stack: Stack) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex}"
    migrate_postgres(stack.postgres_dsn, name)
    yield name
    with psycopg.connect(stack.postgres_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture
def connection(stack: Stack, schema: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(
        stack.postgres_dsn, autocommit=True, options=f"-c search_path={schema}"
    ) as connection:
        yield connection


@pytest.fixture
def tenant() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def writer(stack: Stack, schema: str, tenant: str) -> PostgresSink:
    return sink(stack, schema, tenant)


OPEN: list[PostgresSink] = []


def sink(stack: Stack, schema: str, name: str, **options: Any) -> PostgresSink:
    OPEN.append(PostgresSink(stack.postgres_dsn, name, ALL, schema=schema, **options))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def executions(tenant: str, *states: tuple[str, int, str]) -> Any:
    found = [
        Execution(tenant, "c", name, 0, 0, revision=revision, status=status)
        for name, revision, status in states
    ]
    return execution_rows([(Position("t", 0, 1), TraceBatch("e", 0, 1, found))])


def stored(connection: psycopg.Connection, tenant: str) -> list[tuple[Any, ...]]:
    query = "SELECT execution, revision, status FROM flow_executions WHERE tenant = %s ORDER BY execution"
    return connection.execute(query, [tenant]).fetchall()


def test_rows_and_offset(writer: PostgresSink, connection: psycopg.Connection, tenant: str) -> None:
    assert writer.resume("t", 0) is None
    writer.write("t", 0, 0, 4, executions(tenant, ("a", 0, "completed"), ("b", 0, "failed")))
    assert stored(connection, tenant) == [("a", 0, "completed"), ("b", 0, "failed")]
    assert (writer.resume("t", 0), writer.resume("t", 1)) == (5, None)


def test_highest_revision_wins_within_a_batch_and_against_what_is_stored(
    writer: PostgresSink, connection: psycopg.Connection, tenant: str
) -> None:
    writer.write(
        "t", 0, 0, 0, executions(tenant, ("a", 1, "failed"), ("a", 2, "completed"), ("a", 0, "abandoned"))
    )
    assert stored(connection, tenant) == [("a", 2, "completed")]
    writer.write("t", 0, 1, 1, executions(tenant, ("a", 1, "failed"), ("b", 0, "failed")))
    assert stored(connection, tenant) == [("a", 2, "completed"), ("b", 0, "failed")]
    writer.write("t", 0, 2, 2, executions(tenant, ("a", 2, "incomplete")))
    assert stored(connection, tenant) == [("a", 2, "incomplete"), ("b", 0, "failed")]


def test_refused_batch_leaves_neither_rows_nor_offset(
    writer: PostgresSink, connection: psycopg.Connection, tenant: str
) -> None:
    writer.write("t", 0, 0, 0, executions(tenant, ("a", 0, "completed")))
    with pytest.raises(SinkRefused, match="CheckViolation 23514") as caught:
        writer.write("t", 0, 1, 1, executions(tenant, ("b", 0, "completed"), ("c", 0, "secret-value")))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert stored(connection, tenant) == [("a", 0, "completed")]
    assert writer.resume("t", 0) == 1


def test_batch_whose_commit_was_not_answered_is_not_written_twice(
    writer: PostgresSink, connection: psycopg.Connection, tenant: str
) -> None:
    writer.write("t", 0, 0, 4, executions(tenant, ("a", 0, "completed")))
    writer.write("t", 0, 0, 4, executions(tenant, ("a", 0, "failed")))
    assert stored(connection, tenant) == [("a", 0, "completed")]
    assert writer.resume("t", 0) == 5


def test_writer_that_lost_its_partition_is_told_so(
    stack: Stack, schema: str, writer: PostgresSink, connection: psycopg.Connection, tenant: str
) -> None:
    writer.write("t", 0, 0, 4, executions(tenant, ("a", 0, "completed")))
    sink(stack, schema, tenant).write("t", 0, 5, 9, executions(tenant, ("b", 0, "completed")))
    with pytest.raises(StaleWriter):
        writer.write("t", 0, 5, 6, executions(tenant, ("a", 9, "failed")))
    assert stored(connection, tenant) == [("a", 0, "completed"), ("b", 0, "completed")]


def test_two_writers_of_one_partition_do_not_both_write(
    stack: Stack, schema: str, connection: psycopg.Connection, tenant: str
) -> None:
    """The second waits for the first's transaction, finds its offset moved on and gives up."""
    outcome: list[str] = []

    def write(last: int) -> None:
        try:
            sink(stack, schema, tenant).write(
                "t", 0, 0, last, executions(tenant, (f"e{last}", 0, "completed"))
            )
            outcome.append("written")
        except StaleWriter:
            outcome.append("stale")

    threads = [threading.Thread(target=write, args=(last,)) for last in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome) == ["stale"] * 5 + ["written"]
    assert len(stored(connection, tenant)) == 1


def test_lost_connection_is_replaced(
    writer: PostgresSink, connection: psycopg.Connection, tenant: str
) -> None:
    writer.write("t", 0, 0, 0, executions(tenant, ("a", 0, "completed")))
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query"
        " LIKE '%%' || %s || '%%'"
    )
    connection.execute(others, ["flow_executions"])
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query"
        " = 'COMMIT'"
    )
    writer.write("t", 0, 1, 1, executions(tenant, ("b", 0, "completed")))
    assert len(stored(connection, tenant)) == 2
    assert writer.resume("t", 0) == 2


def test_metrics_keep_the_newest_window(
    writer: PostgresSink, connection: psycopg.Connection, tenant: str
) -> None:
    def window(start_us: int, revision: int, events: int) -> tuple[Position, HealthWindow]:
        return Position("t", 0, 1), HealthWindow(
            id="w", kind="chain", tenant=tenant, chain="c", step="", component="",
            window_start_unix_us=start_us,
            window_end_unix_us=start_us + 10, revision=revision, watermark_unix_us=start_us, events=events,
            started=0,
            completed=0, failed=0, error_ratio=0.0, throughput_per_s=0.0, mean_us=0.0, p50_us=0.0, p95_us=0.0,
            p99_us=0.0,
            max_us=0, durations=Histogram(scale=0, buckets={}), violations={"step.slow": 2},
            affected_executions=0,
            affected_sample=[], cpu_us=0, io_wait_us=0, memory_max_bytes=0, broker_mean_us=0.0,
            broker_max_us=0,
            resources={}, sources=[],
        )  # fmt: skip

    writer.write("t", 0, 0, 0, metric_rows([window(10, 0, 1), window(20, 0, 2), window(10, 5, 3)]))
    writer.write("t", 0, 1, 1, metric_rows([window(10, 9, 4)]))
    query = "SELECT events, violations FROM flow_metrics WHERE tenant = %s"
    assert connection.execute(query, [tenant]).fetchall() == [(2, {"step.slow": 2})]


def edge(start_us: int, revision: int, count: int) -> tuple[Position, DependencyWindow]:
    return Position("t", 0, count), DependencyWindow(
        id="d", tenant="t", chain="c", kind="call", source="a", target="b", window_start_unix_us=start_us,
        window_end_unix_us=start_us + 10, revision=revision, count=count, failed=1, latency_mean_us=2.5, latency_max_us=3,
    )  # fmt: skip


def test_observed_edge_keeps_the_newest_window_and_when_it_was_seen_first(writer: PostgresSink, connection: psycopg.Connection) -> None:
    writer.write("t", 0, 0, 0, dependency_rows([edge(20, 0, 5), edge(10, 0, 4)]))
    query = """SELECT provenance, events, revision, extract(microsecond FROM first_seen_at)::int, extract(microsecond FROM last_seen_at)::int
        FROM flow_dependencies WHERE tenant = 't'"""
    assert connection.execute(query).fetchall() == [("observed", 5, 0, 10, 30)]
    writer.write("t", 0, 1, 1, dependency_rows([edge(30, 1, 7), edge(30, 2, 8), edge(20, 9, 6)]))
    assert connection.execute(query).fetchall() == [("observed", 8, 2, 10, 40)]


def test_incidents_and_alerts_keep_the_highest_revision(writer: PostgresSink, connection: psycopg.Connection, tenant: str) -> None:
    common: dict[str, Any] = {
        "tenant": tenant, "severity": "warning", "opened_unix_us": 1, "first_fault_unix_us": 1, "updated_unix_us": 2, "title": "nul \x00",
        "suspects": [], "affected_executions": 0, "affected_sample": [], "violations": {}, "evidence": [],
    }  # fmt: skip

    def incident(revision: int, status: Any) -> tuple[Position, Incident]:
        ended = {"resolved_unix_us": 3} if status == "resolved" else {}
        return Position("t", 0, 1), Incident(**common, **ended, id="i", revision=revision, status=status, blast_radius=[], chains=["c"], anomalies=[])

    def alert(revision: int, status: Any) -> tuple[Position, Alert]:
        return Position("t", 0, 1), Alert(
            **common, id="a", revision=revision, status=status, incident="i", summary="s", affected=[], affected_chains=[],
            cause=Cause(component="k", probability=1.0, reason="r"),
        )  # fmt: skip

    writer.write("t", 0, 0, 0, incident_rows([incident(0, "open"), incident(2, "resolved"), incident(1, "open")]))
    writer.write("t", 0, 1, 1, alert_rows([alert(3, "resolved")]) | incident_rows([incident(1, "open")]))
    writer.write("t", 0, 2, 2, alert_rows([alert(2, "updated")]))
    query = "SELECT revision, status, cause, title, resolved_at IS NULL, document->>'id', updated_at < stored_at FROM {} WHERE tenant = %s"
    incidents = connection.execute(sql.SQL(query).format(sql.Identifier("flow_incidents")), [tenant]).fetchall()
    alerts = connection.execute(sql.SQL(query).format(sql.Identifier("flow_alerts")), [tenant]).fetchall()
    assert incidents == [(2, "resolved", "", "nul \ufffd", False, "i", True)]
    assert alerts == [(3, "resolved", "k", "nul \ufffd", True, "a", True)]


def test_server_that_is_away_is_waited_for_until_told_to_stop() -> None:
    stop, reasons = threading.Event(), list[str]()

    def note(reason: str) -> None:
        reasons.append(reason)
        if len(reasons) == 3:
            stop.set()

    away = PostgresSink("postgresql://nobody@127.0.0.1:1/x", "s", ALL, stop=stop, on_retry=note)
    with pytest.raises(SinkStopped):
        away.resume("t", 0)
    assert reasons == ["OperationalError"] * 3
