"""What retention removes, by tier and by when it was stored, and what it leaves."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from helpers_postgres import Space, space
from typer.testing import CliRunner

from connectors.postgres import PostgresSink, connect
from connectors.retention import LOCK, OLDEST, apply_retention, retain
from connectors.rows.position import Position
from connectors.rows.postgres import EXECUTIONS, execution_rows
from connectors.settings import Settings
from infra.cli import app
from infra.devstack import Stack
from schemas.internal import Execution, TraceBatch

pytestmark = pytest.mark.timeout(120)
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)  # a Monday
OLD, NEW = NOW - timedelta(days=100), NOW - timedelta(days=1)
TENANTS = ("free-one", "big-one", "unknown-one")


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Iterator[Space]:
    with space(stack) as found:
        yield found


@pytest.fixture
def pg(shared: Space) -> Space:
    with shared.owner() as connection:
        for week in weeks(shared) - {OLDEST}:
            connection.execute(f"DROP TABLE {week}".encode())
        tables = connection.execute("SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = current_schema()").fetchall()[0][0]
        kept = {"tiers", "tenant_key", "schema_migrations", OLDEST}
        connection.execute(f"TRUNCATE {','.join(set(tables.split(',')) - kept)}".encode())
        connection.execute("INSERT INTO tenants VALUES ('free-one', 'F', 'free'), ('big-one', 'B', 'enterprise')")
    return shared


def store(pg: Space, tenant: str, began: datetime, stored: datetime | None = None, name: str = "e") -> None:
    """Write an execution with the sink, as if it had been stored at another time."""
    us = int(began.timestamp() * 1_000_000)
    batch = TraceBatch("e", 0, 1, [Execution(tenant, "c", f"{name}-{us}", 0, 0, start_us=us, status="completed", user="u")])
    sink = PostgresSink(pg.settings.postgres_dsn.get_secret_value(), f"{tenant}{us}{name}", [EXECUTIONS], schema=pg.schema)
    sink.write("t", 0, 0, 0, execution_rows([(Position("t", 0, 0), batch)]))
    sink.close()
    for table, day in (("flow_executions", "started_on"), ("flow_usage_daily", "day")):
        with pg.owner() as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(f"UPDATE {table} SET updated_at = %s WHERE tenant = %s AND {day} = %s".encode(), [stored or began, tenant, began.date()])


def kept(pg: Space, table: str = "flow_executions", column: str = "tenant") -> list[Any]:
    return [row[0] for row in pg.ask(f"SELECT {column} FROM {table} ORDER BY 1")]


def weeks(pg: Space) -> set[str]:
    return {row[0] for row in pg.ask("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'flow_executions'::regclass")}


def test_each_tier_keeps_its_days_and_strangers_as_long_as_anybody(pg: Space) -> None:
    for tenant in TENANTS:
        for age in (2, 10, 100, 400):
            store(pg, tenant, NOW - timedelta(days=age))
    removed = apply_retention(pg.settings, NOW)
    assert removed == {"flow_executions": 2, "flow_executions_2025w19": 3, "flow_usage_daily": 5}
    assert kept(pg) == kept(pg, "flow_usage_daily") == ["big-one"] * 3 + ["free-one"] + ["unknown-one"] * 3
    assert apply_retention(pg.settings, NOW) == {}


def test_week_goes_as_a_whole_when_nothing_of_it_is_kept(pg: Space) -> None:
    for name in ("e", "f", "g"):
        store(pg, "free-one", OLD, name=name)
    store(pg, "free-one", NEW)
    store(pg, "big-one", OLD - timedelta(days=14))
    before = weeks(pg)
    assert apply_retention(pg.settings, NOW) == {"flow_executions_2026w10": 3, "flow_usage_daily": 1}
    assert before - weeks(pg) == {"flow_executions_2026w10"}
    store(pg, "free-one", OLD, stored=NOW, name="again")
    assert kept(pg) == ["big-one", "free-one", "free-one"]


def test_import_of_old_data_is_kept_from_when_it_was_stored(pg: Space) -> None:
    store(pg, "free-one", OLD, stored=NEW)
    store(pg, "free-one", datetime(2012, 1, 1, tzinfo=UTC), stored=NEW)
    assert apply_retention(pg.settings, NOW) == {}
    assert apply_retention(pg.settings, NOW + timedelta(days=8)) == {"flow_executions": 1, "flow_executions_2026w10": 1, "flow_usage_daily": 2}
    assert weeks(pg) == {"flow_executions_old"}


def test_usage_outlives_the_executions_it_counts(pg: Space) -> None:
    store(pg, "free-one", OLD)
    pg.ask("UPDATE flow_usage_daily SET updated_at = %s RETURNING 1", NEW)
    assert apply_retention(pg.settings, NOW) == {"flow_executions_2026w10": 1}
    assert kept(pg, "flow_usage_daily", "executions") == [1]


def test_usage_of_executions_that_are_kept_is_kept(pg: Space) -> None:
    store(pg, "free-one", OLD, stored=NEW)
    pg.ask("UPDATE flow_usage_daily SET updated_at = %s RETURNING 1", OLD)
    assert apply_retention(pg.settings, NOW) == {}


INSERTS = {
    "flow_metrics": "(tenant, kind, chain, step, component, window_start, window_end, revision, events, started, completed, failed, error_ratio, "
    "throughput_per_s, mean_us, p50_us, p95_us, p99_us, max_us, violations, affected_executions, cpu_us, io_wait_us, memory_max_bytes, broker_mean_us, "
    "resources, source_topic, source_partition, source_offset, updated_at) VALUES (%(t)s, 'chain', %(n)s, '', '', now(), now(), 0, 0, 0, 0, 0, 0, 0, 0, 0, "
    "0, 0, 0, '{}', 0, 0, 0, 0, 0, '{}', 't', 0, 0, %(at)s)",
    "flow_dependencies": "(tenant, provenance, kind, source, target, first_seen_at, last_seen_at, updated_at) VALUES (%(t)s, 'observed', 'call', %(n)s, 'b', "
    "now(), now(), %(at)s)",
    "flow_incidents": "VALUES (%(t)s, %(n)s, 0, 'resolved', 'info', '', '', now(), now(), NULL, '{}', 't', 0, 0, %(at)s)",
    "flow_alerts": "VALUES (%(t)s, %(n)s, 0, 'retracted', 'info', '', '', now(), now(), NULL, '{}', 't', 0, 0, %(at)s)",
    "alert_actions": "(tenant, alert, action, actor, at) VALUES (%(t)s, 'gone', 'acknowledge', 'x', %(at)s)",
    "silences": "VALUES (%(t)s || %(n)s, %(t)s, '', '', '', '2000-01-01', %(at)s, 'r', 'x')",
    "audit_log": "(tenant, actor, action, object_type, object_id, at) VALUES (%(t)s, 'x', 'insert', 'flow', 'f', %(at)s)",
}


@pytest.mark.parametrize("table", INSERTS)
def test_other_tables(pg: Space, table: str) -> None:
    with pg.owner() as connection:
        connection.execute("SET session_replication_role = replica")
        for name, at in (("old", OLD), ("new", NEW)):
            for tenant in TENANTS:
                connection.execute(f"INSERT INTO {table} {INSERTS[table]}".encode(), {"t": tenant, "n": name, "at": at})
    assert apply_retention(pg.settings, NOW) == {table: 1}
    ours = "actor = 'x'" if table == "audit_log" else "true"
    found = pg.ask(f"SELECT tenant, count(*) FROM {table} WHERE {ours} GROUP BY 1")
    assert dict(found) == {"big-one": 2, "free-one": 1, "unknown-one": 2}


def test_what_is_not_over_stays_however_old(pg: Space) -> None:
    with pg.owner() as connection:
        common = {"t": "free-one", "n": "x", "at": OLD}
        connection.execute(f"INSERT INTO flow_alerts {INSERTS['flow_alerts'].replace('retracted', 'opened')}".encode(), common)
        connection.execute(f"INSERT INTO flow_incidents {INSERTS['flow_incidents'].replace('resolved', 'open')}".encode(), common)
        connection.execute(f"INSERT INTO alert_actions {INSERTS['alert_actions'].replace('gone', 'x')}".encode(), common)
        connection.execute("INSERT INTO flow_dependencies VALUES ('free-one', 'declared', 'requires', 'a', 'a', 'b', '', 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, %s, %s)", [OLD, OLD])
        connection.execute("INSERT INTO registry_outbox (tenant, topic, key, created_at) VALUES ('free-one', 't', 'k', %s)", [OLD])
    assert apply_retention(pg.settings, NOW) == {}


def test_answers_and_what_was_published_are_short_lived(pg: Space) -> None:
    with pg.owner() as connection:
        for age in (1, 25, 24 * 8):
            at = NOW - timedelta(hours=age)
            connection.execute("INSERT INTO idempotency_keys VALUES ('big-one', 'x', %s, '', NULL, NULL, NULL, %s)", [str(age), at])
            connection.execute("INSERT INTO registry_outbox (tenant, topic, key, published_at) VALUES ('big-one', 't', 'k', %s)", [at])
    assert apply_retention(pg.settings, NOW) == {"idempotency_keys": 2, "registry_outbox": 1}


def test_week_in_use_waits_for_the_next_time(pg: Space) -> None:
    store(pg, "free-one", OLD)
    with connect(pg.settings.postgres_dsn.get_secret_value(), pg.schema) as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM flow_executions")
        assert apply_retention(pg.settings, NOW).get("flow_executions") == 1  # its rows go, its table stays
    assert apply_retention(pg.settings, NOW) == {}
    assert "flow_executions_2026w10" not in weeks(pg)


def test_one_process_at_a_time(pg: Space) -> None:
    store(pg, "free-one", OLD)
    with pg.owner() as other:
        other.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", [LOCK, pg.schema])
        assert apply_retention(pg.settings, NOW) == {}
    assert apply_retention(pg.settings, NOW)


def test_command(pg: Space) -> None:
    store(pg, "free-one", OLD)
    env = {"FLOWCHAIN_POSTGRES_DSN": pg.settings.postgres_dsn.get_secret_value(), "FLOWCHAIN_POSTGRES_SCHEMA": pg.schema}
    done = CliRunner().invoke(app, ["retention", "--json"], env={**os.environ, **env}, catch_exceptions=False)
    assert json.loads(done.stdout) == {"flow_executions_2026w10": 1, "flow_usage_daily": 1}
    assert "nothing to remove" in CliRunner().invoke(app, ["retention"], env={**os.environ, **env}).stdout


def test_worker_goes_on_without_a_database() -> None:
    retain(Settings(postgres_dsn="postgresql://nobody@127.0.0.1:1/x"))  # type: ignore[arg-type]


def test_tier_that_tenants_have_is_not_removed(pg: Space) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        pg.ask("DELETE FROM tiers RETURNING 1")
