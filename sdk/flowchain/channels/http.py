"""HTTP to the API of FlowChain: `POST /v1/events`, arrays of events, gzip, a bearer key. Standard library only."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flowchain.channels.batched import BatchedChannel, Refused, Unavailable, read_answer
from flowchain.counts import Counts

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Statuses after which the same array is sent again."""
GZIP_FROM_BYTES = 1_024


class HttpChannel(BatchedChannel):
    """Sends to `url` (`https://flowchain.example.com`, its path `/v1/events` added where it has none) with the bearer key `key`."""

    def __init__(self, counts: Counts, url: str, key: str | None = None, timeout_s: float = 10.0) -> None:
        super().__init__(counts, _Connection(url, key), timeout_s)


class _Connection:
    """One connection that is kept, and opened anew after an error."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"no http(s) address: {url!r}")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/") or "/v1/events"
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._open: HTTPConnection | None = None

    def exchange(self, body: bytes, timeout_s: float) -> dict[str, Any]:
        from http.client import HTTPException

        headers = self._headers
        if len(body) >= GZIP_FROM_BYTES:
            import gzip

            body, headers = gzip.compress(body, 5), {**headers, "Content-Encoding": "gzip"}
        try:
            connection = self._connected(timeout_s)
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as error:
            self.close()
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        return _judged(response, answer)

    def _connected(self, timeout_s: float) -> "HTTPConnection":
        from http.client import HTTPConnection, HTTPSConnection

        if self._open is None:
            kind = HTTPSConnection if self._secure else HTTPConnection
            self._open = kind(self._host, self._port, timeout=timeout_s)
        if self._open.sock is not None:
            self._open.sock.settimeout(timeout_s)
        return self._open

    def close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            connection.close()


def _judged(response: "HTTPResponse", body: bytes) -> dict[str, Any]:
    status = response.status
    if 200 <= status < 300:
        return read_answer(body)
    said = f"{status} {body[:200].decode('utf-8', 'replace')}"
    if status in AGAIN:
        raise Unavailable(said, _seconds(response.headers.get("Retry-After")))
    raise Refused(f"http_{status}", said, too_large=status == 413)


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:  # a date: the backoff does
        return 0.0
