"""Migrations of both databases: fresh, again, by two processes at once, changed afterwards; and what they
leave."""

import multiprocessing
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from connectors import migrate
from connectors.clickhouse import client, quoted
from connectors.migrate import SCHEMAS, Migration, MigrationError, load, pending
from infra.devstack import Stack

pytestmark = pytest.mark.timeout(120)


@dataclass
class Target:
    """One of the two databases, as these tests see it."""

    folder: Path
    dsn: str
    space: str
    apply: Callable[..., list[str]]
    query: Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(params=["clickhouse", "postgres"])
def target(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Target]:
    space = f"m{uuid.uuid4().hex}"
    folder = SCHEMAS / request.param
    if request.param == "clickhouse":
        with client(stack.clickhouse_dsn, "default") as server:
            yield Target(folder, stack.clickhouse_dsn, space, migrate.migrate_clickhouse, server.execute)
            server.execute(f"DROP DATABASE IF EXISTS {quoted(space)} SYNC")
    else:
        with psycopg.connect(stack.postgres_dsn, autocommit=True) as connection:

            def ask(query: str) -> list[tuple[Any, ...]]:
                return connection.execute(query.encode()).fetchall()

            yield Target(folder, stack.postgres_dsn, space, migrate.migrate_postgres, ask)
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(space)))


def names(target: Target) -> list[str]:
    return [migration.name for migration in load(target.folder)]


def applied(target: Target) -> list[tuple[Any, ...]]:
    return target.query(f"SELECT version, name FROM {target.space}.schema_migrations ORDER BY version")


def test_fresh_then_again(target: Target) -> None:
    assert target.apply(target.dsn, target.space) == names(target)
    assert target.apply(target.dsn, target.space) == []
    assert [row[1] for row in applied(target)] == names(target)


def test_two_processes_at_once_apply_each_file_once(target: Target) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        done = pool.starmap(target.apply, [(target.dsn, target.space)] * 3)
    assert sorted(name for one in done for name in one) == names(target)
    assert [row[1] for row in applied(target)] == names(target)


def test_new_file_is_added_and_a_changed_one_refused(target: Target, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(target.folder, tmp_path / "sql"))
    target.apply(target.dsn, target.space, folder)
    number = len(names(target)) + 1
    new = folder / f"{number:04}_more.sql"
    new.write_text("SELECT 1;\nSELECT 2;\n")
    assert target.apply(target.dsn, target.space, folder) == [new.stem]
    first = folder / f"{names(target)[0]}.sql"
    first.write_text(first.read_text() + "-- one comment more\n")
    with pytest.raises(MigrationError, match=f"{first.stem} was changed after it had been applied"):
        target.apply(target.dsn, target.space, folder)


def test_file_that_fails_leaves_the_version_before_it(target: Target, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(target.folder, tmp_path / "sql"))
    bad = folder / f"{len(names(target)) + 1:04}_bad.sql"
    bad.write_text("SELECT 1;\nSELECT nothing_like_this;\n")
    with pytest.raises(Exception, match="nothing_like_this"):
        target.apply(target.dsn, target.space, folder)
    assert [row[1] for row in applied(target)] == names(target)
    bad.unlink()
    assert target.apply(target.dsn, target.space, folder) == []


COMMENTS = {
    "clickhouse": """
        SELECT name, comment FROM system.tables WHERE database = '{0}' AND name NOT LIKE '.inner%'
        UNION ALL SELECT table || '.' || name, comment FROM system.columns
        WHERE database = '{0}' AND table NOT LIKE '.inner%' AND table NOT LIKE '%\\_mv'""",
    "postgres": """
        SELECT c.relname || coalesce('.' || a.attname, ''),
               CASE WHEN a.attnum IS NULL THEN obj_description(c.oid) ELSE col_description(c.oid, a.attnum)
               END
        FROM pg_class c LEFT JOIN LATERAL (SELECT attname, attnum FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND c.relkind IN ('r', 'p') UNION ALL SELECT NULL, NULL) a ON true
        WHERE c.relnamespace = '{0}'::regnamespace AND c.relname NOT LIKE '%_pkey' AND c.relkind IN ('r', 'p', 'i',
        'I', 'v') AND NOT c.relispartition
        UNION ALL SELECT proname || '()', obj_description(oid) FROM pg_proc WHERE pronamespace = '{0}'::regnamespace
        UNION ALL SELECT tgrelid::regclass || ' ' || tgname, obj_description(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
        WHERE c.relnamespace = '{0}'::regnamespace AND NOT tgisinternal
        UNION ALL SELECT polrelid::regclass || ' ' || polname, obj_description(p.oid) FROM pg_policy p JOIN pg_class c ON c.oid = polrelid
        WHERE c.relnamespace = '{0}'::regnamespace""",
}


