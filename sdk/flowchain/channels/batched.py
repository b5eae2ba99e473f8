"""Events sent as JSON arrays to the API, an array at a time: what HTTP and WebSocket share."""

import random
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol

import orjson

from flowchain.channels.base import Encoded
from flowchain.counts import Counts

MAX_EVENTS = 500
MAX_BYTES = 256_000
"""Of one array, before compression."""
WAIT_S = 0.05
"""So long an array that is not full waits for more events."""
BACKOFF_S, MAX_BACKOFF_S = 0.2, 30.0


class Unavailable(Exception):
    """The other side cannot take an array now; the same one is sent again, at the earliest in `after_s` where it said so."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Refused(Exception):
    """The other side will never take this array: `reason` is what its events are counted under."""

    def __init__(self, reason: str, message: str = "", *, too_large: bool = False) -> None:
        super().__init__(message or reason)
        self.reason = reason
        self.too_large = too_large


class Transport(Protocol):
    """One connection to the API."""

    def exchange(self, body: bytes, timeout_s: float) -> dict[str, Any]:
        """Send an array and return the answer `{"accepted": n, "refused": [...]}`; raises Unavailable or Refused."""

    def close(self) -> None:
        """Close the connection, if it is open."""


class BatchedChannel:
    """Holds at most one array of events that are on their way; while the other side is away it takes no more,
    so that the publisher's queue is the only buffer.

    An array is repeated after a lost answer, too: the pipeline knows a step or an execution that comes twice; log statements and
    samples it counts again.
    """

    def __init__(self, counts: Counts, transport: Transport, timeout_s: float = 10.0) -> None:
        self._counts = counts
        self._transport = transport
        self._timeout_s = timeout_s
        self._pending: list[bytes] = []
        self._bytes = 0
        self._limit = MAX_EVENTS
        """Events of one array; fewer once the other side has found one too large."""
        self._due_s = 0.0
        self._failures = 0

    def send(self, events: list[Encoded]) -> list[Encoded]:
        if self._failures or self._is_full():
            return events
        if not self._pending:
            self._due_s = time.monotonic() + WAIT_S
        for _, value in events:
            self._pending.append(value)
            self._bytes += len(value)
        return []

    def poll(self, timeout_s: float) -> None:
        if self._pending and (time.monotonic() >= self._due_s or (self._is_full() and not self._failures)):
            self._send_pending(self._timeout_s)
        elif timeout_s:
            time.sleep(timeout_s)

    def close(self, timeout_s: float) -> int:
        until = time.monotonic() + timeout_s
        while self._pending and (left := until - time.monotonic()) > 0:
            self._send_pending(min(left, self._timeout_s))
            if self._failures:
                time.sleep(max(0.0, min(self._due_s, until) - time.monotonic()))
        self._transport.close()
        return len(self._pending)

    def _is_full(self) -> bool:
        return len(self._pending) >= MAX_EVENTS or self._bytes >= MAX_BYTES

    def _send_pending(self, timeout_s: float) -> None:
        count = min(self._limit, len(self._pending))
        body = b"[" + b",".join(islice(self._pending, count)) + b"]"
        try:
            answer = self._transport.exchange(body, timeout_s)
        except Unavailable as error:
            self._wait(error)
            return
        except Refused as error:
            if error.too_large and count > 1:
                self._limit = count // 2
                return
            self._counts.drop(error.reason, error, count)
        else:
            self._book(answer, count)
        self._failures = 0
        self._bytes -= sum(map(len, islice(self._pending, count)))
        del self._pending[:count]

    def _wait(self, error: Unavailable) -> None:
        self._counts.tell("unavailable", error)
        backoff_s = min(MAX_BACKOFF_S, BACKOFF_S * 2 ** min(self._failures, 16))
        self._failures += 1
        self._due_s = time.monotonic() + max(min(error.after_s, MAX_BACKOFF_S), backoff_s * random.uniform(0.5, 1.0))

    def _book(self, answer: dict[str, Any], count: int) -> None:
        """Count what an answer says of `count` events; one without an account of refusals took all."""
        refused = list(reasons(answer.get("refused") or ()))[:count]
        for reason in refused:
            self._counts.drop("refused", reason)
        self._counts.delivered(count - len(refused))


def reasons(refused: Iterable[Any]) -> Iterable[str]:
    """Yield what is wrong with each refused event: its field and the reason."""
    for item in refused:
        yield f"{item.get('field', '')}: {item.get('reason', '')}" if isinstance(item, dict) else str(item)


def read_answer(body: str | bytes) -> dict[str, Any]:
    """Return the API's answer; one that is no JSON object comes from something else on the way, so it is Unavailable."""
    try:
        answer = orjson.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable(f"an answer that is no JSON object: {body[:100]!r}")
    return answer
