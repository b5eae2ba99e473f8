"""From every earlier version, with data in it, to the newest: the same schema as a fresh one, and the data in its new place."""

import multiprocessing
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_postgres import drop, owner

from connectors.migrate import SCHEMAS, load, migrate_postgres
from infra.devstack import Stack

pytestmark = pytest.mark.timeout(120)
FOLDER = SCHEMAS / "postgres"
VERSIONS = [migration.version for migration in load(FOLDER)]

SHAPE = {
    "columns": """SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
        pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum), obj_description(c.oid), c.relkind::text, c.relrowsecurity, c.reloptions::text,
        pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S') AND a.attnum > 0 AND NOT a.attisdropped""",
    "indexes": "SELECT pg_get_indexdef(indexrelid), obj_description(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indrelid "
    "WHERE c.relnamespace = current_schema()::regnamespace",
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = current_schema()::regnamespace",
    "triggers": "SELECT pg_get_triggerdef(t.oid), obj_description(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid "
    "WHERE c.relnamespace = current_schema()::regnamespace AND NOT tgisinternal",
    "functions": "SELECT pg_get_functiondef(oid), obj_description(oid), proacl::text FROM pg_proc WHERE pronamespace = current_schema()::regnamespace",
    "views": "SELECT relname, pg_get_viewdef(oid) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'",
    "policies": """SELECT polrelid::regclass::text, polname, polcmd::text, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid),
        obj_description(p.oid), (SELECT string_agg(rolname, ',') FROM pg_roles WHERE oid = ANY (polroles))
        FROM pg_policy p JOIN pg_class c ON c.oid = polrelid WHERE c.relnamespace = current_schema()::regnamespace""",
    "grants": "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind <> 'i'",
    "grants of columns": "SELECT attrelid::regclass::text, attname, attacl::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
    "WHERE relnamespace = current_schema()::regnamespace AND attacl IS NOT NULL",
}


@pytest.fixture
def spaces(stack: Stack) -> Iterator[list[str]]:
    made: list[str] = []
    yield made
    for schema in made:
        drop(stack.postgres_dsn, schema)


def fresh(spaces: list[str]) -> str:
    spaces.append(f"v{uuid.uuid4().hex}")
    return spaces[-1]


def shape(stack: Stack, schema: str) -> dict[str, list[str]]:
    """Return all that makes a schema, its own name left out. A week that only data needs is data."""
    with owner(stack.postgres_dsn, schema) as connection:
        found = {kind: connection.execute(query.encode()).fetchall() for kind, query in SHAPE.items()}
    texts = {kind: sorted(str(row).replace(schema, "SCHEMA") for row in rows) for kind, rows in found.items()}
    return {kind: [text for text in rows if "flow_executions_2" not in text] for kind, rows in texts.items()}


def fill(stack: Stack, schema: str, version: int) -> None:
    """Store what an earlier version could hold."""
    with owner(stack.postgres_dsn, schema) as connection:
        if version >= 1:
            connection.execute("INSERT INTO sink_offsets VALUES ('flow_definitions', 't', 0, 5), ('flow_executions', 't', 0, 7)")
        if 2 <= version < 6:
            for name, kind, published, revision in (("c", "chain", "1", 10), ("c", "chain", "2", 30), ("c", "custom", "x", 20), ("other", "chain", "1", 1)):
                connection.execute(
                    "INSERT INTO flow_definitions VALUES ('t', %s, %s, %s, 'd', '{\"name\": \"c\"}', 2, '2026-01-01Z', %s, 'topic', 0, %s)",
                    [kind, name, published, revision, revision],
                )
            for published, step in (("1", "a"), ("1", "b"), ("2", "z")):
                place = {"a": 0, "b": 1, "z": 0}[step]
                connection.execute(
                    "INSERT INTO flow_chains VALUES ('t', 'c', %s, %s, %s, 'k', '{q}', 5, NULL, true, false, 'i', 'o', 3)", [published, place, step]
                )
        if 3 <= version < 10:
            for execution, start, last in (("x", "2025-01-12 23:59:59.999999Z", None), ("y", None, "2025-01-13Z"), ("z", None, None), ("w", "2011-01-01Z", None)):
                connection.execute(
                    "INSERT INTO flow_executions VALUES ('t', %s, 'c', '', 'u', 'pro', '', 'failed', %s, %s, NULL, 4, '', '', 0, 0, 0, 0, '{m}', 0, 2, 'topic', 0, 9)",
                    [execution, start, last],
                )


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_every_earlier_version_with_data_becomes_the_newest(stack: Stack, spaces: list[str], tmp_path: Path, version: int) -> None:
    folder = tmp_path / "sql"
    folder.mkdir()
    for migration in load(FOLDER)[:version]:
        shutil.copy(FOLDER / f"{migration.name}.sql", folder)
    old, new = fresh(spaces), fresh(spaces)
    migrate_postgres(stack.postgres_dsn, old, folder)
    fill(stack, old, version)
    assert len(migrate_postgres(stack.postgres_dsn, old)) == len(VERSIONS) - version
    migrate_postgres(stack.postgres_dsn, new)
    assert shape(stack, old) == shape(stack, new)
    check(stack, old, version)


