"""Reads ClickHouse for the API: named queries, each in a file of its own, over a few connections."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

from clickhouse_driver import Client  # type: ignore[import-untyped]

import schemas
from connectors.clickhouse import client
from connectors.http.problems import Refused
from connectors.settings import Settings

QUERIES = Path(schemas.__file__).parent / "clickhouse" / "queries"
WAIT_S = 5.0
MAX_ROWS = 100_000
"""Of one answer; a query that gives more fails."""


@cache
def text_of(name: str) -> str:
    """Return a query; it takes `tenant` and says so in its WHERE (a test holds all of them to it)."""
    return (QUERIES / f"{name}.sql").read_text(encoding="utf-8")


class ClickHouse:
    """A few connections, each used by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = {"max_execution_time": settings.api_query_s, "max_result_rows": MAX_ROWS, "readonly": 2}
        self._free: LifoQueue[Client | None] = LifoQueue()
        for _ in range(settings.api_clickhouse_connections):
            self._free.put(None)

    def select(self, name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of a query; raises the driver's errors, and Refused (503) when every connection is busy."""
        with self._connection() as connection:
            rows, columns = connection.execute(text_of(name), values, with_column_types=True, settings=self._limits)
        names = [column for column, _ in columns]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def close(self) -> None:
        """Disconnect."""
        while not self._free.empty():
            connection = self._free.get_nowait()
            if connection is not None:
                connection.disconnect()

    @contextmanager
    def _connection(self) -> Iterator[Client]:
        try:
            connection = self._free.get(timeout=WAIT_S)
        except Empty:
            raise Refused(503, "too many queries at once; try again", headers={"Retry-After": "1"}) from None
        try:
            connection = connection or self._connect()
            yield connection
        except BaseException:
            if connection is not None:
                connection.disconnect()
            connection = None  # what is left on the wire is nobody's
            raise
        finally:
            self._free.put(connection)

    def _connect(self) -> Client:
        return client(self._settings.clickhouse_dsn.get_secret_value(), self._settings.clickhouse_database)
