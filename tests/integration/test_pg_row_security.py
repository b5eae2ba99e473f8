"""What a session of one tenant can do to another's rows, whatever the SQL: nothing. Attacked as the API's role."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from helpers_postgres import Space, space
from psycopg import errors, sql
from pydantic import SecretStr

from connectors.database import Database, TenantRefused
from connectors.migrate import migrate_postgres
from infra.devstack import Stack

pytestmark = pytest.mark.timeout(120)
TABLES = {
    "flow_definitions": "INSERT INTO flow_definitions VALUES (%(t)s, 'f', 1, 'sha256:x', 'chain', '1', '', '{}', 1, now(), false, 'me')",
    "flow_chains": "INSERT INTO flow_chains VALUES (%(t)s, 'f', 1, 0, 's', 'k', NULL, NULL, NULL, false, false)",
    "flow_dependencies": "INSERT INTO flow_dependencies (tenant, provenance, kind, source, target) VALUES (%(t)s, 'declared', 'requires', 'a', 'b')",
    "flow_executions": "INSERT INTO flow_executions VALUES (%(t)s, 'e', '1970-01-01', 'c', '', 'u', '', '', 'completed', NULL, NULL, NULL, 0, '', '', "
    "0, 0, 0, 0, '{}', 0, 0, 't', 0, 0)",
    "flow_metrics": "INSERT INTO flow_metrics VALUES (%(t)s, 'chain', 'c', '', '', now(), now(), 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, '{}', 0, 0, 0, "
    "0, 0, '{}', 't', 0, 0)",
    "flow_usage_daily": "INSERT INTO flow_usage_daily VALUES (%(t)s, '2020-01-01', 'u', 'other', '', 1, 1, 0, 5)",
    "flow_alerts": "INSERT INTO flow_alerts VALUES (%(t)s, 'a', 0, 'opened', 'info', '', '', now(), now(), NULL, '{}', 't', 0, 0)",
    "flow_incidents": "INSERT INTO flow_incidents VALUES (%(t)s, 'i', 0, 'open', 'info', '', '', now(), now(), NULL, '{}', 't', 0, 0)",
    "flow_credentials": "INSERT INTO flow_credentials VALUES (%(t)s, 'f', 'n', 'x', 'k', '', 'me')",
    "alert_actions": "INSERT INTO alert_actions (tenant, alert, action, actor) VALUES (%(t)s, 'a', 'acknowledge', 'me')",
    "silences": "INSERT INTO silences VALUES (%(t)s || 's', %(t)s, '', '', '', now(), now() + interval '1 hour', 'r', 'me')",
    "api_keys": "INSERT INTO api_keys VALUES (%(t)s || 'k', %(t)s, 'n', 'viewer', %(t)s::bytea, 'me')",
    "idempotency_keys": "INSERT INTO idempotency_keys VALUES (%(t)s, 'me', 'k', '')",
    "registry_outbox": "INSERT INTO registry_outbox (tenant, topic, key) VALUES (%(t)s, 'flowchain.definitions.v1', convert_to(json_build_array(%(t)s::text, 'f', 0)::text, 'UTF8'))",
    "tenants": "INSERT INTO tenants VALUES (%(t)s, 'T', 'free')",
    "tiers": "INSERT INTO tiers VALUES (%(t)s, 1, 1, 1, 1)",
    "redrives": "INSERT INTO redrives (letters, again, actor) VALUES (ARRAY[%(t)s], false, 'me')",
    "audit_log": "INSERT INTO audit_log (tenant, actor, action, object_type, object_id) VALUES (%(t)s, 'me', 'insert', 'flow', 'f')",
}
"""A row of every table that the role may touch, %(t)s being its tenant."""
WITH_TENANT = [table for table in TABLES if table not in ("tiers", "redrives")]
VIEWS = ("flow_definitions_current", "flow_health", "tenant_usage")


@pytest.fixture(scope="module")
def pg(stack: Stack) -> Iterator[Space]:
    with space(stack) as found:
        with found.owner() as connection:
            for tenant in ("a", "b", ""):
                for table, insert in TABLES.items():
                    if tenant or table in ("flow_definitions", "flow_chains", "flow_dependencies"):
                        with connection.transaction():
                            connection.execute(insert.encode(), {"t": tenant})
            connection.execute(
                "INSERT INTO flow_dependencies (tenant, provenance, kind, flow, source, target, first_seen_at, last_seen_at) "
                "SELECT tenant, 'observed', 'call', 'f', 'x', 'y', now(), now() FROM tenants"
            )
        yield found


def of_a(pg: Space, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with pg.database.session("a", "mallory") as connection:
        done = connection.execute(query.encode(), values or None)
        return [tuple(row.values()) for row in done.fetchall()] if done.description else [(done.rowcount,)]


def test_every_table_is_attacked_or_out_of_reach(pg: Space) -> None:
    reachable = pg.ask(
        "SELECT relname, relrowsecurity FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'f', 'm', 'S')"
        " AND has_any_column_privilege(%s, oid, 'SELECT, INSERT, UPDATE, REFERENCES')", pg.role,
    )  # fmt: skip
    assert sorted(reachable) == sorted((table, True) for table in TABLES)
    rights = "SELECT DISTINCT table_name FROM information_schema.role_table_grants WHERE grantee = %s AND table_schema = current_schema()"
    assert {row[0] for row in pg.ask(rights, pg.role)} == {*TABLES, *VIEWS}


def test_role_owns_nothing_and_is_nobody_else(pg: Space) -> None:
    flags = "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolinherit, rolreplication FROM pg_roles WHERE rolname = %s"
    assert pg.ask(flags, pg.role) == [(False,) * 6]
    assert pg.ask("SELECT count(*) FROM pg_auth_members WHERE member = %s::regrole", pg.role) == [(0,)]
    assert pg.ask("SELECT count(*) FROM pg_shdepend WHERE refobjid = %s::regrole AND deptype = 'o'", pg.role) == [(0,)]


def test_views_ask_with_the_rights_of_who_asks(pg: Space) -> None:
    found = pg.ask("SELECT relname, reloptions FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'")
    assert {(view, *options) for view, options in found} == {(view, "security_invoker=true") for view in VIEWS}


@pytest.mark.parametrize("table", WITH_TENANT)
def test_rows_of_others_are_not_there(pg: Space, table: str) -> None:
    seen = {row[0] for row in of_a(pg, f"SELECT tenant FROM {table}")}
    assert "a" in seen and seen <= {"a", ""}
    common = table in ("flow_definitions", "flow_chains", "flow_dependencies")
    assert ("" in seen) == common
    assert of_a(pg, f"SELECT count(*) FROM {table} WHERE tenant = 'b'") == [(0,)]


def test_redrives_are_for_sessions_of_every_tenant(pg: Space) -> None:
    assert of_a(pg, "SELECT count(*) FROM redrives") == [(0,)] and pg.ask("SELECT count(*) FROM redrives")[0][0] > 0


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("tenant", ["b", "", "*", "c"])
def test_rows_for_others_are_not_taken(pg: Space, table: str, tenant: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege), pg.database.session("a", "mallory") as connection:
        connection.execute(TABLES[table].encode(), {"t": tenant})


@pytest.mark.parametrize("table", WITH_TENANT)
@pytest.mark.parametrize("attack", [
    "UPDATE {} SET tenant = 'a' WHERE tenant = 'b'", "UPDATE {} SET tenant = 'b' WHERE tenant = 'a'", "UPDATE {} SET tenant = tenant WHERE tenant IN ('b', '')",
    "DELETE FROM {} WHERE tenant = 'b'", "DELETE FROM {} WHERE tenant = ''",
])  # fmt: skip
def test_rows_of_others_are_not_changed(pg: Space, table: str, attack: str) -> None:
    """Either it is forbidden, or nothing is met. Rows of the own tenant may be met, but not given to others."""
    before = pg.ask(f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t WHERE tenant <> 'a'")
    try:
        assert of_a(pg, attack.format(table)) == [(0,)]
    except errors.InsufficientPrivilege:
        pass
    assert pg.ask(f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t WHERE tenant <> 'a'") == before


FORBIDDEN = (
    "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "SELECT key FROM tenant_key", "SELECT * FROM sink_offsets", "SELECT * FROM schema_migrations",
    "SELECT * FROM flow_executions_old", "TRUNCATE flow_definitions", "TRUNCATE flow_credentials", "CREATE TABLE mine (a text)",
    "CREATE FUNCTION mine() RETURNS text LANGUAGE sql AS 'SELECT 1'", "CREATE VIEW mine AS SELECT 1", "CREATE OR REPLACE FUNCTION current_tenant() "
    "RETURNS text LANGUAGE sql AS $$SELECT '*'$$", "CREATE OR REPLACE VIEW flow_health AS SELECT 1", "ALTER TABLE flow_definitions DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE flow_definitions DISABLE TRIGGER ALL", "SET session_replication_role = replica", "DROP POLICY own_rows ON flow_definitions",
    "CREATE POLICY mine ON flow_definitions USING (true)", "ALTER ROLE current_user BYPASSRLS",
    "CREATE ROLE mine", "SELECT set_tenant_key(decode(repeat('00', 32), 'hex'))", "SELECT ensure_flow_executions('{2031-01-01}')",
    "COPY flow_definitions TO PROGRAM 'cat'", "COPY flow_definitions TO '/tmp/stolen'", "SELECT pg_read_file('PG_VERSION')", "COPY tenant_key TO STDOUT",
    "CREATE TRIGGER mine BEFORE INSERT ON flow_definitions FOR EACH ROW EXECUTE FUNCTION touch()", "UPDATE registry_outbox SET value = 'x'",
    "INSERT INTO audit_log (tenant, actor, action, object_type, object_id) VALUES ('a', 'boss', 'insert', 'flow', 'f')", "DELETE FROM audit_log",
    "LOCK TABLE flow_executions IN ACCESS EXCLUSIVE MODE", "CREATE TEMP TABLE t (a int); CREATE TRIGGER t BEFORE INSERT ON t EXECUTE FUNCTION audit('x', 'y', '')",
    "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION touch()", "CREATE SCHEMA mine",
    "INSERT INTO registry_outbox (tenant, topic, key) VALUES ('a', 'flowchain.tenants.v1', 'a')",
    "INSERT INTO registry_outbox (tenant, topic, key) VALUES ('a', 'flowchain.definitions.v1', '[\"b\", \"f\", 0]')",
    "INSERT INTO registry_outbox (tenant, topic, key) VALUES ('a', 'flowchain.definitions.v1', 'a/f')",
    "INSERT INTO registry_outbox (tenant, topic, key, value) VALUES ('a', 'flowchain.definitions.v1', '[\"a\", \"f\", 0]', '{\"tenant\": \"b\"}')",
    "INSERT INTO registry_outbox (tenant, topic, key, value) VALUES ('a', 'flowchain.definitions.v1', '[\"a\", \"f\", 0]', '{}')",
    "INSERT INTO flow_dependencies (tenant, provenance, kind, source, target, first_seen_at, last_seen_at) VALUES ('a', 'observed', 'call', 'p', 'q', now(), now())",
)  # fmt: skip


@pytest.mark.parametrize("attack", FORBIDDEN)
def test_forbidden(pg: Space, attack: str) -> None:
    with pytest.raises((errors.InsufficientPrivilege, errors.InvalidParameterValue)):
        of_a(pg, attack)


@pytest.mark.parametrize("trick", [
    "SELECT set_config('flowchain.tenant', 'b', true)", "SELECT set_config('flowchain.tenant', 'b', false)", "SET flowchain.tenant = 'b'",
    "SELECT set_config('flowchain.tenant', '*', true)", "SELECT set_config('flowchain.tenant', '', true)", "RESET flowchain.proof", "RESET ALL",
    "SET LOCAL flowchain.proof = ''", "SELECT set_config('flowchain.proof', encode(sha256('b'), 'hex'), true), set_config('flowchain.tenant', 'b', true)",
])  # fmt: skip
def test_session_that_says_it_is_another_sees_nothing(pg: Space, trick: str) -> None:
    with pg.database.session("a", "mallory") as connection:
        connection.execute(trick.encode())
        for table in WITH_TENANT:
            assert connection.execute(f"SELECT count(*) AS n FROM {table}".encode()).fetchall() == [{"n": 0}], table


@pytest.mark.parametrize("trick", [
    "RESET ROLE", "RESET SESSION AUTHORIZATION", "SET row_security = off", "SET search_path = pg_temp, public",
    "CREATE TEMP TABLE tenant_key AS SELECT true AS one, ''::bytea AS key, repeat('6', 64)::bytea AS inner_pad, repeat('x', 64)::bytea AS outer_pad",
    "CREATE FUNCTION pg_temp.current_tenant() RETURNS text LANGUAGE sql AS $$SELECT 'b'$$",
    "CREATE FUNCTION pg_temp.leak(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN IF t = 'b' THEN RAISE 'seen'; END IF; RETURN true; END$$",
])  # fmt: skip
def test_tricks_show_nothing_more(pg: Space, trick: str) -> None:
    schema = pg.schema
    with pg.database.session("a", "mallory") as connection:
        connection.execute(trick.encode())
        for table in WITH_TENANT:
            leak = "AND pg_temp.leak(tenant)" if "leak" in trick else ""
            query = f"SELECT count(*) AS n FROM {schema}.{table} WHERE tenant = 'b' {leak}"
            if "row_security" in trick:
                with pytest.raises(errors.InsufficientPrivilege, match="row-level security"), connection.transaction():
                    connection.execute(query.encode())
            else:
                assert connection.execute(query.encode()).fetchall() == [{"n": 0}], table


def test_rights_cannot_be_given_away(pg: Space) -> None:
    of_a(pg, "GRANT ALL ON flow_credentials TO PUBLIC")  # only a warning
    assert pg.ask("SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC' AND table_schema = current_schema()") == [(0,)]


def test_views_and_functions_show_own_rows_only(pg: Space) -> None:
    for view in VIEWS:
        assert "b" not in {row[0] for row in of_a(pg, f"SELECT tenant FROM {view}")}, view
    assert of_a(pg, "SELECT executions FROM user_chain_metrics('b', 'u')") == [(0,)]
    assert of_a(pg, "SELECT executions FROM user_chain_metrics('a', 'u')") == [(2,)]


def test_copy_takes_own_rows_only(pg: Space) -> None:
    with pg.database.session("a", "mallory") as connection, connection.cursor().copy("COPY flow_credentials TO STDOUT") as copy:
        assert {bytes(line).split(b"\t")[0] for line in copy} == {b"a"}
    with (
        pytest.raises((errors.InsufficientPrivilege, errors.FeatureNotSupported)), pg.database.session("a", "mallory") as connection,
        connection.cursor().copy("COPY alert_actions (tenant, alert, action, actor) FROM STDIN") as incoming,
    ):  # fmt: skip
        incoming.write_row(("b", "x", "acknowledge", "mallory"))


def test_conflict_with_a_row_of_another_neither_shows_nor_changes_it(pg: Space) -> None:
    steal = "INSERT INTO silences VALUES ('bs', 'a', '', '', '', now(), now() + interval '1 hour', 'r', 'me') ON CONFLICT (id) DO UPDATE SET reason = 'stolen'"
    with pytest.raises(errors.InsufficientPrivilege):
        of_a(pg, steal)
    assert pg.ask("SELECT tenant, reason FROM silences WHERE id = 'bs'") == [("b", "r")]


def test_nothing_stays_on_a_pooled_connection(stack: Stack, pg: Space) -> None:
    """What one session leaves behind, the next one, of another tenant and on the same connection, does not find."""
    database = Database(pg.settings.model_copy(update={"api_connections": 1}))
    with database.session("b", "bob") as connection:
        first = connection.info.backend_pid
        connection.execute("SELECT set_config('flowchain.tenant', 'b', false), set_config('flowchain.actor', 'bob', false)")
        connection.execute("PREPARE theirs AS SELECT tenant FROM flow_credentials")
        connection.execute("DECLARE held CURSOR WITH HOLD FOR SELECT * FROM flow_credentials")
        connection.execute("CREATE TEMP TABLE kept AS SELECT * FROM flow_credentials")
        connection.execute("SET search_path = pg_temp")
        connection.execute("SELECT pg_advisory_lock(1)")
    for attack in ("EXECUTE theirs", "FETCH ALL FROM held", "SELECT * FROM kept"):
        with database.session("a", "mallory") as connection, pytest.raises(psycopg.ProgrammingError), connection.transaction():
            connection.execute(attack.encode())
    with database.session("a", "mallory") as connection:
        assert connection.info.backend_pid == first
        assert connection.execute("SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory'").fetchall() == [{"n": 0}]
        with pytest.raises(psycopg.Error):
            connection.execute("PREPARE TRANSACTION 'theirs'")
    database.close()


def test_session_that_commits_by_itself_has_lost_its_tenant(pg: Space) -> None:
    with pg.database.session("a", "mallory") as connection:
        assert connection.execute("SELECT count(*) > 0 AS some FROM flow_definitions").fetchall() == [{"some": True}]
        connection.commit()
        assert connection.execute("SELECT count(*) AS n FROM flow_definitions").fetchall() == [{"n": 0}]
    with psycopg.connect(pg.settings.postgres_dsn.get_secret_value(), user=pg.role, autocommit=True) as connection:
        for table in TABLES:
            assert connection.execute(f"SELECT count(*) FROM {pg.schema}.{table}".encode()).fetchone() == (0,), table


def test_session_is_rolled_back_when_its_block_raises(pg: Space) -> None:
    with pytest.raises(errors.DivisionByZero), pg.database.session("a", "alice") as connection:
        connection.execute("INSERT INTO alert_actions (tenant, alert, action, actor) VALUES ('a', 'gone', 'acknowledge', 'alice'); SELECT 1 / 0")
    assert of_a(pg, "SELECT count(*) FROM alert_actions WHERE alert = 'gone'") == [(0,)]


def test_sessions_of_every_tenant_see_and_change_all(pg: Space) -> None:
    with pg.database.session("*", "root") as connection:
        assert {row["tenant"] for row in connection.execute("SELECT tenant FROM flow_definitions")} == {"a", "b", ""}
        connection.execute("UPDATE tenants SET display_name = 'B' WHERE tenant = 'b'")
    assert pg.ask("SELECT actor, action, before->>'display_name', after->>'display_name' FROM audit_log WHERE action = 'update'") == [
        ("root", "update", "T", "B")
    ]


def test_wrong_key_is_told_and_shows_nothing(pg: Space) -> None:
    database = Database(pg.settings.model_copy(update={"tenant_key": SecretStr("00" * 32)}))
    with pytest.raises(TenantRefused, match="FLOWCHAIN_TENANT_KEY"), database.session("a", "alice"):
        pass
    key = pg.ask("SELECT encode(key, 'hex') FROM tenant_key")[0][0]
    database.close()
    database = Database(pg.settings.model_copy(update={"tenant_key": SecretStr(key)}))
    with database.session("a", "alice") as connection:
        assert connection.execute("SELECT current_tenant() AS tenant, current_actor() AS actor").fetchall() == [{"tenant": "a", "actor": "alice"}]
    database.close()


def test_session_needs_a_tenant(pg: Space) -> None:
    with pytest.raises(ValueError, match="needs a tenant"), pg.database.session("", "x"):
        pass


def test_statement_that_takes_too_long_is_ended(pg: Space) -> None:
    database = Database(pg.settings.model_copy(update={"api_statement_timeout_s": 0.2}))
    with pytest.raises(errors.QueryCanceled), database.session("a", "x") as connection:
        connection.execute("SELECT pg_sleep(60)")
    database.close()


def test_two_schemas_of_a_server_have_a_role_each_and_cannot_read_each_other(stack: Stack, pg: Space) -> None:
    with space(stack) as other, other.database.session("*", "root") as connection:
        assert connection.execute("SELECT current_user AS who").fetchall() == [{"who": other.role}]
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(sql.SQL("SELECT 1 FROM {}").format(sql.Identifier(pg.schema, "flow_definitions")))


def test_role_that_is_there_already_is_taken_as_it_is(stack: Stack) -> None:
    with space(stack) as found:
        with psycopg.connect(stack.postgres_dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(found.schema)))
        assert migrate_postgres(stack.postgres_dsn, found.schema)
        with found.database.session("a", "x") as session:
            assert session.execute("SELECT count(*) AS n FROM flow_definitions").fetchall() == [{"n": 0}]
