"""Every index is used by the query that it is there for, on 100,000 rows per table and behind row-level security."""

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from helpers_postgres import Space, space

from connectors.migrate import SCHEMAS
from infra.devstack import Stack

pytestmark = pytest.mark.timeout(180)
QUERIES: dict[str, dict[str, str]] = tomllib.loads((SCHEMAS / "postgres" / "queries.toml").read_text())
ROWS = 100_000
VALUES = {
    "tenant": "t7", "flow": "f7", "id": "id7", "component": "k7", "chain": "c7", "user": "u7", "key": "old", "tier": "enterprise",
    "hash": b"7",
}  # fmt: skip
AGO = "now() - i * interval '1 minute'"
FILL = {
    "flow_definitions": f"SELECT 't' || i % 100, 'f' || i / 100, 1, 'id' || i, 'chain', '1', '', '{{}}', 1, now(), false, 'me', {AGO}",
    "flow_chains": "SELECT 't' || i % 100, 'f' || i / 100, 1, 0, 's', 'k' || i % 1000, NULL, NULL, NULL, false, false",
    "flow_dependencies": "SELECT 't' || i % 100, CASE WHEN i % 50 = 0 THEN 'declared' ELSE 'observed' END, CASE WHEN i % 50 = 0 THEN 'requires' ELSE 'call' END, "
    "'f' || i / 500, 'k' || i % 1001, 'k' || i % 1003, i::text, 1, 0, 0, 0, now(), now()",
    "flow_executions": "SELECT 't' || i % 100, 'e' || i, (at AT TIME ZONE 'UTC')::date, 'c' || i % 101, '', 'u' || i % 103, '', '', "
    "CASE WHEN i % 37 = 0 THEN 'failed' ELSE 'completed' END, at, at, at, 5, '', '', 0, 0, 0, 0, '{}', 0, 0, 't', 0, i",
    "flow_metrics": "SELECT 't' || i % 100, 'step', 'c' || i, '', 'k' || i % 101, now(), now(), 0, 0, 0, 0, 0, random(), 0, 0, 0, 0, 0, 0, '{}', 0, 0, 0, 0, 0, "
    "'{}', 't', 0, i",
    "flow_usage_daily": "SELECT 't' || i % 100, '2026-01-01'::date + i % 300, 'u' || i % 103, 'c' || i, '', 1, 1, 0, 5",
    "flow_incidents": f"SELECT 't' || i % 100, 'id' || i, 0, CASE WHEN i % 997 = 0 THEN 'open' ELSE 'resolved' END, 'info', '', '', {AGO}, now(), NULL, '{{}}', 't', 0, i",
    "flow_alerts": f"SELECT 't' || i % 100, 'id' || i, 0, CASE WHEN i % 997 = 0 THEN 'opened' ELSE 'resolved' END, 'info', '', 'k' || i % 101, {AGO}, now(), NULL, "
    "'{}', 't', 0, i",
    "alert_actions (tenant, alert, action, actor)": "SELECT 't' || i % 100, 'id' || i, 'acknowledge', 'me'",
    "silences": f"SELECT 's' || i, 't' || i % 100, '', '', '', '2000-01-01', {AGO} + interval '1 hour', '', 'me'",
    "flow_credentials": "SELECT 't' || i % 100, 'f' || i, 'n', '', CASE WHEN i % 1000 = 0 THEN 'old' ELSE 'new' END, '', 'me', now(), now(), NULL, "
    "CASE WHEN i % 1000 = 0 THEN now() WHEN i % 10 = 0 THEN now() + i * interval '1 day' END",
    "tenants": "SELECT 'x' || i, '', CASE WHEN i % 1000 = 0 THEN 'enterprise' ELSE 'free' END",
    "api_keys": f"SELECT 'k' || i, 't' || i % 100, '', 'viewer', i::text::bytea, 'me', {AGO}",
    "idempotency_keys": "SELECT 't' || i % 100, 'me', i::text, '', NULL, NULL, NULL, now() - interval '1 second' * i",
    "registry_outbox (tenant, topic, key, published_at)": "SELECT 't' || i % 100, 't', 'k', CASE WHEN i % 10000 > 0 THEN now() - interval '7 seconds' * i END",
    "audit_log (tenant, actor, action, object_type, object_id)": "SELECT 't' || i % 100, 'me', 'insert', 'flow', 'f' || i % 1001",
}


