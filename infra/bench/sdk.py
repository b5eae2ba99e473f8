"""What a step costs in the thread of a service, whatever Kafka does; beside a span of the OpenTelemetry SDK."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psutil

import flowchain
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra.bench.figures import spread
from infra.bench.loading import Tell
from infra.bench.machine import machine
from infra.devstack import Stack
from infra.supervisor import free_port

HALT_S, GO_S = 0.9, 0.1
"""A slow broker is halted for so long, and goes on for so long."""
BURST = 100
"""Steps in a row, before the service waits for its rate."""
DELIVERY_S = 2.0
"""How long what was reported last has until it is counted as delivered."""
Step = Callable[[], AbstractContextManager[Any]]


def measure(stack: Stack, steps: int, rate: float, tell: Tell) -> dict[str, Any]:
    """Return µs per step with the broker up, down and slow, of an SDK that reports to nobody, and of OpenTelemetry.

    The first step after the service has slept runs on cold caches, whoever reports: it stands apart as `woken`.
    """
    apply_topics(Settings(bootstrap_servers=stack.bootstrap_servers))
    found = {"silent": _of_flowchain(steps, rate, tell, "reports to nobody")}
    with _reporting(stack.bootstrap_servers):
        found["up"] = _of_flowchain(steps, rate, tell, "broker up")
    with _reporting(f"127.0.0.1:{free_port()}"):
        found["down"] = _of_flowchain(steps, rate, tell, "broker down")
    with _reporting(stack.bootstrap_servers), _slow(stack):
        found["slow"] = _of_flowchain(steps, rate, tell, "broker slow")
    rival = _of_opentelemetry(steps, rate, tell)
    clock = spread([_clock() for _ in range(steps)])
    ratio = {name: round(found["up"][name] / rival[name], 2) for name in ("p50", "p99")} if "p50" in rival else None
    return {
        "steps": steps, "steps_per_s": rate, "unit": "us", **found, "opentelemetry": rival, "ratio": ratio, "clock": clock,
        "machine": machine(),
    }  # fmt: skip


@contextmanager
def _reporting(bootstrap_servers: str) -> Iterator[None]:
    flowchain.init("bench", bootstrap_servers)
    try:
        yield
    finally:
        flowchain.shutdown(1.0)


def _of_flowchain(steps: int, rate: float, tell: Tell, stage: str) -> dict[str, Any]:
    with flowchain.execution("bench"):
        times = _times(lambda: flowchain.step("measured"), steps, rate, tell, stage)
    time.sleep(DELIVERY_S)
    stats = flowchain.stats()
    return {**_spread(times), "delivered": stats.delivered, "dropped": dict(stats.dropped)}


def _times(step: Step, steps: int, rate: float, tell: Tell, stage: str) -> list[float]:
    """Return µs of each step of a service that does nothing else, at a rate; the first hundred are warm-up."""
    found = []
    began_s = time.perf_counter()
    for number in range(-BURST, steps):
        before = time.perf_counter_ns()
        with step():
            pass
        after = time.perf_counter_ns()
        if number >= 0:
            found.append((after - before) / 1000)
        if number % BURST == 0:
            tell(stage, max(0, number), steps)
            time.sleep(max(0.0, began_s + (number + BURST) / rate - time.perf_counter()))
    tell(stage, steps, steps)
    return found


def _spread(times: list[float]) -> dict[str, Any]:
    """Return the quantiles of the steps of a service that is awake, and those of the first after each sleep (`woken`)."""
    return {**spread([time for at, time in enumerate(times) if at % BURST != 1]), "woken": spread(times[1::BURST])}


def _clock() -> float:
    before = time.perf_counter_ns()
    return (time.perf_counter_ns() - before) / 1000


@contextmanager
def _slow(stack: Stack) -> Iterator[None]:
    """Have the broker halted most of the time, until the block ends."""
    pid = stack.engine("kafka").pid
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)] if pid else []
    done = threading.Event()

    def halt() -> None:
        while not done.wait(GO_S):
            _signal(processes, signal.SIGSTOP)
            done.wait(HALT_S)
            _signal(processes, signal.SIGCONT)

    thread = threading.Thread(target=halt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        if process.is_running():
            os.kill(process.pid, number)


def _of_opentelemetry(steps: int, rate: float, tell: Tell) -> dict[str, Any]:
    """Return the same of spans that a batch processor takes, and that go nowhere."""
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    except ImportError:
        return {"why": "OpenTelemetry is left out: it needs the 'bench' extra (opentelemetry-sdk)"}

    class Nowhere:
        """An exporter that takes every batch."""

        def export(self, spans: Any) -> Any:
            """Take a batch."""
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None:
            """Nothing is open."""

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracer = provider.get_tracer("bench")
    with tracer.start_as_current_span("execution"):
        times = _times(lambda: tracer.start_as_current_span("measured"), steps, rate, tell, "OpenTelemetry")
    provider.shutdown()
    return _spread(times)
