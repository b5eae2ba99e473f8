"""What an event costs while the state grows: processor time per event against open executions, steps of chains, and tenants.

In this process, without Kafka: the tracker of one source partition with what it publishes, and the whole analysis behind it
with its changelog. The smallest size is the baseline of each series of sizes.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from infra.bench.loading import Tell
from infra.bench.machine import machine
from schemas.internal import Partial
from streams.analysis import Analysis, AnalysisSettings
from streams.events import Event, ExecutionCompleted, Refused, StepCompleted, StepStarted
from streams.limits import Limits
from streams.rules import RuleBook
from streams.tracker import Tracker

T_US = 1_800_000_000_000_000
CHUNK, CHUNKS_PER_COMMIT = 1_000, 5
EVENT_US = 500
"""Event time that passes per event: 2,000 events per second."""
STEPS_PER_CHAIN = 10
encode = msgspec.json.Encoder().encode
Shape = Callable[[int, int, int], Iterator[Event]]
"""(first number, events, size) -> events"""


@dataclass(frozen=True)
class Point:
    """What an event costs at one size."""

    axis: str
    size: int
    ingest_us: float
    analysis_us: float
    windows: int
    """Health windows that closed."""

    def document(self, smallest: "Point") -> dict[str, Any]:
        """Return it for programs, as a ratio to the smallest size too."""
        return {
            "axis": self.axis, "size": self.size, "ingest_us_per_event": round(self.ingest_us, 2),
            "analysis_us_per_event": round(self.analysis_us, 2), "windows": self.windows,
            "ingest_ratio": round(self.ingest_us / smallest.ingest_us, 2),
            "analysis_ratio": round(self.analysis_us / smallest.analysis_us, 2),
        }  # fmt: skip


class Bench:
    """A tracker and the analysis behind it, and the time that both have taken."""

    def __init__(self, size: int) -> None:
        limits = Limits(max_open=2 * size + 10_000, max_series=2 * size * STEPS_PER_CHAIN + 10_000, idle_us=10**12)
        self._tracker = Tracker("events", 0, RuleBook(), limits)
        self._analysis = Analysis(AnalysisSettings(limits))
        self.reset()

    def reset(self) -> None:
        """Count from here."""
        self.events = self.windows = 0
        self.ingest_s = self.analysis_s = 0.0

    def run(self, events: Iterator[Event]) -> None:
        """Bring events through both, a commit after every CHUNKS_PER_COMMIT chunks."""
        held: list[Event | Refused] = list(events)
        for number, start in enumerate(range(0, len(held), CHUNK), 1):
            chunk = held[start : start + CHUNK]
            offset = self._tracker.next_offset
            offsets, broker_us = list(range(offset, offset + len(chunk))), [getattr(event, "time_unix_us", 0) for event in chunk]
            began_s = time.thread_time()
            self._tracker.apply(chunk, offsets, broker_us)
            self.ingest_s += time.thread_time() - began_s
            self.events += len(chunk)
            if number % CHUNKS_PER_COMMIT == 0 or start + CHUNK >= len(held):
                self._commit()

    def _commit(self) -> None:
        began_s = time.thread_time()
        out = self._tracker.take()
        partial = Partial("events", 0, self._tracker.watermark_us, self._tracker.next_offset - 1, out.slices)
        value = encode(partial)
        for tracked in out.touched:
            if not tracked.finished_us:
                encode(tracked.execution.record())
        for tracked in out.finished.values():
            tracked.rest(encode(tracked.execution.record()))
        half_s = time.thread_time()
        self.ingest_s += half_s - began_s
        self.windows += sum(len(found.windows) for found in self._analysis.apply(msgspec.json.decode(value, type=Partial)))
        for _ in self._analysis.changes():
            pass
        self.analysis_s += time.thread_time() - half_s


def opening(first: int, events: int, size: int) -> Iterator[Event]:
    """Yield steps of executions that stay open."""
    for number in range(first, first + events):
        yield StepStarted(
            chain=f"open-{number % 10}", execution=f"held-{number}", step="s", component="c", time_unix_us=T_US + number * EVENT_US
        )


def passing(first: int, events: int, size: int) -> Iterator[Event]:
    """Yield executions of two events over ten chains of ten steps."""
    return _steps(first, events, 10, 1)


def over_steps(first: int, events: int, size: int) -> Iterator[Event]:
    """Yield executions over so many steps of chains, ten per chain."""
    return _steps(first, events, max(1, size // STEPS_PER_CHAIN), 1)


def over_tenants(first: int, events: int, size: int) -> Iterator[Event]:
    """Yield executions of so many tenants, each with one chain of ten steps."""
    return _steps(first, events, size, size)


def _steps(first: int, events: int, chains: int, tenants: int) -> Iterator[Event]:
    for number in range(first, first + events):
        run, is_end = divmod(number, 2)
        chain = run % chains
        common = {
            "chain": f"chain-{chain}", "execution": f"run-{run}", "tenant": f"tenant-{chain % tenants}", "time_unix_us": T_US + number * EVENT_US,
        }  # fmt: skip
        if is_end:
            yield ExecutionCompleted(**common)  # type: ignore[arg-type]
        else:
            name = f"step-{run // chains % STEPS_PER_CHAIN}"
            yield StepCompleted(**common, step=name, component=name, duration_us=1_000 + run % 977)  # type: ignore[arg-type]


AXES: dict[str, tuple[Shape, Shape]] = {
    "open executions": (opening, passing),
    "chains x steps": (over_steps, over_steps),
    "tenants": (over_tenants, over_tenants),
}
"""How each is filled, and what is measured then."""


def measure(sizes: Mapping[str, Sequence[int]], events: int, tell: Tell) -> dict[str, Any]:
    """Return the cost per event of every size of every axis."""
    found = []
    for axis, wanted in sizes.items():
        points: list[Point] = []
        for number, size in enumerate(sorted(wanted), 1):
            points.append(_point(axis, size, events))
            tell(axis, number, len(wanted))
        found += [point.document(points[0]) for point in points]
    return {"events": events, "points": found, "machine": machine()}


def _point(axis: str, size: int, events: int) -> Point:
    fill, shape = AXES[axis]
    bench = Bench(size)
    filled = size if fill is opening else 2 * size * (STEPS_PER_CHAIN if axis == "tenants" else 1)
    bench.run(fill(0, filled, size))
    gc.collect()
    gc.freeze()  # as the worker does: what is kept is not walked through again and again
    bench.reset()
    bench.run(shape(filled, events, size))
    gc.unfreeze()
    return Point(axis, size, bench.ingest_s / bench.events * 1e6, bench.analysis_s / bench.events * 1e6, bench.windows)
