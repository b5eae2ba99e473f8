"""Writes batches to PostgreSQL: rows and offset in one transaction, so a batch is stored with its offset or
not at all.

A batch is COPYed into temporary tables and merged from there. Of several rows with one key the highest
revision counts, within the batch as well as against what is stored. Synchronous: an agent runs it in a
thread; methods take turns.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from connectors.sink import Driver, Server

Row = Sequence[Any]


@dataclass(frozen=True)
class Upsert:
    """How rows of one table are merged. All names are our own constants."""

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    revision: tuple[str, ...]
    """Compared from the left; a row replaces one with the same key unless its revision is lower."""
    owner: tuple[str, ...] = ()
    """When set: rows of the same owner with a lower revision than the newest are removed (steps a chain no
    longer has)."""


class StaleWriter(Exception):
    """Another writer has gone on from where this one was: this one lost its partition and must stop."""


class PostgresSink:
    """Writer of some tables under one name in `sink_offsets`.

    Lost connections, deadlocks, serialization failures, lack of resources and shutdowns are retried with
    exponential backoff until `stop` is set (SinkStopped); everything else raises SinkRefused at once.
    """

    def __init__(
        self,
        dsn: str,
        sink: str,
        upserts: Sequence[Upsert],
        *,
        schema: str = "flowchain",
        stop: threading.Event | None = None,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        self._sink = sink
        self._upserts = {upsert.table: upsert for upsert in upserts}
        self._stop = stop or threading.Event()
        driver = Driver(
            lambda: connect(dsn, schema), psycopg.Connection.close, (psycopg.Error,), is_transient, reason
        )
        self._server: Server[psycopg.Connection] = Server(sink, driver, self._stop, on_retry)
        self._lock = threading.Lock()

    def resume(self, topic: str, partition: int) -> int | None:
        """Return the first offset that is not stored; None: nothing was ever written."""

        def read(connection: psycopg.Connection) -> int | None:
            with connection.transaction():
                return _stored_offset(connection, self._sink, topic, partition)

        with self._lock:
            return self._server.run(read)

    def write(
        self, topic: str, partition: int, first: int, last: int, rows: Mapping[str, Sequence[Row]]
    ) -> None:
        """Store the rows, by table, that the records [first..last] gave, and that the next offset is last +
        1.

        A batch that is already stored in full is left alone; raises StaleWriter when only a part of it is.
        """

        def store(connection: psycopg.Connection) -> None:
            with connection.transaction():
                if self._claim(connection, topic, partition, first, last):
                    for table, batch in rows.items():
                        if batch:
                            merge(connection, self._upserts[table], batch)

        with self._lock:
            self._server.run(store)

    def close(self) -> None:
        """Disconnect, and end any waiting for the server."""
        self._stop.set()
        with self._lock:
            self._server.disconnect()

    def _claim(
        self, connection: psycopg.Connection, topic: str, partition: int, first: int, last: int
    ) -> bool:
        """Move the offset on, which locks it until the transaction ends. False: the batch is stored
        already."""
        if connection.execute(_CLAIM, [self._sink, topic, partition, last + 1, first]).rowcount:
            return True
        stored = _stored_offset(connection, self._sink, topic, partition)
        if stored == last + 1:  # the commit went through and its answer was lost
            return False
        raise StaleWriter(
            f"{self._sink}: offset of {topic}[{partition}] is {stored}, not at or before {first}"
        )


def connect(dsn: str, schema: str) -> psycopg.Connection:
    """Return a connection that finds our tables; every statement outside of a transaction is one."""
    connection = psycopg.connect(dsn, autocommit=True, connect_timeout=10)
    connection.execute(sql.SQL("SET search_path TO {}, pg_temp").format(sql.Identifier(schema)))
    return connection


_CLAIM = (
    "INSERT INTO sink_offsets AS held (sink, topic, partition, next_offset) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (sink, topic, partition) DO UPDATE SET next_offset = excluded.next_offset, updated_at"
    " = now()"
    " WHERE held.next_offset <= %s"
)


def _stored_offset(connection: psycopg.Connection, sink: str, topic: str, partition: int) -> int | None:
    query = "SELECT next_offset FROM sink_offsets WHERE sink = %s AND topic = %s AND partition = %s"
    row = connection.execute(query, [sink, topic, partition]).fetchone()
    return row[0] if row else None


def merge(connection: psycopg.Connection, upsert: Upsert, rows: Sequence[Row]) -> None:
    """Merge rows into a table, inside the caller's transaction."""
    stage = sql.Identifier("pg_temp", f"batch_{upsert.table}")
    _fill(connection, upsert, stage, rows)
    connection.execute(_merge_statement(upsert, stage))
    if upsert.owner:
        connection.execute(_prune_statement(upsert, stage))


