"""A schema of its own in the real PostgreSQL, with its role; both are gone afterwards."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow
from pydantic import SecretStr

from connectors.database import Database
from connectors.migrate import migrate_postgres
from connectors.settings import Settings
from infra.devstack import Stack


@dataclass
class Space:
    """One schema."""

    settings: Settings
    database: Database

    @property
    def schema(self) -> str:
        """Its name."""
        return self.settings.postgres_schema

    @property
    def role(self) -> str:
        """The API's role."""
        return f"{self.schema}_api"

    @contextmanager
    def owner(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """Connect as the owner of the tables."""
        with owner(self.settings.postgres_dsn.get_secret_value(), self.schema) as connection:
            yield connection

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query of the owner."""
        with self.owner() as connection:
            return connection.execute(query.encode(), values or None).fetchall()


@contextmanager
def owner(dsn: str, schema: str) -> Iterator[psycopg.Connection[TupleRow]]:
    """Connect as the owner, each statement a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True, options=f"-c search_path={schema},pg_temp") as connection:
        yield connection


@contextmanager
def space(stack: Stack, **settings: Any) -> Iterator[Space]:
    """Make a schema at the newest version."""
    schema = f"t{uuid.uuid4().hex}"
    migrate_postgres(stack.postgres_dsn, schema)
    found = Settings(postgres_dsn=SecretStr(stack.postgres_dsn), postgres_schema=schema, **settings)
    database = Database(found)
    try:
        yield Space(found, database)
    finally:
        database.close()
        drop(stack.postgres_dsn, schema)


def drop(dsn: str, schema: str) -> None:
    """Remove a schema and its role."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{schema}_api")))
