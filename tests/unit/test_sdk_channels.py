"""Channels to the API and to several places at once: nothing lost while the other side comes and goes, refusals counted."""

import asyncio
import gzip
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.asyncio.server import ServerConnection, serve

import flowchain
from flowchain import Counts, HttpChannel, Publisher, WebSocketChannel
from flowchain.channels import batched
from flowchain.channels.base import Encoded

Answer = tuple[int, dict[str, str], bytes]
Judge = Callable[[list[Any]], Answer]


def accepted(events: list[Any], refused: tuple[dict[str, Any], ...] = ()) -> Answer:
    answer = {"accepted": len(events) - len(refused), "refused": refused}
    return 202, {}, orjson.dumps(answer)


class Api:
    """`POST /v1/events` as the API answers it, by a judge of each array."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.arrays: list[list[Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: set[str] = set()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                events = orjson.loads(body)
                status, headers, answer = api.judge(events)
                if status == 202:
                    api.arrays.append(events)
                api.headers.append(dict(self.headers))
                api.paths.add(self.path)
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(answer))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def events(self) -> list[int]:
        return [event["n"] for array in self.arrays for event in array]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(judge: Judge) -> Iterator[Api]:
    api = Api(judge)
    try:
        yield api
    finally:
        api.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(batched, "BACKOFF_S", 0.01)
    monkeypatch.setattr(batched, "WAIT_S", 0.01)


def publish(publisher: Publisher, events: range) -> None:
    for number in events:
        publisher.publish(b"k", b'{"n":%d}' % number)


def test_http_sends_arrays_with_the_key_compressed_and_in_order() -> None:
    with serving(accepted) as api:
        publisher = Publisher(lambda counts: HttpChannel(counts, api.url, "secret"))
        publish(publisher, range(3000))
        assert publisher.flush(20.0) and publisher.close(5.0)
        assert api.events == list(range(3000))
        assert api.paths == {"/v1/events"} and max(map(len, api.arrays)) <= batched.MAX_EVENTS
        assert len(api.arrays) < 60  # not an event at a time
        assert {headers["Authorization"] for headers in api.headers} == {"Bearer secret"}
        assert "gzip" in {headers.get("Content-Encoding") for headers in api.headers}
        assert publisher.stats() == flowchain.Stats(3000, 3000, 0, {})


@pytest.mark.parametrize("answer", [(429, {"Retry-After": "0"}, b""), (503, {"Retry-After": "soon"}, b"{}"), (200, {}, b"<html>")], ids=str)
def test_http_sends_again_what_could_not_be_taken(answer: Answer) -> None:
    refusals = iter([answer] * 3)
    with serving(lambda events: next(refusals, None) or accepted(events)) as api:
        publisher = Publisher(lambda counts: HttpChannel(counts, api.url))
        publish(publisher, range(100))
        assert publisher.flush(20.0) and publisher.close(5.0)
        assert api.events == list(range(100))
        assert publisher.stats() == flowchain.Stats(100, 100, 0, {})


def test_http_counts_what_is_refused_by_reason(caplog: pytest.LogCaptureFixture) -> None:
    def judge(events: list[Any]) -> Answer:
        return accepted(events, tuple({"index": i, "field": "chain", "reason": "missing"} for i, e in enumerate(events) if e["n"] % 10 == 0))

    with serving(judge) as api:
        publisher = Publisher(lambda counts: HttpChannel(counts, api.url))
        publish(publisher, range(100))
        assert publisher.flush(20.0)
        publisher.close(5.0)
    assert publisher.stats() == flowchain.Stats(100, 90, 0, {"refused": 10})
    assert "chain: missing" in caplog.text


def test_http_counts_what_will_never_be_taken() -> None:
    with serving(lambda events: (401, {}, b"no such key")) as api:
        publisher = Publisher(lambda counts: HttpChannel(counts, api.url))
        publish(publisher, range(10))
        assert publisher.flush(20.0)
        publisher.close(5.0)
    assert publisher.stats().dropped == {"http_401": 10}


def test_http_sends_smaller_arrays_where_one_was_too_large() -> None:
    def judge(events: list[Any]) -> Answer:
        return (413, {}, b"") if len(events) > 7 else accepted(events)

    with serving(judge) as api:
        publisher = Publisher(lambda counts: HttpChannel(counts, api.url))
        publish(publisher, range(100))
        assert publisher.flush(20.0)
        publisher.close(5.0)
        assert api.events == list(range(100))


def test_http_survives_an_outage_and_drops_the_oldest_beyond_its_bound() -> None:
    with serving(accepted) as api:
        url = api.url
    publisher = Publisher(lambda counts: HttpChannel(counts, url), queue_size=500)
    publish(publisher, range(2000))
    assert not publisher.flush(0.3)
    stats = publisher.stats()
    assert stats.delivered == 0 and stats.dropped["queue_full"] >= 2000 - 500 - batched.MAX_EVENTS - 64
    assert not publisher.close(0.2)
    assert publisher.stats().lost == 2000


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", ""])
def test_a_wrong_address_is_told_and_costs_only_events(url: str) -> None:
    for channel in (HttpChannel, WebSocketChannel):
        publisher = Publisher(lambda counts, channel=channel: channel(counts, url))  # type: ignore[misc]
        publish(publisher, range(5))
        assert publisher.flush(5.0)
        assert publisher.stats().dropped == {"channel_not_opened": 5}
        publisher.close(1.0)


@contextmanager
def websocket(answer: Callable[[int, list[Any]], bytes | None]) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Serve `/v1/events/ws`; None = hang up."""
    got: list[Any] = []
    seen: list[Any] = []
    ready, done = threading.Event(), threading.Event()
    port: list[int] = []

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append((connection.request.path, connection.request.headers.get("Authorization")))
        async for message in connection:
            events = orjson.loads(message)
            found = answer(len(seen), events)
            if found is None:
                return
            got.extend(event["n"] for event in events)
            await connection.send(found.decode())

    async def main() -> None:
        async with serve(handle, "127.0.0.1", 0) as server:
            port.append(next(iter(server.sockets)).getsockname()[1])
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{port[0]}", got, seen
    finally:
        done.set()
        thread.join()


