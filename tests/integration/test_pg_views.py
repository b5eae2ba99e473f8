"""What views, functions and triggers say: health, usage, a user's chains, updated_at, the audit trail."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from helpers_postgres import Space, space

from infra.devstack import Stack

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def pg(stack: Stack) -> Iterator[Space]:
    with space(stack) as found:
        yield found


DEFINE = "INSERT INTO flow_definitions VALUES (%s, %s, %s, 'sha256:x', 'chain', '1', '', %s, 1, now(), %s, 'me')"


def define(connection: psycopg.Connection, tenant: str, name: str, revision: int = 1, definition: str = "{}", deleted: bool = False) -> None:
    connection.execute(DEFINE, [tenant, name, revision, definition, deleted])


def measure(
    connection: psycopg.Connection, chain: str, completed: int, failed: int, violations: str = "{}", age: str = "1 minute", tenant: str = "h"
) -> None:
    connection.execute(
        "INSERT INTO flow_metrics VALUES (%(t)s, 'chain', %(c)s, '', '', now() - %(age)s::interval - interval '10 s', now() - %(age)s::interval, 0, 1, 1, "
        "%(ok)s, %(bad)s, %(bad)s / greatest(%(ok)s + %(bad)s, 1)::float, 0, 0, 0, 7, 0, 0, %(v)s, 0, 0, 0, 0, 0, '{}', 't', 0, 0)",
        {"t": tenant, "c": chain, "ok": completed, "bad": failed, "v": violations, "age": age},
    )


def test_health_by_its_thresholds(pg: Space) -> None:
    with pg.owner() as connection:
        measure(connection, "fine", 96, 4)
        measure(connection, "at-budget", 95, 5)
        measure(connection, "over-budget", 94, 6)
        measure(connection, "half", 5, 5)
        measure(connection, "slow", 10, 0, '{"step.slow": 1}')
        measure(connection, "silent", 0, 0)
        measure(connection, "stale", 0, 9, age="16 minutes")
        measure(connection, "strict", 99, 1)
        measure(connection, "lenient", 60, 40)
        measure(connection, "other", 9, 0, tenant="h2")
        define(connection, "h", "strict", 1, '{"error_budget_ratio": 0.5}')
        define(connection, "h", "strict", 2, '{"error_budget_ratio": 0.001}')
        define(connection, "", "strict", 1, '{"error_budget_ratio": 0.9}')
        define(connection, "", "lenient", 1, '{"error_budget_ratio": 0.4}')
        define(connection, "h", "never-ran")
        define(connection, "h", "gone")
        define(connection, "h", "gone", 2, deleted=True)
    with pg.database.session("h", "x") as session:
        found = {row["chain"]: row["status"] for row in session.execute("SELECT chain, status FROM flow_health")}
    assert found == {
        "fine": "healthy", "at-budget": "healthy", "over-budget": "degraded", "half": "failing", "slow": "degraded", "silent": "unknown",
        "stale": "unknown", "strict": "degraded", "lenient": "healthy", "never-ran": "unknown",
    }  # fmt: skip


def test_current_definitions_are_the_highest_revisions_that_are_not_deleted(pg: Space) -> None:
    with pg.owner() as connection:
        for revision in range(1, 12):
            define(connection, "d", "flow", revision)
        define(connection, "d", "deleted")
        define(connection, "d", "deleted", 2, deleted=True)
        define(connection, "d", "again")
        define(connection, "d", "again", 2, deleted=True)
        define(connection, "d", "again", 3)
    assert pg.ask("SELECT name, revision FROM flow_definitions_current WHERE tenant = 'd' ORDER BY 1") == [("again", 3), ("flow", 11)]


def test_chains_need_their_definition_by_the_end_of_the_transaction(pg: Space) -> None:
    chain = "INSERT INTO flow_chains VALUES ('fk', 'flow', 1, 0, 's', 'k', NULL, NULL, NULL, false, false)"
    with pg.owner() as connection:
        with connection.transaction():
            connection.execute(chain)
            define(connection, "fk", "flow")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(chain.replace("'flow'", "'none'"))


def use(connection: psycopg.Connection, day: str, user: str, chain: str, executions: int, completed: int, duration_us: int, tenant: str = "u") -> None:
    values = [tenant, day, user, chain, "pro", executions, completed, executions - completed, duration_us]
    connection.execute("INSERT INTO flow_usage_daily VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", values)


def test_metrics_of_a_user(pg: Space) -> None:
    with pg.owner() as connection:
        use(connection, "2026-01-01", "ann", "b", 3, 3, 30)
        use(connection, "2026-01-02", "ann", "a", 2, 1, 20)
        use(connection, "2026-01-02", "ann", "b", 1, 0, 40)
        use(connection, "2026-01-02", "", "b", 9, 9, 90)
        use(connection, "2026-01-02", "ann", "b", 9, 9, 90, tenant="u2")
        for chain in "cdefg":
            use(connection, "2026-01-02", "bob", chain, 1, 1, 0)
    query = "SELECT * FROM user_chain_metrics(%s, %s)"
    with pg.database.session("u", "x") as session:
        ann, bob, nobody, unnamed = (session.execute(query, ["u", user]).fetchall() for user in ("ann", "bob", "zed", ""))
    none: dict[str, Any] = {
        "executions": 0, "completed": 0, "failed": 0, "mean_duration_us": None, "success_ratio": None, "most_used_chains": [],
    }  # fmt: skip
    assert ann == [
        {"executions": 6, "completed": 4, "failed": 2, "mean_duration_us": 15.0, "success_ratio": pytest.approx(4 / 6), "most_used_chains": ["b", "a"]}
    ]
    assert bob[0]["most_used_chains"] == ["c", "d", "e", "f", "g"]
    assert nobody == unnamed == [none]


def test_usage_by_tier_and_day(pg: Space) -> None:
    query = "SELECT day::text, tier, executions, completed, failed, chains, users, duration_sum_us FROM tenant_usage WHERE tenant = 'u' ORDER BY 1"
    assert pg.ask(query) == [("2026-01-01", "pro", 3, 3, 0, 1, 1, 30), ("2026-01-02", "pro", 17, 15, 2, 7, 2, 150)]


def test_audit_trail_says_who_changed_what(pg: Space) -> None:
    with pg.database.session("*", "root") as session:
        session.execute("INSERT INTO tenants VALUES ('au', 'A', 'free')")
        session.execute("UPDATE tiers SET max_chains = 4 WHERE name = 'free'")
    with pg.database.session("au", "ann") as session:
        session.execute("INSERT INTO api_keys VALUES ('key1', 'au', 'n', 'viewer', 'topsecret', 'ann')")
        session.execute("UPDATE api_keys SET last_used_at = now()")
        session.execute("UPDATE api_keys SET revoked_at = now(), hash = 'othersecret'")
        session.execute("INSERT INTO silences VALUES ('s1', 'au', '', '', '', now(), now() + interval '1 hour', 'r', 'ann')")
        session.execute("DELETE FROM silences WHERE id = 's1'")
        entries = session.execute("SELECT actor, action, object_type, object_id, before::text || after::text AS both FROM audit_log ORDER BY id").fetchall()
    assert [(e["actor"], e["action"], e["object_type"], e["object_id"]) for e in entries] == [
        ("root", "insert", "tenant", "au"), ("ann", "insert", "api_key", "key1"), ("ann", "update", "api_key", "key1"),
        ("ann", "insert", "silence", "s1"), ("ann", "delete", "silence", "s1"),
    ]  # fmt: skip
    assert pg.ask("SELECT tenant, before->>'max_chains', after->>'max_chains' FROM audit_log WHERE object_type = 'tier'") == [("*", "3", "4")]
    everything = pg.ask("SELECT string_agg(a::text, '') FROM audit_log a")[0][0]
    for hidden in ("topsecret", b"topsecret".hex(), b"othersecret".hex()):
        assert hidden not in everything


def test_updated_at_is_right_whatever_a_statement_says(pg: Space) -> None:
    with pg.owner() as connection:
        connection.execute("INSERT INTO tenants VALUES ('tick', 'T', 'free', '2000-01-01', '2000-01-01')")
        connection.execute("UPDATE tenants SET display_name = 'X', updated_at = '1999-01-01' WHERE tenant = 'tick'")
    assert pg.ask("SELECT created_at::date::text, updated_at > now() - interval '1 hour' FROM tenants WHERE tenant = 'tick'") == [("2000-01-01", True)]


def test_tiers_to_begin_with(pg: Space) -> None:
    assert {row[0] for row in pg.ask("SELECT name FROM tiers")} == {"free", "pro", "enterprise"}


def test_triggers_and_functions_find_their_tables_without_a_search_path(pg: Space) -> None:
    with psycopg.connect(pg.settings.postgres_dsn.get_secret_value(), autocommit=True) as connection:

        def run(query: str) -> list[Any]:
            done = connection.execute(query.replace("@", f"{pg.schema}.").encode())
            return done.fetchall() if done.description else []

        run("SELECT @ensure_flow_executions('{2026-02-03}')")
        run(
            "INSERT INTO @flow_executions VALUES ('path', 'e', '2026-02-03', 'c', '', 'u', '', '', 'failed', '2026-02-03', NULL, NULL, 3, '', '', 0, 0, 0, 0, "
            "'{}', 0, 0, 't', 0, 0)"
        )
        run("UPDATE @flow_executions SET status = 'completed' WHERE tenant = 'path'")
        assert run("SELECT executions, completed, failed, mean_duration_us FROM @user_chain_metrics('path', 'u')") == [(1, 1, 0, 3.0)]
        run("DELETE FROM @flow_executions WHERE tenant = 'path'")
        assert run("SELECT count(*) FROM @flow_usage_daily WHERE tenant = 'path'") == [(0,)]
        run("INSERT INTO @tenants VALUES ('path', 'P', 'free')")
        requires = "INSERT INTO @flow_dependencies (tenant, provenance, kind, source, target) VALUES ('path', 'declared', 'requires', 'a', 'a')"
        with pytest.raises(psycopg.errors.CheckViolation, match="a → a"):
            run(requires)