def _fill(connection: psycopg.Connection, upsert: Upsert, stage: sql.Identifier, rows: Sequence[Row]) -> None:
    parts = {"stage": stage, "columns": _names(upsert.columns), "table": sql.Identifier(upsert.table)}
    empty = sql.SQL(
        "CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ON COMMIT DELETE ROWS AS SELECT {columns} FROM"
        " {table} LIMIT 0"
    )
    connection.execute(empty.format(**parts))
    with connection.cursor().copy(sql.SQL("COPY {stage} ({columns}) FROM STDIN").format(**parts)) as copy:
        for row in rows:
            copy.write_row(row)


def _merge_statement(upsert: Upsert, stage: sql.Identifier) -> sql.Composed:
    # DISTINCT ON takes the highest revision of each key; its order by key also keeps concurrent writers from
    # deadlocking.
    text = """
        INSERT INTO {table} AS held ({columns})
        SELECT DISTINCT ON ({key}) {columns} FROM {stage} ORDER BY {key}, {newest_first}
        ON CONFLICT ({key}) DO UPDATE SET {assignments}, updated_at = now()
        WHERE ({new}) >= ({old})"""
    return sql.SQL(text).format(
        table=sql.Identifier(upsert.table),
        columns=_names(upsert.columns),
        key=_names(upsert.key),
        stage=stage,
        newest_first=_join("{} DESC", upsert.revision),
        assignments=_join("{} = excluded.{}", [c for c in upsert.columns if c not in upsert.key]),
        new=_join("excluded.{}", upsert.revision),
        old=_join("held.{}", upsert.revision),
    )


def _prune_statement(upsert: Upsert, stage: sql.Identifier) -> sql.Composed:
    text = """
        DELETE FROM {table} AS held USING (SELECT {owner}, max({revision}) AS newest FROM {stage} GROUP BY
        {owner}) AS batch
        WHERE ({held}) = ({batch}) AND held.{revision} < batch.newest"""
    return sql.SQL(text).format(
        table=sql.Identifier(upsert.table),
        owner=_names(upsert.owner),
        revision=sql.Identifier(upsert.revision[0]),
        stage=stage,
        held=_join("held.{}", upsert.owner),
        batch=_join("batch.{}", upsert.owner),
    )


def _names(columns: Sequence[str]) -> sql.Composed:
    return _join("{}", columns)


def _join(pattern: str, columns: Sequence[str]) -> sql.Composed:
    """Return the pattern filled with each column's name, separated by commas."""
    count = pattern.count("{}")
    template: Any = pattern
    return sql.SQL(", ").join(sql.SQL(template).format(*[sql.Identifier(name)] * count) for name in columns)


def is_transient(error: BaseException) -> bool:
    """Return whether the same transaction may succeed later."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:  # no answer from the server: the connection failed or broke
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    # connection, rollback (serialization, deadlock), resources, operator intervention (shutdown, not yet
    # started)
    return error.sqlstate.startswith(("08", "40", "53", "57P"))


def reason(error: BaseException) -> str:
    """Return what went wrong without the message, because messages of the server quote values."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {state}" if state else type(error).__name__
