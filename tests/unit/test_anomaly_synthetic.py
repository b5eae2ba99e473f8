"""How many false alarms on healthy windows, and how soon a fault is seen, on seeded series made here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import exp, pi, sin

import numpy as np
import pytest

from schemas.analysis import Anomaly
from schemas.health import HealthWindow, Histogram, ResourceSummary
from streams import histogram
from streams.anomaly import AnomalySettings, AnomalyStage

WINDOW_US = 10_000_000
START_US = 1_760_000_000_000_000 // WINDOW_US * WINDOW_US


@dataclass(frozen=True)
class Service:
    """What a step is like: events per window (Poisson), lognormal durations, errors, broker time, memory."""

    events: float = 50.0
    median_us: float = 40_000.0
    sigma: float = 0.5
    errors: float = 0.001
    broker_us: float = 8_000.0
    daily: float = 0.0
    wander: float = 0.0
    memory: float | None = None


def window(
    service: Service, index: int, rng: np.random.Generator, window_us: int = WINDOW_US
) -> HealthWindow:
    """Return one window of a service, as the health stage would close it."""
    start = START_US + index * window_us
    swing = 1 + service.daily * sin(2 * pi * start / 86_400_000_000)
    drift = exp(service.wander * sin(index / 37.0))
    count = int(rng.poisson(service.events * swing))
    durations = np.exp(rng.normal(np.log(service.median_us * drift), service.sigma, count)).astype(int)
    failed = int(rng.binomial(count, service.errors))
    broker = (
        float(rng.gamma(max(count, 1), service.broker_us / max(count, 1)))
        if count and service.broker_us
        else 0.0
    )
    return closed(start, start + window_us, count, failed, durations, broker, service.memory, rng)


def closed(
    start: int,
    end: int,
    count: int,
    failed: int,
    durations: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    broker: float,
    memory: float | None,
    rng: np.random.Generator,
) -> HealthWindow:
    """Return the window of these durations."""
    buckets: dict[int, int] = {}
    for value in durations.tolist():
        at = histogram.bucket_index(value)
        buckets[at] = buckets.get(at, 0) + 1
    p50, p95, p99 = (histogram.quantile(buckets, q) for q in (0.5, 0.95, 0.99))
    resources = {}
    if memory is not None:
        resources["memory_ratio"] = ResourceSummary(
            count=5, mean=memory + float(rng.normal(0, 0.01)), max=memory
        )
    return HealthWindow(
        id=str(start), kind="step", tenant="acme", chain="order", step="pay", component="payments",
        window_start_unix_us=start, window_end_unix_us=end, revision=0, watermark_unix_us=end,
        events=2 * count, started=count, completed=count - failed, failed=failed,
        error_ratio=failed / count if count else 0.0, throughput_per_s=count * 1e6 / (end - start),
        mean_us=float(durations.mean()) if count else 0.0, p50_us=p50, p95_us=p95, p99_us=p99,
        max_us=int(durations.max()) if count else 0,
        durations=Histogram(scale=4, buckets={str(k): n for k, n in buckets.items()}),
        violations={}, affected_executions=failed, affected_sample=[], cpu_us=0, io_wait_us=0,
        memory_max_bytes=0,
        broker_mean_us=broker, broker_max_us=int(broker), resources=resources, sources=[],
    )  # fmt: skip


def never(_: HealthWindow) -> bool:
    """Say that nothing is frozen."""
    return False


Fault = Callable[[Service, int], Service]
FAULTS: dict[str, Fault] = {
    "errors to 20 %": lambda s, i: replace(s, errors=0.2),
    "latency x3": lambda s, i: replace(s, median_us=3 * s.median_us),
    "throughput to zero": lambda s, i: replace(s, events=0.0),
    "broker time x10": lambda s, i: replace(s, broker_us=10 * s.broker_us),
    "memory ramp": lambda s, i: replace(s, memory=0.4 + 0.03 * i),
}


def series(
    service: Service, count: int, seed: int, fault: Fault | None = None, at: int = 0
) -> Iterator[HealthWindow]:
    """Yield `count` windows; from window `at` on the service has the fault."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        yield window(fault(service, i - at) if fault and i >= at else service, i, rng)


def alarms(service: Service, count: int, seed: int, settings: AnomalySettings) -> list[Anomaly]:
    """Return the anomalies on a healthy series."""
    return AnomalyStage(settings).apply(list(series(service, count, seed)), never)


def delay(service: Service, fault: Fault, seed: int, settings: AnomalySettings, at: int = 60) -> int | None:
    """Return how many windows after a fault's first one the first anomaly comes; None within 10."""
    stage = AnomalyStage(settings)
    found = stage.apply(list(series(service, at + 10, seed, fault, at)), never)
    after = [(a.window_start_unix_us - START_US) // WINDOW_US - at for a in found]
    return min((d for d in after if d >= 0), default=None)


DEFAULT = AnomalySettings()
FEW, SOME, MANY = Service(events=3), Service(events=20), Service(events=200, errors=0.005)


@pytest.mark.parametrize(
    "service",
    [FEW, SOME, MANY, Service(sigma=1.2, errors=0.02), Service(events=20, daily=0.9), Service(wander=0.2)],
    ids=["few", "some", "many", "wide", "daily", "wander"],
)
def test_healthy_windows_raise_few_alarms(service: Service) -> None:
    count = sum(len(alarms(service, 1030, seed, DEFAULT)) for seed in (100, 101))
    # the goal of one in 2,000 is measured on long series; here is what catches a mistake
    assert count <= 3


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("service", [SOME, MANY], ids=["some", "many"])
def test_a_fault_is_seen_in_the_first_windows(service: Service, fault: Fault) -> None:
    ramp = fault is FAULTS["memory ramp"]
    service = replace(service, memory=0.4) if ramp else service
    delays = [delay(service, fault, seed, DEFAULT) for seed in range(200, 205)]
    # the ramp is 0.09 above normal in its fourth window, and less than 0.1 never matters;
    # a window of 20 events at 20 % has fewer than 4 failures in 41 % of all cases
    allowed = 7 if ramp else 2 if service is SOME else 1
    assert sum(d is not None and d <= allowed for d in delays) >= 4, delays


def test_a_few_windows_of_warm_up_are_enough() -> None:
    settings = replace(DEFAULT, warm_up_windows=12)
    delays = [delay(SOME, FAULTS["latency x3"], seed, settings, at=13) for seed in range(5)]
    assert sum(d is not None and d <= 1 for d in delays) >= 4, delays
