"""The highest rate at which the whole stack on this machine keeps up: search over rates, each held for a while with flat lag."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from connectors.lag import group_lag
from connectors.settings import Settings
from infra.bench.loading import Tell, bulk_producer, pack, put
from infra.bench.machine import machine
from infra.bench.soak import feeding
from infra.simulator import generate
from schemas.topics import EVENTS

READ_EVERY_S = 1.0
WARM_UP = 0.3
"""Share of a step that is not judged."""
ALLOWED_S = 1.0
"""A lag that grows by less than so many seconds of the rate over a step is flat: transactions come in pieces."""
REACHED = 0.97
"""A producer that does not reach this share of the rate is the bound itself."""
DRAIN_S = 120.0


@dataclass(frozen=True)
class Attempt:
    """One rate, held for a while."""

    rate: int
    sent_per_s: float
    lag_first: dict[str, int]
    lag_last: dict[str, int]
    """Median records behind per worker, over the first and the last third of what is judged."""
    bound: str
    """What did not keep up; "" = all did."""


def measure(settings: Settings, start: int, step_s: float, searches: int, tell: Tell) -> dict[str, Any]:
    """Double the rate until something does not keep up, then halve the gap so many times."""
    attempts: list[Attempt] = []

    def holds(rate: int) -> bool:
        attempts.append(hold(settings, rate, step_s, tell))
        drain(settings)
        return not attempts[-1].bound

    best = search(holds, start, searches)
    broker = _broker_alone(settings, max(50_000, 5 * start))
    return {
        "events_per_s": best, "step_s": step_s, "broker_alone_events_per_s": round(broker), "ratio": round(best / broker, 3),
        "attempts": [asdict(attempt) for attempt in attempts], "machine": machine(),
    }  # fmt: skip


def search(holds: Callable[[int], bool], start: int, searches: int) -> int:
    """Return the highest rate found that holds; 0 = not even one eighth of the first."""
    low, high = 0, start
    while holds(high):
        low, high = high, 2 * high
    while not low and high > start // 8:
        high //= 2
        if holds(high):
            low, high = high, 2 * high
    for _ in range(searches if low else 0):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def hold(settings: Settings, rate: int, step_s: float, tell: Tell) -> Attempt:
    """Feed at a rate for a while and watch how far every worker is behind."""
    readings: list[dict[str, int]] = []
    with feeding(settings, rate) as feeder:
        began_s = time.monotonic()
        while (now_s := time.monotonic() - began_s) < step_s:
            readings.append(_lag(settings))
            tell(f"{rate}/s", round(now_s), round(step_s))
            time.sleep(READ_EVERY_S)
        feeder.check()
        sent_per_s = feeder.sent / (time.monotonic() - began_s)
    return judge(rate, sent_per_s, readings)


def judge(rate: int, sent_per_s: float, readings: list[dict[str, int]]) -> Attempt:
    """Say whether every worker kept up, by the records that it is behind, in seconds of the rate of its topic."""
    judged = readings[round(len(readings) * WARM_UP) :]
    third = max(1, len(judged) // 3)
    first, last = ({name: round(statistics.median(r[name] for r in part)) for name in readings[0]} for part in (judged[:third], judged[-third:]))
    bound = "producer" if sent_per_s < REACHED * rate else ""
    allowed = {name: ALLOWED_S * rate if name == "ingest" else 100 for name in first}
    growing = [name for name in first if last[name] - first[name] > allowed[name]]
    return Attempt(rate, round(sent_per_s), first, last, bound or ", ".join(growing))


def drain(settings: Settings) -> None:
    """Wait until what a rate has left behind is worked off."""
    deadline_s = time.monotonic() + DRAIN_S
    while _lag(settings)["ingest"] > 1_000 and time.monotonic() < deadline_s:
        time.sleep(READ_EVERY_S)


def _lag(settings: Settings) -> dict[str, int]:
    """Return records behind by worker."""
    behind: dict[str, int] = {}
    for row in group_lag(settings):
        name = row["group"].rpartition("flowchain-")[2]
        behind[name] = behind.get(name, 0) + row["lag"]
    return behind


def _broker_alone(settings: Settings, events: int) -> float:
    """Return events/s that one producer brings to the broker when nobody paces it: the baseline."""
    messages = list(pack(generate(events), 1, settings.source_partitions))
    producer = bulk_producer(settings)
    began_s = time.perf_counter()
    for key, value, partition, _ in messages:
        put(producer, settings.topic(EVENTS.name), value, key, partition)
    producer.flush(60)
    return events / (time.perf_counter() - began_s)
