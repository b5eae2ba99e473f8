"""WebSocket to the API of FlowChain: `/v1/events/ws`, arrays of events, each answered in order. Needs `flowchain[websocket]`."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flowchain.channels.batched import BatchedChannel, Unavailable, read_answer
from flowchain.counts import Counts

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection


class WebSocketChannel(BatchedChannel):
    """Sends to `url` (`wss://flowchain.example.com`, its path `/v1/events/ws` added where it has none) with the bearer key `key`."""

    def __init__(self, counts: Counts, url: str, key: str | None = None, timeout_s: float = 10.0) -> None:
        super().__init__(counts, _Connection(url, key), timeout_s)


class _Connection:
    """One connection that is kept, and opened anew after an error."""

    def __init__(self, url: str, key: str | None) -> None:
        import websockets.sync.client  # noqa: F401 - here, so that its lack is told at once

        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        if scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"no ws(s) address: {url!r}")
        self._url = f"{scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1/events/ws'}"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._open: ClientConnection | None = None

    def exchange(self, body: bytes, timeout_s: float) -> dict[str, Any]:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        try:
            if self._open is None:
                self._open = connect(
                    self._url, additional_headers=self._headers, open_timeout=timeout_s, close_timeout=1.0
                )
            self._open.send(body, text=True)
            return read_answer(self._open.recv(timeout=timeout_s))
        except (OSError, WebSocketException, Unavailable) as error:
            self.close()
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            connection.close()
