"""Brings both databases to the schema of `schemas/clickhouse` and `schemas/postgres`: what `flowchain
migrate` does.

Files are applied in the order of their numbers and never changed afterwards: their checksum is kept in the
database (`schema_migrations`), and a file that differs from what was applied is refused.

PostgreSQL: each file is one transaction, under an advisory lock, so that two processes at once apply it once.
ClickHouse has neither transactions of DDL nor locks. Every statement is therefore idempotent (`IF NOT
EXISTS`, a test holds the files to it), so that a half-applied file is simply applied again; and a table that
only one process can create serves as the lock. A lock left behind by a crash is broken after a minute.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import psycopg
from clickhouse_driver import Client  # type: ignore[import-untyped]
from clickhouse_driver.errors import ErrorCodes, ServerException  # type: ignore[import-untyped]
from psycopg import sql

import schemas
from connectors.clickhouse import client, quoted

SCHEMAS = Path(schemas.__file__).parent
LOCK_TABLE = "schema_migrations_lock"
LOCK_BROKEN_AFTER_S = 60
POSTGRES_LOCK = 0x666C6F77
"""The advisory lock's key ("flow"), the same for every process that migrates."""


class MigrationError(Exception):
    """The database and the migration files contradict each other; nothing was changed."""


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of the file."""
        return sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """Return the statements: each ends with a semicolon at the end of a line."""
        parts = (part.strip() for part in self.text.split(";\n"))
        return [part for part in parts if part]


def load(folder: Path) -> list[Migration]:
    """Return the migrations of a folder in order; raises MigrationError when the numbers are not 1, 2, 3,
    …"""
    files = sorted(folder.glob("*.sql"))
    found = [Migration(int(file.name[:4]), file.stem, file.read_text(encoding="utf-8")) for file in files]
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"migrations in {folder.name} are not numbered 1, 2, 3, …")
    return found


def pending(migrations: list[Migration], applied: dict[int, str]) -> list[Migration]:
    """Return what is still to be applied; raises MigrationError if a file was changed after it had been
    applied.

    Versions that only the database knows are fine: another process runs newer code.
    """
    for migration in migrations:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise MigrationError(
                f"{migration.name} was changed after it had been applied; add a new file instead"
            )
    return [migration for migration in migrations if migration.version not in applied]


def migrate_postgres(dsn: str, schema: str = "flowchain", folder: Path = SCHEMAS / "postgres") -> list[str]:
    """Apply what is missing to a PostgreSQL schema, created if need be; return the names of the files
    applied."""
    migrations = load(folder)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [POSTGRES_LOCK])
        _prepare_postgres(connection, schema)
        rows = connection.execute("SELECT version, checksum FROM schema_migrations").fetchall()
        todo = pending(migrations, dict(rows))
        for migration in todo:
            _apply_postgres(connection, migration)
    return [migration.name for migration in todo]


def _prepare_postgres(connection: psycopg.Connection, schema: str) -> None:
    name = sql.Identifier(schema)
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
    connection.execute(sql.SQL("SET search_path TO {}, pg_temp").format(name))
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, name text NOT NULL,"
        " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    connection.execute("COMMENT ON TABLE schema_migrations IS 'Migration files applied to this schema'")
    for column, comment in _VERSION_COMMENTS.items():
        statement = sql.SQL("COMMENT ON COLUMN schema_migrations.{} IS {}")
        connection.execute(statement.format(sql.Identifier(column), sql.Literal(comment)))


_VERSION_COMMENTS = {
    "version": "number of the file",
    "name": "name of the file without .sql",
    "checksum": "SHA-256 of the file, hex digits",
    "applied_at": "when it was applied",
}


def _apply_postgres(connection: psycopg.Connection, migration: Migration) -> None:
    with connection.transaction():
        connection.execute(migration.text.encode())
        connection.execute(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
            [migration.version, migration.name, migration.checksum],
        )


def migrate_clickhouse(
    dsn: str, database: str = "flowchain", folder: Path = SCHEMAS / "clickhouse"
) -> list[str]:
    """Apply what is missing to a ClickHouse database, created if need be; return the names of the files
    applied."""
    migrations = load(folder)
    with client(dsn, "default") as server:
        server.execute(f"CREATE DATABASE IF NOT EXISTS {quoted(database)} COMMENT 'FlowChain'")
    with client(dsn, database) as server, _lock(server):
        server.execute(_VERSION_TABLE)
        todo = pending(
            migrations, dict(server.execute("SELECT version, checksum FROM schema_migrations FINAL"))
        )
        for migration in todo:
            _apply_clickhouse(server, migration)
    return [migration.name for migration in todo]


_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version UInt32 COMMENT 'number of the file',
    name String COMMENT 'name of the file without .sql',
    checksum String COMMENT 'SHA-256 of the file, hex digits',
    applied_at DateTime('UTC') DEFAULT now() COMMENT 'when it was applied, seconds UTC'
)
ENGINE = ReplacingMergeTree ORDER BY version
COMMENT 'Migration files applied to this database'"""


def _apply_clickhouse(server: Client, migration: Migration) -> None:
    for statement in migration.statements:
        server.execute(statement)
    row = (migration.version, migration.name, migration.checksum)
    server.execute(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES", [row], settings={"async_insert": 0}
    )


@contextmanager
def _lock(server: Client) -> Iterator[None]:
    while not _locked(server):
        _break_stale_lock(server)
        time.sleep(0.1)
    try:
        yield
    finally:
        server.execute(f"DROP TABLE IF EXISTS {LOCK_TABLE} SYNC")


def _locked(server: Client) -> bool:
    try:
        server.execute(
            f"CREATE TABLE {LOCK_TABLE} (nothing UInt8 COMMENT 'unused') ENGINE = Memory COMMENT 'A"
            f" migration runs'"
        )
    except ServerException as error:
        if error.code == ErrorCodes.TABLE_ALREADY_EXISTS:
            return False
        raise
    return True


def _break_stale_lock(server: Client) -> None:
    age = (
        "SELECT now() - metadata_modification_time FROM system.tables"
        " WHERE database = currentDatabase() AND name = %(name)s"
    )
    rows = server.execute(age, {"name": LOCK_TABLE})
    if rows and rows[0][0] > LOCK_BROKEN_AFTER_S:
        server.execute(f"DROP TABLE IF EXISTS {LOCK_TABLE} SYNC")
