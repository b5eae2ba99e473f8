"""What truly happened per window: the sum over all source partitions, and which windows have closed.

A window closes when every source partition that holds events is past its end plus the allowed lateness. A step or chain
that falls silent is told as empty windows for a while.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Any, TypeVar

from msgspec import Struct

from schemas.violations import Violation
from streams.histogram import bucket_index
from streams.ids import derived_id
from streams.limits import Limits

T = TypeVar("T")
Series = tuple[str, str, str, str]
"""(tenant, chain, step, component)"""
WindowKey = tuple[str, str, str, str, int]
"""A series and the window's start in µs."""
OVERFLOW = "~overflow"
SAMPLE = 8
"""Affected executions that a window names: the smallest ids."""
SILENT_WINDOWS = 30
"""So many windows after its last event, a step or chain is still told as silent."""
ERROR_RATE, ERROR_RATE_MIN_COUNT = 0.05, 20


class Totals(Struct):
    """The sum of what was booked in one window of one series."""

    events: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    duration_sum_us: int = 0
    duration_max_us: int = 0
    durations: dict[int, int] = {}
    cpu_us: int = 0
    io_wait_us: int = 0
    memory_max_bytes: int = 0
    broker_count: int = 0
    broker_sum_us: int = 0
    broker_max_us: int = 0
    violations: dict[str, int] = {}
    affected_executions: int = 0
    affected: list[str] = []
    samples: dict[str, tuple[int, int, float]] = {}
    """Per resource: count, sum (in millionths for ratios), largest."""
    in_time: bool = False
    """An event came before the window could have closed."""
    late_us: int = 0
    """The largest watermark of a partition at which something was added after the window could have closed."""
    under_way: bool = False
    """Something was added by a record that the pipeline has not committed."""

    def add_duration(self, duration_us: int) -> None:
        """Add one duration."""
        self.duration_sum_us += duration_us
        self.duration_max_us = max(self.duration_max_us, duration_us)
        bucket = bucket_index(duration_us)
        self.durations[bucket] = self.durations.get(bucket, 0) + 1

    def add_affected(self, execution: str) -> None:
        """Add an execution whose first violation is here."""
        self.affected_executions += 1
        if execution not in self.affected:
            insort(self.affected, execution)
            del self.affected[SAMPLE:]

    def add_sample(self, name: str, value: float) -> None:
        """Add one sample of a resource."""
        count, total, largest = self.samples.get(name, (0, 0, value))
        self.samples[name] = (count + 1, total + round(value * unit(name)), max(largest, value))


    def add(self, other: "Totals") -> None:
        """Add what another source partition has in the same window."""
        for name in ADDITIVE:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in LARGEST:
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        _add_counts(self.durations, other.durations)
        _add_counts(self.violations, other.violations)
        self.affected = sorted({*self.affected, *other.affected})[:SAMPLE]
        for name, (count, total, largest) in other.samples.items():
            counted, sum_, before = self.samples.get(name, (0, 0, largest))
            self.samples[name] = (counted + count, sum_ + total, max(before, largest))
        self.in_time, self.under_way = self.in_time or other.in_time, self.under_way or other.under_way


def _add_counts(counts: dict[T, int], more: Mapping[T, int]) -> None:
    for key, count in more.items():
        counts[key] = counts.get(key, 0) + count


ADDITIVE = (
    "events", "started", "completed", "failed", "duration_sum_us", "cpu_us", "io_wait_us", "broker_count", "broker_sum_us",
    "affected_executions",
)  # fmt: skip
LARGEST = ("duration_max_us", "memory_max_bytes", "broker_max_us", "late_us")


def unit(resource: str) -> int:
    """Return by how much samples are multiplied before they are added, so that sums are of whole numbers."""
    return 1_000_000 if resource.endswith("_ratio") else 1


class Book:
    """The windows of all source partitions, one after the other."""

    def __init__(self, limits: Limits) -> None:
        self.windows: dict[WindowKey, Totals] = {}
        self._limits = limits

    def at(self, series: Series, time_us: int, watermark_us: int, under_way: bool) -> Totals:
        """Return the window of a series that holds `time_us`, to be added to at a partition's watermark."""
        start_us = time_us - time_us % self._limits.window_us
        totals = self.windows.get((*series, start_us))
        if totals is None:
            totals = self.windows[(*series, start_us)] = Totals()
        if start_us + self._limits.window_us + self._limits.lateness_us > watermark_us:
            totals.in_time = True
        else:
            totals.late_us = max(totals.late_us, watermark_us)
        totals.under_way = totals.under_way or under_way
        return totals

    def add(self, other: "Book") -> None:
        """Add the windows of another source partition."""
        for key, totals in other.windows.items():
            if key in self.windows:
                self.windows[key].add(totals)
            else:
                self.windows[key] = totals


class Truth(Struct):
    """The health windows as they must be published."""

    closed: dict[str, dict[str, Any]]
    """By window id: what every consumer must find."""
    open: set[str]
    """Windows that are not closed, or were added to too lately to have been published again."""
    series: set[Series]
    """All that was ever booked: a window without any count tells nothing wrong of one of these."""
    violations: list[Violation]
    """What the closed windows show as a whole."""
    revised: set[str]
    """Closed windows that were added to later: what they showed at first may not be so any more."""