def test_websocket_sends_arrays_and_connects_anew() -> None:
    def answer(connections: int, events: list[Any]) -> bytes | None:
        return None if connections == 1 else accepted(events)[2]

    with websocket(answer) as (url, got, seen):
        publisher = Publisher(lambda counts: WebSocketChannel(counts, url, "secret"))
        publish(publisher, range(1000))
        assert publisher.flush(20.0) and publisher.close(5.0)
        assert got == list(range(1000))
        assert seen == [("/v1/events/ws", "Bearer secret")] * 2
        assert publisher.stats() == flowchain.Stats(1000, 1000, 0, {})


def test_log_lines_are_events(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flowchain.events"):
        flowchain.init("shop", channel="log")
        with flowchain.execution("order"):
            pass
        assert flowchain.shutdown(5.0)
    lines = [record.message for record in caplog.records if record.name == "flowchain.events"]
    assert [orjson.loads(line)["type"] for line in lines] == ["execution.started", "execution.completed"]


class Failing:
    """Takes nothing but time."""

    def __init__(self, counts: Counts) -> None:
        pass

    def send(self, events: list[Encoded]) -> list[Encoded]:
        raise OSError("broken")

    def poll(self, timeout_s: float) -> None:
        raise OSError("broken")

    def close(self, timeout_s: float) -> int:
        raise OSError("broken")


def test_a_failing_channel_takes_nothing_from_the_others(tmp_path: Path) -> None:
    kept: list[Encoded] = []
    path = tmp_path / "events.jsonl"
    flowchain.init("shop", channel=["file", Failing, lambda counts: flowchain.MemoryChannel(counts, kept)], file=path)
    for _ in range(100):
        with flowchain.execution("order"):
            pass
    publisher = flowchain._publisher
    assert publisher is not None and publisher.flush(5.0)
    stats = flowchain.stats()
    flowchain.shutdown(5.0)
    assert len(kept) == len(path.read_bytes().splitlines()) == 200
    assert {name: (of.delivered, of.lost) for name, of in stats.channels.items()} == {
        "file": (200, 0), "channel 2": (0, 200), "channel 3": (200, 0),
    }  # fmt: skip
    assert (stats.published, stats.delivered, stats.dropped) == (600, 400, {"channel_error": 200})


def test_the_environment_configures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.jsonl"
    for name, value in {"SERVICE": "shop", "CHANNEL": "file, log", "FILE": str(path), "TENANT": "acme", "QUEUE_SIZE": "many"}.items():
        monkeypatch.setenv(f"FLOWCHAIN_{name}", value)
    flowchain.init()
    with flowchain.execution("order"):
        pass
    assert flowchain.shutdown(5.0)
    first = orjson.loads(path.read_bytes().splitlines()[0])
    assert (first["component"], first["tenant"]) == ("shop", "acme")
    assert "FLOWCHAIN_QUEUE_SIZE is none of its kind" in caplog.text
    monkeypatch.setenv("FLOWCHAIN_DISABLED", "true")
    flowchain.init()
    with flowchain.execution("order"):
        pass
    assert flowchain.stats() == flowchain.Stats()


@pytest.mark.parametrize("channel", ["telegraph", "", 7])
def test_a_channel_nobody_knows_is_told_and_nothing_is_sent(channel: Any, caplog: pytest.LogCaptureFixture) -> None:
    flowchain.init("shop", channel=channel)
    with flowchain.execution("order"):
        pass
    assert "cannot report" in caplog.text and flowchain.stats() == flowchain.Stats()
