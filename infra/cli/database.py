"""Sessions of commands in PostgreSQL: as the API has them, in the name of whoever calls the command."""

from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getuser
from typing import Any

import psycopg

from connectors.database import Database
from infra.cli.common import load_settings
from infra.preparing import reaching_postgres


@contextmanager
def session_of(tenant: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """Give a transaction of a tenant, or of every tenant ("*"); raises Unreachable in one sentence."""
    database = Database(load_settings())
    try:
        with reaching_postgres(), database.session(tenant, actor()) as session:
            yield session
    finally:
        database.close()


def actor() -> str:
    """Return who stands in the audit trail for a command."""
    return f"cli:{getuser()}"
