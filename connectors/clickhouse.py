"""Writes blocks of rows to ClickHouse, each exactly once. Synchronous: an agent runs it in a thread.

A block is what the records [first..last] of one topic partition give. For each block, in this order:

1. 'begin [first..last]' goes to `sink_progress`: one row, so it is there or not. It also fixes the block's
   `inserted_at`;
2. the rows are inserted under the token `<table>:<topic>:<partition>:<first>-<last>`, in chunks that depend
   on nothing else;
3. the next block's 'begin', or `settle`, says that it is complete.

After a crash `resume` says where to go on. Following a 'begin' the block may be there in full, in part or not
at all: the caller rebuilds exactly that block from the log and writes it again; ClickHouse skips the chunks
whose tokens it knows, also in the materialized views. A highest offset found in the table could not tell
these cases apart.

ClickHouse has no transactions to fence a writer that lost its partition and does not know it. So `resume` claims the
partition first and then reads how far the one before has come; `write` announces its block first and then looks
whether somebody has claimed the partition since. Whichever way the two mix, either the new writer sees the
announcement, and redoes that block under the same tokens, or the old one sees the claim, and ends (SinkFenced).

The methods may be called from several threads; they take turns. `close` ends another's waiting.
"""

import random
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from clickhouse_driver import Client  # type: ignore[import-untyped]
from clickhouse_driver.errors import (  # type: ignore[import-untyped]
    Error,
    ErrorCodes,
    NetworkError,
    ServerException,
)

from connectors.sink import Driver, Server, SinkFenced, SinkRefused, SinkStopped

_Progress = tuple[str, int, int, int, int]
"""(state, first, last, inserted_at, sequence)"""
Columns = Sequence[Sequence[Any]]
"""Rows turned on their side: one sequence of values per column."""

INSERT_SETTINGS: dict[str, Any] = {
    "async_insert": 0,  # on by default since 26: an acknowledged block must be a written block
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "materialized_views_ignore_errors": 0,
}
TRANSIENT_CODES = {
    # The server is busy, short of memory, parts or disk, shutting down, or without its quorum; the rows are
    # not at fault.
    3: "UNEXPECTED_END_OF_FILE",
    32: "ATTEMPT_TO_READ_AFTER_EOF",
    95: "CANNOT_READ_FROM_SOCKET",
    96: "CANNOT_WRITE_TO_SOCKET",
    159: "TIMEOUT_EXCEEDED",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    203: "NO_FREE_CONNECTION",
    209: "SOCKET_TIMEOUT",
    210: "NETWORK_ERROR",
    236: "ABORTED",
    241: "MEMORY_LIMIT_EXCEEDED",
    242: "TABLE_IS_READ_ONLY",
    243: "NOT_ENOUGH_SPACE",
    252: "TOO_MANY_PARTS",
    279: "ALL_CONNECTION_TRIES_FAILED",
    285: "TOO_FEW_LIVE_REPLICAS",
    286: "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE",
    319: "UNKNOWN_STATUS_OF_INSERT",
    394: "QUERY_WAS_CANCELLED",
    425: "SYSTEM_ERROR",
    439: "CANNOT_SCHEDULE_TASK",
    999: "KEEPER_EXCEPTION",
}
_CODE_NAMES = {
    code: name for name, code in vars(ErrorCodes).items() if isinstance(code, int)
} | TRANSIENT_CODES


@dataclass(frozen=True)
class Resume:
    """Where a sink goes on: first rebuild and write the block `redo` if there is one, then read from
    `next_offset`."""

    next_offset: int | None
    """None: nothing was ever written; begin where the topic begins."""
    redo: tuple[int, int] | None = None
    """(first, last) of a block that may be incomplete; next_offset is then last + 1."""


@dataclass
class _Cursor:
    sequence: int = 0
    next_offset: int | None = None
    block: tuple[int, int] | None = None
    """The last block announced; None when it is known to be complete, by 'end'."""
    inserted_at: int = 0
    written: bool = False
    """This process has inserted `block` in full."""

    @property
    def redo(self) -> tuple[int, int] | None:
        return None if self.written else self.block


