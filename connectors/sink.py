"""What the sinks of all databases share: one connection, and patience with its server.

Whatever may succeed later is tried again with exponential backoff until somebody says stop; everything else ends at once.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential_jitter,
)

C = TypeVar("C")
T = TypeVar("T")


class SinkRefused(Exception):
    """The database will never take this: a wrong type, a missing table, no permission. Holds no values of rows."""


class SinkStopped(Exception):
    """The sink was told to stop while the database was not to be had; what was not acknowledged is read again."""


class SinkFenced(Exception):
    """Another writer has the partition: whatever this one believes, it is not its owner any more."""


@dataclass(frozen=True)
class Driver(Generic[C]):
    """How a database's client is used."""

    connect: Callable[[], C]
    disconnect: Callable[[C], None]
    errors: tuple[type[BaseException], ...]
    """What the client raises."""
    is_transient: Callable[[BaseException], bool]
    """Whether the same operation may succeed later."""
    reason: Callable[[BaseException], str]
    """What went wrong without the message, because messages of servers and clients quote values."""


class Server(Generic[C]):
    """A database as one sink sees it. One thread at a time; only `stop` is set from others."""

    def __init__(
        self, name: str, driver: Driver[C], stop: threading.Event, on_retry: Callable[[str], None] | None = None
    ) -> None:
        """`name` stands in errors; `on_retry` is told the reason of each retry, for logs and metrics."""
        self._name = name
        self._driver = driver
        self._stop = stop
        self._on_retry = on_retry
        self._connection: C | None = None

    def run(self, operation: Callable[[C], T]) -> T:
        """Return what the operation returns with a connection; raises SinkRefused, or SinkStopped while it waits."""
        driver = self._driver
        retrying = Retrying(
            retry=retry_if_exception(driver.is_transient),
            wait=wait_exponential_jitter(multiplier=0.1, max=10, jitter=0.5),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            before_sleep=self._before_sleep,
            reraise=True,
        )
        try:
            return retrying(lambda: operation(self._connected()))
        except driver.errors as error:
            self.disconnect()
            if driver.is_transient(error):
                raise SinkStopped(f"{self._name}: stopped while waiting; {driver.reason(error)}") from None
            raise SinkRefused(f"{self._name}: {driver.reason(error)}") from None

    def disconnect(self) -> None:
        """Close the connection if there is one."""
        if self._connection is not None:
            self._driver.disconnect(self._connection)
        self._connection = None

    def _before_sleep(self, state: RetryCallState) -> None:
        self.disconnect()
        error = state.outcome.exception() if state.outcome else None
        if self._on_retry and error:
            self._on_retry(self._driver.reason(error))

    def _connected(self) -> C:
        if self._connection is None:
            self._connection = self._driver.connect()
        return self._connection
