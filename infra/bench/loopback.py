"""The same service under uvicorn over loopback, plain and started by `flowchain-instrument`: what a request costs its process."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import uvloop

from infra.bench.processes import BenchError
from infra.bench.tracked_app import PATH
from infra.supervisor import free_port

CONNECTIONS = 16
WARM_UP = 500
REQUEST = f"GET {PATH} HTTP/1.1\r\nhost: bench\r\naccept: */*\r\n\r\n".encode()
INSTRUMENT = [sys.executable, "-m", "flowchain.integrations.command", "--service", "bench", "--bootstrap-servers"]


def compare(bootstrap_servers: str, app: str, requests: int, core: int) -> dict[str, dict[str, float]]:
    """Return requests per second and µs of the server's processor per request, plain and instrumented."""
    server = [sys.executable, "-m", "uvicorn", "--factory", f"infra.bench.tracked_app:{app}", "--no-access-log", "--log-level", "error"]
    plain = _measured(server, requests, core)
    begins = _measured([*INSTRUMENT, bootstrap_servers, *server], requests, core)
    begins["overhead_us"] = round(begins["cpu_us"] - plain["cpu_us"], 1)
    return {"plain": plain, "begins": begins}


def _measured(command: list[str], requests: int, core: int) -> dict[str, float]:
    port = free_port()
    with _running([*command, "--port", str(port)], core) as process:
        _wait_until_up(process, f"http://127.0.0.1:{port}{PATH}")
        uvloop.run(_load(port, WARM_UP))
        before_s = sum(process.cpu_times()[:2])
        took_s = uvloop.run(_load(port, requests))
        cpu_s = sum(process.cpu_times()[:2]) - before_s
    return {"per_s": round(requests / took_s), "cpu_us": round(cpu_s / requests * 1e6, 1)}


@contextmanager
def _running(command: list[str], core: int) -> Iterator[psutil.Process]:
    """Run a server on one core; it inherits where this thread may run."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finally:
        os.sched_setaffinity(0, before)
    try:
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(20)


def _wait_until_up(process: psutil.Process, url: str) -> None:
    for _ in range(300):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            break
    raise BenchError("uvicorn did not start")


class _Client(asyncio.Protocol):
    """Sends a request, waits for the response, and so on, until as many as wanted are answered by all clients together."""

    def __init__(self, left: list[int], done: asyncio.Future[None]) -> None:
        self._left = left
        self._done = done

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        if not data.endswith(b"{}"):  # the head came alone
            return
        self._left[0] -= 1
        if self._left[0] > 0:
            self._transport.write(REQUEST)
        elif not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed a connection"))


async def _load(port: int, requests: int) -> float:
    """Return the seconds that the requests took over several connections."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    left = [requests]
    began_s = time.perf_counter()
    connections = [await loop.create_connection(lambda: _Client(left, done), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    await done
    took_s = time.perf_counter() - began_s
    for transport, _ in connections:
        transport.close()
    return took_s