class ClickHouseSink:
    """Writer of one table. `columns` are the names of what `write` is given; the sink adds `inserted_at`.

    Connection failures and overload are retried until `stop` is set (SinkStopped); everything else raises SinkRefused.
    """

    def __init__(
        self,
        dsn: str,
        table: str,
        columns: Sequence[str],
        *,
        database: str | None = None,
        max_rows: int = 100_000,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        """`max_rows` bounds one insert; `on_retry` is told the reason of each retry, for logs and metrics."""
        self._table = table
        self._names = ", ".join(map(quoted, columns))
        self._max_rows = max_rows
        self._stop = stop or threading.Event()
        self._clock = clock
        driver = Driver(lambda: client(dsn, database), Client.disconnect, _DRIVER_ERRORS, is_transient, reason)
        self._server: Server[Client] = Server(table, driver, self._stop, on_retry)
        self._cursors: dict[tuple[str, int], _Cursor] = {}
        self._lock = threading.RLock()

    def resume(self, topic: str, partition: int) -> Resume:
        """Read from the database where this partition stands. Called on every assignment, before the first
        `write`."""
        with self._lock:
            claim = self._claim(topic, partition)
            state, first, last, inserted_at, _ = self._progress(topic, partition)
            cursor = _Cursor(claim * _CLAIM, inserted_at=inserted_at)
            # The same row again, above all that a writer which lost the partition may still put there.
            self._record(cursor, topic, partition, state, (first, last))
            cursor.next_offset = last + 1 if last >= 0 else None
            cursor.block = (first, last) if state == "begin" else None
            self._cursors[topic, partition] = cursor
            return Resume(cursor.next_offset, cursor.redo)

    def write(self, topic: str, partition: int, first: int, last: int, columns: Columns) -> None:
        """Insert the block of the records [first..last] and return when it is stored. It may give no rows at
        all.

        Raises ValueError when the block does not follow what `resume` said, or the block that failed before; SinkFenced
        when another writer has claimed the partition.
        """
        with self._lock:
            cursor = self._cursors[topic, partition]
            self._check_order(cursor, first, last)
            if cursor.redo is None:
                self._begin(cursor, topic, partition, (first, last))
            self._check_claim(cursor, topic, partition)
            self._insert_block(
                columns, f"{self._table}:{topic}:{partition}:{first}-{last}", cursor.inserted_at
            )
            cursor.written = True
            cursor.next_offset = last + 1

    def settle(self, topic: str, partition: int) -> None:
        """Record that the last block is complete, so that no resume redoes it. Called when idle, on revoke
        and on stop."""
        with self._lock:
            cursor = self._cursors.get((topic, partition))
            if cursor and cursor.block and cursor.written:
                self._record(cursor, topic, partition, "end", cursor.block)
                cursor.block, cursor.written = None, False

    def skip(self, topic: str, partition: int, last: int) -> None:
        """Record that everything up to `last` is done with, also a block to be redone whose records the log
        has lost."""
        with self._lock:
            cursor = self._cursors[topic, partition]
            self._record(cursor, topic, partition, "end", (last, last))
            cursor.block, cursor.written, cursor.next_offset = None, False, last + 1

    def insert(self, columns: Columns, token: str, inserted_at: int | None = None) -> None:
        """Insert rows in one go under a deduplication token; without the protocol of `write` around it."""
        count = len(columns[0])
        stamp = int(self._clock()) if inserted_at is None else inserted_at
        query = f"INSERT INTO {quoted(self._table)} ({self._names}, inserted_at) VALUES"
        data = [*columns, [stamp] * count]
        self._execute_insert(query, data, token)

    def close(self) -> None:
        """Settle every partition if the server is to be had, and disconnect. Does not wait for a server that
        is away."""
        self._stop.set()
        with self._lock:
            try:
                for topic, partition in self._cursors:
                    self.settle(topic, partition)
            except (SinkStopped, SinkRefused):
                pass  # the last blocks are redone on resume, which changes nothing
            self._server.disconnect()

    def _key(self, topic: str, partition: int) -> dict[str, Any]:
        return {"sink": self._table, "topic": topic, "partition": partition}

    def _progress(self, topic: str, partition: int) -> _Progress:
        rows = self._server.run(lambda server: server.execute(_PROGRESS, self._key(topic, partition)))
        return rows[0] if rows else _NOTHING_WRITTEN

    def _newest_claim(self, topic: str, partition: int) -> int:
        rows = self._server.run(lambda server: server.execute(_CLAIMED, self._key(topic, partition)))
        newest: int = rows[0][0]
        return newest

    def _claim(self, topic: str, partition: int) -> int:
        """Claim a partition; of two that do so at once, one has the higher claim by lot."""
        newest = max(self._newest_claim(topic, partition), self._progress(topic, partition)[-1] // _CLAIM)
        claim = newest + random.randint(1, _CLAIM_STEP)
        row = [*self._key(topic, partition).values(), claim]
        self._execute_insert(_DO_CLAIM, [[value] for value in row], "")
        return claim

    def _check_claim(self, cursor: _Cursor, topic: str, partition: int) -> None:
        if self._newest_claim(topic, partition) > cursor.sequence // _CLAIM:
            raise SinkFenced(f"{self._table}: another writer has claimed {topic}[{partition}]")

    def _check_order(self, cursor: _Cursor, first: int, last: int) -> None:
        if cursor.redo not in (None, (first, last)):
            raise ValueError(f"{self._table}: block {cursor.redo} is to be redone before ({first}, {last})")
        behind = cursor.redo is None and cursor.next_offset is not None and first < cursor.next_offset
        if last < first or behind:
            raise ValueError(
                f"{self._table}: block ({first}, {last}) does not follow offset {cursor.next_offset}"
            )

    def _begin(self, cursor: _Cursor, topic: str, partition: int, block: tuple[int, int]) -> None:
        cursor.inserted_at = int(self._clock())
        self._record(cursor, topic, partition, "begin", block)
        cursor.block, cursor.written = block, False

    def _record(
        self, cursor: _Cursor, topic: str, partition: int, state: str, block: tuple[int, int]
    ) -> None:
        key = self._key(topic, partition)
        row = [*key.values(), cursor.sequence + 1, state, *block, cursor.inserted_at]
        self._execute_insert(_RECORD, [[value] for value in row], "")
        cursor.sequence += 1

    def _insert_block(self, columns: Columns, token: str, inserted_at: int) -> None:
        count = len(columns[0])
        if count <= self._max_rows:
            if count:
                self.insert(columns, token, inserted_at)
            return
        for start in range(0, count, self._max_rows):
            stop = min(start + self._max_rows, count)
            # The rows are named in the token: after a change of max_rows a chunk must not pass for another
            # one.
            self.insert(
                [column[start:stop] for column in columns], f"{token}:{start}-{stop - 1}", inserted_at
            )

    def _execute_insert(self, query: str, data: Columns, token: str) -> None:
        settings = {**INSERT_SETTINGS, "insert_deduplication_token": token}
        options = {"columnar": True, "settings": settings, "types_check": False}
        self._server.run(lambda server: server.execute(query, data, **options))


_DRIVER_ERRORS = (Error, OSError, EOFError, struct.error, TypeError, ValueError, AttributeError)
"""What the driver raises; the last four for values that do not fit their column."""
_NOTHING_WRITTEN = ("end", 0, -1, 0, 0)
_CLAIM = 2**32
"""Sequences are claim * 2^32 + count: every resume is a new claim."""
_CLAIM_STEP = 1024
_CLAIMED = "SELECT max(claim) FROM sink_claims WHERE sink = %(sink)s AND topic = %(topic)s AND partition = %(partition)s"
_DO_CLAIM = "INSERT INTO sink_claims (sink, topic, partition, claim) VALUES"
_PROGRESS = (
    "SELECT state, first_offset, last_offset, toUnixTimestamp(inserted_at), sequence FROM sink_progress"
    " WHERE sink = %(sink)s AND topic = %(topic)s AND partition = %(partition)s ORDER BY sequence DESC"
    " LIMIT 1"
)
_RECORD = (
    "INSERT INTO sink_progress (sink, topic, partition, sequence, state, first_offset, last_offset,"
    " inserted_at)"
    " VALUES"
)


def client(dsn: str, database: str | None = None) -> Client:
    """Return a client of `clickhouse[s]://user:password@host:port/database`; it connects with its first
    query."""
    if database is not None:
        dsn = urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))
    made: Client = Client.from_url(dsn)  # type: ignore[no-untyped-call, unused-ignore]
    return made


def quoted(identifier: str) -> str:
    """Return an identifier of ours in backquotes; raises ValueError if it is not a plain name."""
    if not identifier.isidentifier() or not identifier.isascii():
        raise ValueError(f"not a plain name: {identifier!r}")
    return f"`{identifier}`"


def is_transient(error: BaseException) -> bool:
    """Return whether the same operation may succeed later: the server is away or overloaded."""
    if isinstance(error, ServerException):
        return error.code in TRANSIENT_CODES
    # The driver ends in an EOFError when the server dies between two packets.
    return isinstance(error, (NetworkError, OSError, EOFError))


def reason(error: BaseException) -> str:
    """Return what went wrong without the message, because messages of servers and drivers quote values."""
    code = error.code if isinstance(error, Error) else None
    return (
        f"{type(error).__name__} {code} {_CODE_NAMES.get(code, '')}".strip() if code else type(error).__name__
    )
