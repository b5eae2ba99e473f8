"""Memory of the workers over time under a steady load: does it stay, or does something grow?

The whole pipeline runs as `flowchain up` runs it, on engines of its own. A feeder keeps to the rate; every few seconds
the resident memory of every worker is read. The first third is warm-up (windows, detectors and remembered executions
fill up); over the rest the slope is the median of the slopes between all pairs of readings (Theil 1950, Sen 1968),
which a few jumps do not move.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from confluent_kafka import Producer

from connectors.lag import group_lag
from connectors.settings import Settings
from infra.bench.loading import Tell
from infra.bench.processes import BenchError
from infra.simulator.load import record
from infra.supervisor import Supervisor
from schemas.topics import EVENTS

WARM_UP = 1 / 3
"""Share of the time that is not judged."""
FLAT = 0.03
"""Memory is flat when over the judged time it grows by less than this share of its median."""
EXECUTIONS_PER_S = 1_000.0
"""Of event time in the recorded load; the pace is set by what is sent, not by this."""
MB = 1_000_000


@dataclass(frozen=True)
class Reading:
    """Resident memory of every worker at a moment."""

    at_s: float
    rss: Mapping[str, int]


@dataclass(frozen=True)
class Verdict:
    """How one worker's memory went."""

    worker: str
    first: int
    median: int
    largest: int
    slope_per_h: float
    flat: bool


@dataclass(frozen=True)
class Outcome:
    """What was measured."""

    rate: float
    minutes: float
    sent: int
    restarts: int
    lag: int
    readings: Sequence[Reading]

    @property
    def verdicts(self) -> list[Verdict]:
        """One per worker."""
        return [judge(name, self.readings) for name in sorted(self.readings[0].rss)]

    @property
    def flat(self) -> bool:
        """Whether no worker grows."""
        return all(verdict.flat for verdict in self.verdicts)

    def document(self) -> dict[str, Any]:
        """Return the outcome for programs, the series included."""
        return {
            "rate": self.rate, "minutes": self.minutes, "events": self.sent, "restarts": self.restarts, "lag": self.lag, "flat": self.flat,
            "workers": {
                v.worker: {"median_mb": round(v.median / MB, 1), "largest_mb": round(v.largest / MB, 1),
                           "slope_mb_per_h": round(v.slope_per_h / MB, 2), "flat": v.flat} for v in self.verdicts
            },
            "series": [{"at_s": round(r.at_s, 1), **{name: round(rss / MB, 1) for name, rss in r.rss.items()}} for r in self.readings],
        }  # fmt: skip


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the median of the slopes between all pairs (Theil-Sen)."""
    x, y = np.asarray(times), np.asarray(values)
    first, second = np.triu_indices(len(x), 1)
    steps = x[second] - x[first]
    return float(np.median((y[second] - y[first])[steps > 0] / steps[steps > 0]))


def judge(worker: str, readings: Sequence[Reading]) -> Verdict:
    """Return the verdict on one worker; needs a few readings behind the warm-up."""
    begin_s = readings[0].at_s + WARM_UP * (readings[-1].at_s - readings[0].at_s)
    judged = [(r.at_s, r.rss[worker]) for r in readings if r.at_s >= begin_s]
    if len(judged) < 3:
        raise BenchError("too few readings to judge: give more --minutes")
    times, values = zip(*judged, strict=True)
    per_s, median = slope(times, values), float(np.median(values))
    return Verdict(
        worker, readings[0].rss[worker], round(median), max(values), per_s * 3600, per_s * (times[-1] - times[0]) < FLAT * median
    )


def measure(settings: Settings, supervisor: Supervisor, rate: float, minutes: float, every_s: float, tell: Tell) -> Outcome:
    """Feed and watch workers that are ready."""
    total_s = minutes * 60
    readings: list[Reading] = []
    with feeding(settings, rate) as feeder:
        began_s = time.monotonic()
        while (now_s := time.monotonic() - began_s) < total_s:
            readings.append(Reading(now_s, dict(resident(supervisor))))
            tell("soak", round(now_s), round(total_s))
            time.sleep(every_s)
            feeder.check()
    lag = sum(row["lag"] for row in group_lag(settings) if row["group"].endswith(("ingest", "analysis")))
    return Outcome(rate, minutes, feeder.sent, supervisor.restarts, lag, readings)


def resident(supervisor: Supervisor) -> Iterator[tuple[str, int]]:
    """Yield (worker, resident bytes)."""
    for child in supervisor.children:
        if child.process is not None and child.process.poll() is None:
            yield child.name, psutil.Process(child.process.pid).memory_info().rss


class Feeder:
    """Sends events at a rate, with the times at which they are sent."""

    def __init__(self, settings: Settings, rate: float) -> None:
        self.sent = 0
        self.done = threading.Event()
        self._rate = rate
        self._topic = settings.topic(EVENTS.name)
        self._failure: Exception | None = None
        self._producer = Producer(
            {**settings.kafka(), "compression.type": "lz4", "linger.ms": 20, "partitioner": "murmur2_random",
             "queue.buffering.max.messages": 500_000}
        )  # fmt: skip

    def run(self) -> None:
        """Send until told to stop."""
        try:
            self._send()
        except Exception as error:  # noqa: BLE001 - raised again by `check`
            self._failure = error

    def check(self) -> None:
        """Raise what ended the sending."""
        if self._failure is not None:
            raise self._failure

    def _send(self) -> None:
        recording, began_s = record(1, EXECUTIONS_PER_S), time.monotonic()
        round_s = len(recording.events) / self._rate
        stretch = round_s * 1e6 / recording.round_us
        number = 0
        while not self.done.is_set():
            origin_us = time.time_ns() // 1000
            for event in recording.round(number, 0):
                due_s = self.sent / self._rate
                if self.sent % 100 == 0:
                    self._pace(began_s + due_s)
                    if self.done.is_set():
                        break
                value = event.value.replace(b'"time_unix_us":%d' % event.time_us, b'"time_unix_us":%d' % (origin_us + event.time_us * stretch))
                self._producer.produce(self._topic, value, event.key)
                self.sent += 1
            number += 1
        self._producer.flush(30)

    def _pace(self, at_s: float) -> None:
        self._producer.poll(0)
        early_s = at_s - time.monotonic()
        if early_s > 0:
            time.sleep(early_s)


@contextmanager
def feeding(settings: Settings, rate: float) -> Iterator[Feeder]:
    """Send events for as long as the block runs."""
    record(1, EXECUTIONS_PER_S)  # takes seconds, once
    feeder = Feeder(settings, rate)
    thread = threading.Thread(target=feeder.run, name="feeder", daemon=True)
    thread.start()
    try:
        yield feeder
    finally:
        feeder.done.set()
        thread.join(60)
