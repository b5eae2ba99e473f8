"""What has to be there before workers run: topics, and both databases at the newest schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
from clickhouse_driver.errors import NetworkError, ServerException  # type: ignore[import-untyped]

from connectors.migrate import migrate_clickhouse, migrate_postgres
from connectors.settings import Settings
from connectors.topics import apply_topics

AUTHENTICATION_FAILED = 516
"""Of ClickHouse; the driver has no name for it."""


class Unreachable(Exception):
    """A database does not answer or does not let us in, in one sentence without passwords."""


def prepare(settings: Settings) -> None:
    """Bring topics and databases to what this version needs; raises KafkaException, Unreachable, MigrationError."""
    apply_topics(settings)
    migrate(settings)


def migrate(settings: Settings) -> dict[str, list[str]]:
    """Bring both databases to the newest schema; return {database: files applied}."""
    return {"postgres": _migrate_postgres(settings), "clickhouse": _migrate_clickhouse(settings)}


def _migrate_postgres(settings: Settings) -> list[str]:
    with _answering():
        return migrate_postgres(settings.postgres_dsn.get_secret_value(), settings.postgres_schema)


@contextmanager
def reaching_postgres() -> Iterator[None]:
    """Say in one sentence that PostgreSQL is away, or lacks our tables: raises Unreachable."""
    try:
        with _answering():
            yield
    except psycopg.errors.UndefinedTable as error:
        raise Unreachable("PostgreSQL does not hold our tables; `flowchain migrate` makes them") from error


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        reason = str(error).partition("\n")[0].removeprefix("connection failed: ")
        raise Unreachable(f"PostgreSQL cannot be used ({reason}); FLOWCHAIN_POSTGRES_DSN names it") from error


def _migrate_clickhouse(settings: Settings) -> list[str]:
    dsn = settings.clickhouse_dsn.get_secret_value()
    try:
        return migrate_clickhouse(dsn, settings.clickhouse_database)
    except (NetworkError, EOFError, OSError) as error:
        raise _clickhouse(dsn, "it does not answer") from error
    except ServerException as error:
        if error.code != AUTHENTICATION_FAILED:
            raise
        raise _clickhouse(dsn, "it refuses the user or password") from error


def _clickhouse(dsn: str, reason: str) -> Unreachable:
    parts = urlsplit(dsn)
    place = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    return Unreachable(f"ClickHouse at {place} cannot be used ({reason}); FLOWCHAIN_CLICKHOUSE_DSN names it")
