"""Sessions of the API in PostgreSQL: one transaction each, as a role that sees the rows of one tenant only.

What the session is lives and dies with its transaction, and whatever a statement left on the pooled connection
(prepared statements, cursors, temporary tables, settings) is discarded before the next one gets it.
"""

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from connectors.settings import Settings

EVERY_TENANT = "*"
"""The tenant of sessions that see, and may change, everybody's rows."""
WAIT_S = 10.0
"""How long a session waits for a free connection; PoolTimeout, an OperationalError, after that."""


class TenantRefused(Exception):
    """The database does not take the proof of the tenant: the setting tenant_key is not its key."""


class Database:
    """PostgreSQL as the API uses it. Thread-safe; connects with the first session."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key: bytes | None = None
        self._pool: ConnectionPool[psycopg.Connection[DictRow]] = ConnectionPool(
            api_dsn(settings), kwargs=_OPTIONS, min_size=1, max_size=settings.api_connections, timeout=WAIT_S,
            open=False, reset=_forget, name="api",
        )  # fmt: skip

    @contextmanager
    def session(self, tenant: str, actor: str) -> Iterator[psycopg.Connection[DictRow]]:
        """Give a connection for one transaction of a tenant, or of every tenant ("*"); committed unless the block raises.

        `actor` stands in the audit trail. Raises TenantRefused, or psycopg.OperationalError when the database is away.
        """
        if not tenant:
            raise ValueError("a session needs a tenant")
        begin = _BEGIN.format(tenant, self._proof(tenant), actor)
        self._pool.open()
        with self._pool.connection() as connection:  # commits, or rolls back
            row = connection.execute(begin).set_result(-1).fetchone()
            if row is None or row["tenant"] != tenant:
                raise TenantRefused("PostgreSQL does not take the proof of the tenant; FLOWCHAIN_TENANT_KEY is not its key")
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _proof(self, tenant: str) -> str:
        """Return HMAC-SHA256 of the tenant, hex digits."""
        if self._key is None:
            given = self._settings.tenant_key
            self._key = bytes.fromhex(given.get_secret_value()) if given else read_tenant_key(self._settings)
        return hmac.digest(self._key, tenant.encode(), "sha256").hex()


_BEGIN = sql.SQL("""
BEGIN;
SELECT set_config('flowchain.tenant', {}, true), set_config('flowchain.proof', {}, true), set_config('flowchain.actor', {}, true);
SELECT current_tenant() AS tenant""")
"""One round trip: a look-up of the API costs little more than its round trips."""

_OPTIONS = {"autocommit": True, "row_factory": dict_row, "connect_timeout": 10, "prepare_threshold": None}
"""Nothing is prepared: it would be discarded with the rest."""


def _forget(connection: psycopg.Connection[Any]) -> None:
    connection.execute("DISCARD ALL")


def api_dsn(settings: Settings) -> str:
    """Return how the API's role connects, its search path and statement timeout included."""
    given = settings.api_postgres_dsn
    parts = conninfo_to_dict((given or settings.postgres_dsn).get_secret_value())
    if given is None:
        parts.pop("password", None)
        parts["user"] = f"{settings.postgres_schema}_api"
    timeout_ms = round(settings.api_statement_timeout_s * 1000)
    ours = f"-c search_path={settings.postgres_schema},pg_temp -c statement_timeout={timeout_ms}"
    parts["options"] = f"{parts.get('options') or ''} {ours}".strip()
    return make_conninfo("", **parts)


def read_tenant_key(settings: Settings) -> bytes:
    """Return the key under which tenants are proved; only the owner of the tables may read it."""
    query = sql.SQL("SELECT key FROM {}").format(sql.Identifier(settings.postgres_schema, "tenant_key"))
    with psycopg.connect(settings.postgres_dsn.get_secret_value(), connect_timeout=10) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None, "the migration writes the row"
    return bytes(row[0])
