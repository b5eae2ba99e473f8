"""Removes from PostgreSQL what has been kept for as long as the tier of its tenant says: `flowchain retention`.

What counts is when a row was stored or last written, so that an import of old data is not gone at once. Tenants that are
not registered are kept as long as the longest retention of any tier: no limit that nobody chose removes anything.
Weeks of executions in which nothing may be kept are dropped whole; in others the rows are deleted from the week's table
itself, past the triggers of flow_executions, so that usage stays: what was used, was used. Usage has the same retention,
and a day's is removed only after the executions that it counts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import LiteralString

import psycopg
import structlog
from psycopg import errors, sql

from connectors.postgres import connect, reason
from connectors.settings import Settings

log = structlog.get_logger("retention")
EVERY_S = 3600.0
"""How often the PostgreSQL sinks do it."""
ANSWERED = timedelta(days=1)
"""How long the answer to a write is kept for the same request."""
PUBLISHED = timedelta(days=7)
"""How long what was published stays in the outbox."""
LOCK = 0x72657461
"""Advisory lock: one process at a time is enough."""
OLDEST = "flow_executions_old"
"""The partition that is never dropped."""

AGED: dict[str, tuple[LiteralString, LiteralString]] = {
    "flow_metrics": ("updated_at", "true"),
    "flow_dependencies": ("updated_at", "provenance = 'observed'"),
    "flow_incidents": ("stored_at", "status = 'resolved'"),
    "flow_alerts": ("stored_at", "status IN ('resolved', 'retracted')"),
    "alert_actions": ("at", "NOT EXISTS (SELECT FROM flow_alerts a WHERE a.tenant = aged.tenant AND a.id = aged.alert)"),
    "silences": ("ends_at", "true"),
    "audit_log": ("at", "true"),
}
"""Per table: the time that counts, and what may be removed at all."""

_CUTOFFS = """
    CREATE TEMPORARY TABLE cutoffs AS
    SELECT tenant, %(now)s - make_interval(days => retention_days) AS before FROM tenants JOIN tiers ON tiers.name = tenants.tier"""
_BOUNDS = "SELECT %(now)s - make_interval(days => max(retention_days)), %(now)s - make_interval(days => min(retention_days)) FROM tiers"
_EXPIRED: LiteralString = "aged.{column} < coalesce((SELECT before FROM cutoffs WHERE cutoffs.tenant = aged.tenant), {longest})"


class Retention:
    """One pass over all tables, on a connection of the owner."""

    def __init__(self, connection: psycopg.Connection, now: datetime) -> None:
        self._connection = connection
        self._now = now
        self._longest = self._shortest = now
        """What was stored before is kept for nobody; what was stored after, for everybody."""

    def run(self) -> dict[str, int]:
        """Remove what is over; return {table: rows removed}, a dropped week under its own name."""
        execute = self._connection.execute
        execute(_CUTOFFS, {"now": self._now})
        execute("SELECT set_config('flowchain.actor', 'retention', false)")
        row = execute(_BOUNDS, {"now": self._now}).fetchone()
        if row is None or row[0] is None:
            return {}  # there is no tier
        self._longest, self._shortest = row
        removed = self._executions() | {"flow_usage_daily": self._usage()}
        removed |= {table: self._aged(table, column, may) for table, (column, may) in AGED.items()}
        removed["idempotency_keys"] = execute("DELETE FROM idempotency_keys WHERE created_at < %s", [self._now - ANSWERED]).rowcount
        removed["registry_outbox"] = execute("DELETE FROM registry_outbox WHERE published_at < %s", [self._now - PUBLISHED]).rowcount
        return {table: rows for table, rows in removed.items() if rows}

    def _expired(self, column: LiteralString) -> sql.Composed:
        return sql.SQL(_EXPIRED).format(column=sql.Identifier(column), longest=sql.Literal(self._longest))

    def _aged(self, table: str, column: LiteralString, may: LiteralString) -> int:
        statement = sql.SQL("DELETE FROM {table} AS aged WHERE {column} < {shortest} AND {expired} AND {may}").format(
            table=sql.Identifier(table), column=sql.Identifier(column), shortest=sql.Literal(self._shortest),
            expired=self._expired(column), may=sql.SQL(may),
        )  # fmt: skip
        return self._connection.execute(statement).rowcount

    def _executions(self) -> dict[str, int]:
        removed = {}
        for name, monday in self._weeks():
            week = sql.Identifier(name)
            if name != OLDEST and self._is_over(week, monday):
                dropped = self._drop(week)
                if dropped is not None:
                    removed[name] = dropped
                    continue
            removed["flow_executions"] = removed.get("flow_executions", 0) + self._delete(week, monday)
        return removed

    def _weeks(self) -> Iterator[tuple[str, date]]:
        """Yield the partitions that may hold something to remove, and the days they begin on."""
        query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'flow_executions'::regclass ORDER BY 1"
        for (name,) in self._connection.execute(query).fetchall():
            monday = date.min if name == OLDEST else datetime.strptime(f"{name[-7:]}1", "%Gw%V%u").date()
            if monday < self._shortest.date():
                yield name, monday

    def _is_over(self, week: sql.Identifier, monday: date) -> bool:
        """Whether no row of it may be kept; the days of a week are over before its rows are."""
        if monday + timedelta(days=7) > self._shortest.date():
            return False
        kept = sql.SQL("SELECT EXISTS (SELECT FROM {week} AS aged WHERE NOT ({expired}))")
        row = self._connection.execute(kept.format(week=week, expired=self._expired("updated_at"))).fetchone()
        return row is not None and not row[0]

    def _drop(self, week: sql.Identifier) -> int | None:
        """Drop a week; return its rows, None when it is in use: next time, then. Nobody is held up for long."""
        try:
            with self._connection.transaction():
                self._connection.execute("SET LOCAL lock_timeout = '2s'")
                self._connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(week))
                if not self._is_over(week, date.min):
                    return None  # written meanwhile
                row = self._connection.execute(sql.SQL("SELECT count(*) FROM {}").format(week)).fetchone()
                self._connection.execute(sql.SQL("DROP TABLE {}").format(week))
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            return None
        return row[0] if row else 0

    def _delete(self, week: sql.Identifier, monday: date) -> int:
        """Delete from a week the rows of tenants whose retention reaches into it, by tenant: others are not looked at."""
        begins = datetime(monday.year, monday.month, monday.day, tzinfo=UTC)
        parts = {"week": week, "begins": sql.Literal(begins), "longest": sql.Literal(self._longest)}
        of_known = sql.SQL(
            "DELETE FROM {week} AS aged USING cutoffs WHERE cutoffs.before > {begins} AND aged.tenant = cutoffs.tenant"
            " AND aged.updated_at < cutoffs.before"
        )
        rows = self._connection.execute(of_known.format(**parts)).rowcount
        if self._longest > begins:
            of_others = "DELETE FROM {week} AS aged WHERE updated_at < {longest} AND tenant NOT IN (SELECT tenant FROM cutoffs)"
            rows += self._connection.execute(sql.SQL(of_others).format(**parts)).rowcount
        return rows

    def _usage(self) -> int:
        """Under the lock of the roll-up, so that no sink is about to book on a row that goes."""
        may = "NOT EXISTS (SELECT FROM flow_executions e WHERE e.tenant = aged.tenant AND e.started_on = aged.day)"
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.flow_usage_daily', 0))")
            return self._aged("flow_usage_daily", "updated_at", may)


def apply_retention(settings: Settings, now: datetime | None = None) -> dict[str, int]:
    """Remove what is over at a time (now where left out); return {table: rows removed}. Nothing while another process is at it.

    Raises psycopg.OperationalError when PostgreSQL is away.
    """
    with _alone(settings) as connection:
        return Retention(connection, now or datetime.now(UTC)).run() if connection else {}


@contextmanager
def _alone(settings: Settings) -> Iterator[psycopg.Connection | None]:
    with connect(settings.postgres_dsn.get_secret_value(), settings.postgres_schema) as connection:
        key = [LOCK, settings.postgres_schema]
        row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", key).fetchone()
        yield connection if row and row[0] else None
        # Not left to the end of the session: the server notices that only after we have gone on.
        connection.execute("SELECT pg_advisory_unlock_all()")


def retain(settings: Settings) -> None:
    """Do it in a worker: tell what was removed, or that it has to wait for the next time."""
    try:
        log.info("removed", **apply_retention(settings))
    except psycopg.Error as error:
        log.warning("not done", reason=reason(error))