def test_every_table_column_and_index_has_a_comment(target: Target) -> None:
    target.apply(target.dsn, target.space)
    found = dict(target.query(COMMENTS[target.folder.name].format(target.space)))
    assert len(found) > 80
    assert [name for name, comment in found.items() if not comment] == []


def test_units_are_said_in_the_comments(target: Target) -> None:
    target.apply(target.dsn, target.space)
    words = {"_us": "microsecond", "_bytes": "bytes", "_per_s": "per second", "_ratio": "0 to 1"}
    for name, comment in target.query(COMMENTS[target.folder.name].format(target.space)):
        for ending, word in words.items():
            assert "." not in name or not name.endswith(ending) or word in comment, name


@pytest.mark.parametrize("folder", ["clickhouse", "postgres"])
def test_every_statement_says_what_it_makes(folder: str) -> None:
    bodies, remarks = re.compile(r"\$(\w*)\$.*?\$\1\$", re.DOTALL), re.compile(r"(?m)^--.*\n")
    files = [Migration(m.version, m.name, bodies.sub("''", remarks.sub("", m.text))) for m in load(SCHEMAS / folder)]
    statements = [statement for migration in files for statement in migration.statements]
    made = r"CREATE (TABLE|TEMPORARY TABLE|VIEW|INDEX|UNIQUE INDEX|FUNCTION|TRIGGER)"
    kinds = rf"{made}|COMMENT ON|ALTER TABLE|DROP (TABLE|INDEX)|INSERT INTO|DELETE FROM|SELECT|DO ''"
    if folder == "clickhouse":  # a half-applied file is applied again
        made, changed = r"CREATE (TABLE|VIEW|MATERIALIZED VIEW)", r"ALTER TABLE \w+ (ADD|DROP) \w+"
        marks = r"INSERT INTO (trace_quarters|dependency_hours)\b"  # marking twice changes nothing
        kinds = rf"{made} IF NOT EXISTS|{changed} IF (NOT )?EXISTS|DROP TABLE IF EXISTS|{marks}"
    for statement in statements:
        assert re.match(kinds, statement), statement


def test_files_must_be_numbered_without_gaps(tmp_path: Path) -> None:
    (tmp_path / "0002_late.sql").write_text("SELECT 1;\n")
    with pytest.raises(MigrationError, match="not numbered"):
        load(tmp_path)


def test_versions_only_the_database_knows_are_left_alone() -> None:
    mine = Migration(1, "0001_a", "SELECT 1;\n")
    assert pending([mine], {1: mine.checksum, 2: "newer code applied this"}) == []


def test_lock_left_by_a_crash_is_broken(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    space = f"m{uuid.uuid4().hex}"
    monkeypatch.setattr(migrate, "LOCK_BROKEN_AFTER_S", 1)
    with client(stack.clickhouse_dsn, "default") as server:
        server.execute(f"CREATE DATABASE {space}")
        server.execute(f"CREATE TABLE {space}.{migrate.LOCK_TABLE} (nothing UInt8) ENGINE = Memory")
        assert len(migrate.migrate_clickhouse(stack.clickhouse_dsn, space)) == len(
            load(SCHEMAS / "clickhouse")
        )
        server.execute(f"DROP DATABASE {space} SYNC")
