"""Writes batches to PostgreSQL: rows and offset in one transaction, so a batch is stored with its offset or
not at all.

How rows are merged is in connectors/merging.py. Synchronous: an agent runs it in a thread; methods take turns.
"""

import threading
from collections.abc import Callable, Mapping, Sequence

import psycopg
from psycopg import sql

from connectors.merging import Row, Upsert, ensure_partitions, merge
from connectors.sink import Driver, Server


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
            for table, batch in rows.items():
                ensure_partitions(connection, self._upserts[table], batch)
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


def is_transient(error: BaseException) -> bool:
    """Return whether the same transaction may succeed later."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:  # no answer from the server: the connection failed or broke
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    if isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name is None:
        return True  # the partition was dropped between its making and the row: it is made again
    # connection, rollback (serialization, deadlock), resources, operator intervention (shutdown, not yet
    # started)
    return error.sqlstate.startswith(("08", "40", "53", "57P"))


def reason(error: BaseException) -> str:
    """Return what went wrong without the message, because messages of the server quote values."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {state}" if state else type(error).__name__
