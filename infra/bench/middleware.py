"""What the ASGI middleware costs a request, on one core: the same applications with it and without it, in turns."""

import asyncio
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flowchain
from connectors.settings import Settings
from connectors.topics import apply_topics
from flowchain.context import Context, Flow, to_headers
from infra.bench.loading import Tell
from infra.bench.machine import machine
from infra.bench.tracked_app import APPS, PATH, App, tracked
from infra.devstack import Stack

ROUNDS = 5
DRAIN_S = 30.0
TARGET_PER_S = 12_000
_FLOW = Flow("bench", "0190a1b2c3d47e8f9a0b1c2d3e4f5a6b", "default", "u1", "pro")
CARRIED = to_headers(Context(_FLOW, _FLOW.fields(), "00f067aa0ba902b7", "gate"))
"""What a request of another service that has the SDK brings."""
HEADERS = {"host": "orders.example", "user-agent": "bench", "accept": "*/*", "accept-encoding": "gzip"}


def measure(stack: Stack, requests: int, tell: Tell) -> dict[str, Any]:
    """Return requests per second and µs per request of each application, with the middleware and without."""
    apply_topics(Settings(bootstrap_servers=stack.bootstrap_servers))
    with _one_core():
        flowchain.init("bench", stack.bootstrap_servers)
        try:
            found = {name: asyncio.run(_compare(name, requests, tell)) for name in APPS}
        finally:
            flowchain.shutdown(1.0)
    return {"requests": requests, "rounds": ROUNDS, "target_per_s": TARGET_PER_S, "apps": found, "machine": machine()}


@contextmanager
def _one_core() -> Iterator[None]:
    """Have this thread, and those that begin meanwhile, share one core: the publisher's and librdkafka's too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _compare(name: str, requests: int, tell: Tell) -> dict[str, Any]:
    """Return µs per request: medians of rounds that take turns, until every event of a round was delivered."""
    ways = {"plain": (APPS[name](), HEADERS), "begins": (tracked(name), HEADERS), "continues": (tracked(name), HEADERS | CARRIED)}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, (app, headers) in ways.items():
            took_s = await _serve(app, headers, requests if number else requests // 10)
            if number:  # else it was warm-up
                times[way].append(took_s / requests * 1e6)
        tell(name, number, ROUNDS)
    lost = flowchain.stats().dropped
    plain_us = statistics.median(times["plain"])
    return {way: _figures(values, plain_us) for way, values in times.items()} | {"dropped": dict(lost)}


def _figures(times_us: list[float], plain_us: float) -> dict[str, float]:
    median_us = statistics.median(times_us)
    return {"per_s": round(1e6 / median_us), "us": round(median_us, 2), "overhead_us": round(median_us - plain_us, 2)}


async def _serve(app: App, headers: dict[str, str], requests: int) -> float:
    """Return the seconds that the requests took, one after another, and their events until they are delivered."""
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    constant = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": PATH,
                "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": encoded,
                "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1)}  # fmt: skip
    statuses = set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    began_s = time.perf_counter()
    for number in range(requests):
        await app(dict(constant), receive, send)
        if not number % 100:
            await asyncio.sleep(0)
    _delivered()
    took_s = time.perf_counter() - began_s
    if statuses != {200}:
        raise RuntimeError(f"the application answered {statuses}")
    return took_s


def _delivered() -> None:
    publisher = flowchain._publisher
    if publisher is not None:
        publisher.flush(DRAIN_S)