def check(stack: Stack, schema: str, version: int) -> None:
    with owner(stack.postgres_dsn, schema) as connection:

        def ask(query: str) -> list[tuple[Any, ...]]:
            return connection.execute(query.encode()).fetchall()

        sinks = [("flow_executions", 7)] if version < 6 else [("flow_definitions", 5), ("flow_executions", 7)]
        assert ask("SELECT sink, next_offset FROM sink_offsets ORDER BY 1") == sinks
        if 2 <= version < 6:
            assert ask("SELECT name, revision, kind, version, author, deleted FROM flow_definitions ORDER BY 1, 2") == [
                ("c", 1, "chain", "1", "", False), ("c", 2, "custom", "x", "", False), ("c", 3, "chain", "2", "", False), ("other", 1, "chain", "1", "", False),
            ]  # fmt: skip
            assert ask("SELECT DISTINCT id ~ '^sha256:[0-9a-f]{32}$' FROM flow_definitions") == [(True,)]
            assert ask("SELECT revision, position, step, after_steps, expected_duration_us, output_type FROM flow_chains ORDER BY 1, 2") == [
                (1, 0, "a", ["q"], 5, "o"), (1, 1, "b", ["q"], 5, "o"), (3, 0, "z", ["q"], 5, "o"),
            ]  # fmt: skip
        if 3 <= version < 10:
            assert ask("SELECT execution, started_on::text, tableoid::regclass::text, revision, source_offset, missing_steps FROM flow_executions ORDER BY 1") == [
                ("w", "2011-01-01", "flow_executions_old", 2, 9, ["m"]), ("x", "2025-01-12", "flow_executions_2025w02", 2, 9, ["m"]),
                ("y", "2025-01-13", "flow_executions_2025w03", 2, 9, ["m"]), ("z", "1970-01-01", "flow_executions_old", 2, 9, ["m"]),
            ]  # fmt: skip
            assert ask("SELECT sum(executions), sum(failed), sum(duration_sum_us), count(*) FROM flow_usage_daily") == [(4, 4, 16, 4)]


def test_two_processes_upgrade_at_once(stack: Stack, spaces: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "sql"
    folder.mkdir()
    for migration in load(FOLDER)[:4]:
        shutil.copy(FOLDER / f"{migration.name}.sql", folder)
    schema = fresh(spaces)
    migrate_postgres(stack.postgres_dsn, schema, folder)
    fill(stack, schema, 4)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        done = pool.starmap(migrate_postgres, [(stack.postgres_dsn, schema)] * 2)
    assert sorted(name for one in done for name in one) == [migration.name for migration in load(FOLDER)[4:]]
    check(stack, schema, 4)


def test_each_schema_has_a_key_of_its_own(stack: Stack, spaces: list[str]) -> None:
    keys = set()
    for _ in range(2):
        schema = fresh(spaces)
        migrate_postgres(stack.postgres_dsn, schema)
        with owner(stack.postgres_dsn, schema) as connection:
            keys.add(connection.execute("SELECT key FROM tenant_key").fetchall()[0][0])
    assert len(keys) == 2
