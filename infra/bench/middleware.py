"""What the ASGI middleware costs a request, on one core: the same applications with it and without it, in turns."""

import asyncio
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import flowchain
from connectors.settings import Settings
from connectors.topics import apply_topics
from flowchain.context import Context, Flow, to_headers
from infra.bench import loopback
from infra.bench.loading import Tell
from infra.bench.machine import machine
from infra.bench.processes import BenchError
from infra.bench.tracked_app import APPS, PATH, App, tracked
from infra.devstack import Stack

ROUNDS = 5
DRAIN_S = 30.0
TARGET_PER_S = 12_000
_FLOW = Flow("bench", "0190a1b2c3d47e8f9a0b1c2d3e4f5a6b", "default", "u1", "pro")
CARRIED = to_headers(Context(_FLOW, _FLOW.fields(), "00f067aa0ba902b7", "gate"))
"""What a request of another service that has the SDK brings."""
HEADERS = {"host": "orders.example", "user-agent": "bench", "accept": "*/*", "accept-encoding": "gzip"}


class Took(NamedTuple):
    """Time by the clock, and of the processor: every thread of this process."""

    wall: float
    cpu: float


def measure(stack: Stack, requests: int, tell: Tell) -> dict[str, Any]:
    """Return requests per second and µs of the processor per request of each application, with the middleware and without."""
    apply_topics(Settings(bootstrap_servers=stack.bootstrap_servers))
    with _one_core():
        flowchain.init("bench", stack.bootstrap_servers)
        try:
            found = {name: asyncio.run(_compare(name, requests, tell)) for name in APPS}
        finally:
            flowchain.shutdown(1.0)
    core = max(os.sched_getaffinity(0))
    over_loopback = {name: loopback.compare(stack.bootstrap_servers, name, requests, core) for name in ("starlette", "fastapi")}
    return {"requests": requests, "rounds": ROUNDS, "target_per_s": TARGET_PER_S, "apps": found, "uvicorn": over_loopback,
            "machine": machine()}  # fmt: skip


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
    """Return the medians of rounds that take turns, each until all its events were delivered."""
    ways = {"plain": (APPS[name](), HEADERS), "begins": (tracked(name), HEADERS), "continues": (tracked(name), HEADERS | CARRIED)}
    took: dict[str, list[Took]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, (app, headers) in ways.items():
            found = await _serve(app, headers, requests if number else requests // 10)
            if number:  # else it was warm-up
                took[way].append(Took(found.wall / requests * 1e6, found.cpu / requests * 1e6))
        tell(name, number, ROUNDS)
    plain_us = _median(took["plain"]).cpu
    figures = {way: _figures(_median(each), plain_us) for way, each in took.items()}
    return {**figures, "dropped": dict(flowchain.stats().dropped)}


def _median(took: list[Took]) -> Took:
    return Took(*map(statistics.median, zip(*took, strict=True)))


def _figures(took_us: Took, plain_us: float) -> dict[str, float]:
    return {"per_s": round(1e6 / took_us.wall), "cpu_us": round(took_us.cpu, 1), "overhead_us": round(took_us.cpu - plain_us, 1)}


async def _serve(app: App, headers: dict[str, str], requests: int) -> Took:
    """Return what the requests took, one after another, and their events until they are delivered."""
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

    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for number in range(requests):
        await app(dict(constant), receive, send)
        if not number % 100:
            await asyncio.sleep(0)
    _delivered()
    took = Took(time.perf_counter() - wall_s, time.process_time() - cpu_s)
    if statuses != {200}:
        raise BenchError(f"the application answered {statuses}")
    return took


def _delivered() -> None:
    publisher = flowchain._publisher
    if publisher is not None:
        publisher.flush(DRAIN_S)