@pytest.fixture(scope="module")
def pg(stack: Stack) -> Iterator[Space]:
    with space(stack, api_statement_timeout_s=60) as found, found.owner() as connection:
        connection.execute("SELECT ensure_flow_executions(array_agg(now()::date - n)) FROM generate_series(0, 100) n")
        connection.execute("SET session_replication_role = replica")  # neither triggers nor references: only the planner is asked
        for table, select in FILL.items():
            source = f"generate_series(1, {ROWS}) AS i CROSS JOIN LATERAL (SELECT now() - i * interval '1 minute' AS at) AS times"
            connection.execute(f"INSERT INTO {table} {select} FROM {source}".encode())
        connection.execute("ANALYZE")
        yield found


def used(plan: dict[str, Any]) -> set[str]:
    """Return the indexes of a plan."""
    names = {plan["Index Name"]} if "Index Name" in plan else set()
    return names.union(*map(used, plan.get("Plans", [])))


def explained(pg: Space, query: dict[str, str]) -> dict[str, Any]:
    statement = f"EXPLAIN (FORMAT JSON) {query['sql']}".encode()
    if query.get("as") == "owner":
        with pg.owner() as connection:
            row = connection.execute(statement, VALUES).fetchone()
        return dict((row or [])[0][0]["Plan"])
    with pg.database.session(query.get("as", "t7"), "x") as session:
        found = session.execute(statement, VALUES).fetchone() or {}
    return dict(found["QUERY PLAN"][0]["Plan"])


@pytest.mark.parametrize("name", QUERIES)
def test_index_is_used_by_its_query(pg: Space, name: str) -> None:
    children = pg.ask("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", name)
    plan = explained(pg, QUERIES[name])
    assert used(plan) & {name, *(child for (child,) in children)}, plan


def test_every_index_has_its_query(pg: Space) -> None:
    query = """SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND NOT indisprimary AND NOT c.relispartition"""
    names = {name for (name,) in pg.ask(query)}
    assert names == set(QUERIES)
    assert len(names) >= 15


def test_comments_say_what_the_queries_serve(pg: Space) -> None:
    for name, query in QUERIES.items():
        assert query["serves"]
        assert pg.ask("SELECT obj_description(%s::regclass)", name)[0][0]


def test_one_execution_is_found_without_knowing_its_day(pg: Space) -> None:
    query = {"sql": "SELECT * FROM flow_executions WHERE tenant = 't7' AND execution = 'e7' ORDER BY revision DESC LIMIT 1"}
    plan = explained(pg, query)
    assert used(plan)
    assert all("pkey" in name for name in used(plan)), plan


def test_days_leave_out_the_other_weeks(pg: Space) -> None:
    plan = explained(pg, {"sql": "SELECT * FROM flow_executions WHERE tenant = 't7' AND started_on = current_date - 20"})
    assert str(plan).count("'Relation Name'") == 1


def test_tables_are_large_enough(pg: Space) -> None:
    for table in FILL:
        assert pg.ask(f"SELECT count(*) FROM {table.split()[0]}")[0][0] >= ROWS, table


def test_plans_are_the_servers_choice(pg: Space) -> None:
    off = "SELECT name FROM pg_settings WHERE name LIKE 'enable\\_%' AND setting = 'off' AND boot_val = 'on'"
    with pg.database.session("t7", "x") as session:
        assert session.execute(off).fetchall() == []