def conclude(windows: Mapping[WindowKey, Totals], watermarks: Iterable[int], limits: Limits) -> Truth:
    """Return which windows are closed, at the committed watermarks of the partitions that hold events."""
    watermark_us = min(watermarks, default=0)
    truth = Truth({}, set(), {key[:4] for key in windows}, [], set())
    for key, totals in windows.items():
        ident = derived_id(*key)
        if totals.under_way or closing_us(key[4], limits) > watermark_us or _waits(totals, watermark_us, limits):
            truth.open.add(ident)
        elif is_empty(totals):
            truth.series.add(key[:4])
        else:
            truth.closed[ident] = window_record(key, totals, limits)
            truth.violations += of_window(ident, truth.closed[ident])
            if totals.late_us:
                truth.revised.add(ident)
    for key in silent(windows, limits):
        if closing_us(key[4], limits) <= watermark_us:
            truth.closed.setdefault(derived_id(*key), window_record(key, Totals(), limits))
    return truth


def closing_us(start_us: int, limits: Limits) -> int:
    """Return the watermark at which a window closes."""
    return start_us + limits.window_us + limits.lateness_us


def _waits(totals: Totals, watermark_us: int, limits: Limits) -> bool:
    """Tell whether a late addition may wait for its publication: that is when the next window closes.

    What is added at a partition's watermark is merged before the smallest watermark passes it. So it has been
    published when a window has closed between the two.
    """
    return totals.late_us > 0 and _last_closed(totals.late_us, limits) >= _last_closed(watermark_us, limits)


def _last_closed(watermark_us: int, limits: Limits) -> int:
    return (watermark_us - limits.lateness_us) // limits.window_us


def silent(windows: Mapping[WindowKey, Totals], limits: Limits) -> Iterator[WindowKey]:
    """Yield the windows in which a step or chain is told as silent.

    Only those behind a window that was filled in time: whether silence is told behind late events depends on when
    they came.
    """
    for (tenant, chain, step, component, start_us), totals in windows.items():
        if chain and totals.events and totals.in_time:
            for number in range(1, SILENT_WINDOWS + 1):
                key = (tenant, chain, step, component, start_us + number * limits.window_us)
                if key in windows:
                    break
                yield key


def is_empty(totals: Totals) -> bool:
    """Tell whether nothing was counted."""
    return not (totals.events or totals.completed or totals.failed or totals.violations)


def window_record(key: WindowKey, totals: Totals, limits: Limits) -> dict[str, Any]:
    """Return a window as it is published, without its revision, its evidence and the watermark at which it was said."""
    tenant, chain, step, component, start_us = key
    ended = totals.completed + totals.failed
    return {
        "kind": "component" if not chain else "step" if step else "chain",
        "tenant": tenant, "chain": chain, "step": step, "component": component,
        "window_start_unix_us": start_us, "window_end_unix_us": start_us + limits.window_us,
        "events": totals.events, "started": totals.started, "completed": totals.completed, "failed": totals.failed,
        "error_ratio": totals.failed / ended if ended else 0.0,
        "throughput_per_s": ended / (limits.window_us / 1e6),
        "mean_us": totals.duration_sum_us / ended if ended else 0.0,
        "p50_us": quantile(totals.durations, 0.5), "p95_us": quantile(totals.durations, 0.95),
        "p99_us": quantile(totals.durations, 0.99), "max_us": totals.duration_max_us,
        "durations": {str(bucket): count for bucket, count in sorted(totals.durations.items()) if bucket >= 0},
        "durations_zero": totals.durations.get(-1, 0),
        "violations": totals.violations, "affected_executions": totals.affected_executions,
        "affected_sample": totals.affected, "cpu_us": totals.cpu_us, "io_wait_us": totals.io_wait_us,
        "memory_max_bytes": totals.memory_max_bytes,
        "broker_mean_us": totals.broker_sum_us / totals.broker_count if totals.broker_count else 0.0,
        "broker_max_us": totals.broker_max_us,
        "resources": {
            name: {"count": count, "mean": total / count / unit(name), "max": largest}
            for name, (count, total, largest) in totals.samples.items()
        },
    }  # fmt: skip


def quantile(durations: Mapping[int, int], q: float) -> float:
    """Return the duration at rank ceil(q * count), read from the geometric middle of its bucket; 0 without any."""
    wanted = max(1, ceil(q * sum(durations.values())))
    for bucket, count in sorted(durations.items()):
        wanted -= count
        if wanted <= 0:
            return 0.0 if bucket < 0 else float(2 ** ((bucket + 0.5) / 16))
    return 0.0


def of_window(ident: str, window: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield what only a whole window shows: a step in which too many runs failed, a component whose clock was ahead."""
    ended = window["completed"] + window["failed"]
    kinds = []
    if window["kind"] == "step" and ended >= ERROR_RATE_MIN_COUNT and window["failed"] / ended > ERROR_RATE:
        kinds.append("error_rate.exceeded")
    if "clock.ahead" in window["violations"]:
        kinds.append("clock.ahead")
    for kind in kinds:
        yield Violation.model_validate(
            {
                "id": derived_id(kind, ident), "type": kind, "tenant": window["tenant"], "chain": window["chain"],
                "step": window["step"], "component": window["component"], "time_unix_us": window["window_end_unix_us"],
                "detail": "",
            }
        )  # fmt: skip
