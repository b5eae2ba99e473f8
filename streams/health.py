"""Merges what ingest adds into health windows and closes them by event time.

A window closes when all source partitions have passed its end plus the allowed lateness (`streams/slices.py`).
It is kept for the grace period; late data changes it, and it is published again under a higher revision, at most once
per window length. No late piece is ever too late here: ingest refuses events that are older than the grace against
their own partition's watermark, and the smallest watermark is not ahead of any of them.
"""

from collections import Counter
from collections.abc import Iterator

import msgspec
from msgspec import Struct, field

from schemas.health import DependencyWindow, HealthWindow, OffsetRange
from schemas.internal import Delta, EdgeDelta
from schemas.operations import DataLoss
from schemas.violations import Violation
from streams.ids import derived_id, key_of, parts_of
from streams.limits import Limits
from streams.slices import Moment
from streams.timers import NEVER_US
from streams.windows import broken_promises, dependency_window, health_window, merge_delta, merge_edge

ChainKey = tuple[str, str]
"""(tenant, chain)"""
StepKey = tuple[str, str]
"""(step, component)"""
_PROGRESS, _SEEN, _WINDOW = "progress", "seen", "window"
"""Kinds of saved entries; a key is (kind, ...)."""

OPEN = -1
SILENT_WINDOWS = 30
"""A step or chain that has gone silent is reported with empty windows this many times."""


class MergedSeries(Struct):
    """A series in one window: the sum of its deltas, and where they came from."""

    total: Delta
    sources: dict[int, tuple[int, int]]
    """Source partition -> (first offset, last offset)."""
    revision: int = OPEN
    changed: bool = True
    told: list[str] = field(default_factory=list)
    """Types of the violations of the whole window that were published: each is said once, as it first was."""


class MergedEdge(Struct):
    """An edge in one window."""

    total: EdgeDelta
    revision: int = OPEN
    changed: bool = True


class ChainWindow(Struct):
    """One chain of a tenant in one window: the unit in which state is saved."""

    series: dict[str, MergedSeries] = field(default_factory=dict)
    edges: dict[str, MergedEdge] = field(default_factory=dict)


class Progress(Struct):
    """Which windows are over."""

    next_start_us: int = 0
    """The first window that has not closed."""
    forgotten_us: int = -1
    """Windows that start here or earlier are not kept any more."""


class Closed(Struct):
    """What one moment led to."""

    watermark_us: int
    source_topic: str
    windows: list[HealthWindow] = field(default_factory=list)
    dependencies: list[DependencyWindow] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    losses: list[DataLoss] = field(default_factory=list)


class HealthStage:
    """ChainHealthMonitor: the health windows of the tenants of one partition (a `streams.stage.Stage`)."""

    def __init__(self, limits: Limits) -> None:
        self.reached: Counter[str] = Counter()
        self._limits = limits
        self._progress = Progress()
        self._windows: dict[int, dict[ChainKey, ChainWindow]] = {}
        """By their start, those that are kept."""
        self._changed: set[tuple[int, ChainKey]] = set()
        """Windows with something that has not been published."""
        self._seen: dict[ChainKey, dict[StepKey, int]] = {}
        """Start of the last window in which a step or chain had events."""
        self._dirty: set[tuple[str | int, ...]] = set()

    # -- the stage ------------------------------------------------------------------------------------------------

    def apply(self, moment: Moment) -> Closed:
        """Merge what came until a moment; return the windows that closed or were revised."""
        closed = Closed(moment.end_us, moment.source_topic)
        for added in moment.additions:
            for delta in added.deltas:
                if delta.window_start_unix_us > self._progress.forgotten_us:
                    self._add(delta, added.partition)
                else:
                    closed.losses.append(_loss(delta, added.partition, closed))
            for edge in added.edges:
                # one that is only declared is of no window
                if edge.window_start_unix_us > self._progress.forgotten_us and edge.count:
                    self._add_edge(edge)
        self._close(closed)
        return closed

    @property
    def due_us(self) -> int:
        """Event time at which the next window closes."""
        if not self._windows and not self._seen:
            return NEVER_US
        return self._progress.next_start_us + self._limits.window_us + self._limits.lateness_us

    @property
    def open_windows(self) -> int:
        """Series in windows that have not closed."""
        open_ = (held for start_us, held in self._windows.items() if start_us >= self._progress.next_start_us)
        return sum(len(window.series) for held in open_ for window in held.values())

    def restore(self, key: str, value: bytes) -> None:
        """Take back one entry."""
        kind, *rest = parts_of(key)
        if kind == _PROGRESS:
            self._progress = msgspec.json.decode(value, type=Progress)
        elif kind == _SEEN:
            for (tenant, chain, step, component), start_us in msgspec.json.decode(value):
                self._seen.setdefault((tenant, chain), {})[step, component] = start_us
        elif kind == _WINDOW:
            start, tenant, chain = rest
            window = msgspec.json.decode(value, type=ChainWindow)
            self._windows.setdefault(int(start), {})[tenant, chain] = window
            if any(series.changed for series in window.series.values()) or any(edge.changed for edge in window.edges.values()):
                self._changed.add((int(start), (tenant, chain)))
        else:
            raise ValueError(f"no entry of the health stage: {key!r}")

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the entries that changed since the last call."""
        for parts in sorted(self._dirty, key=lambda parts: tuple(map(str, parts))):
            yield key_of(*parts), self._entry(*parts)
        self._dirty.clear()

    def _entry(self, kind: str | int, *rest: str | int) -> bytes | None:
        if kind == _PROGRESS:
            return msgspec.json.encode(self._progress)
        *_, tenant, chain = map(str, rest)
        if kind == _SEEN:
            seen = self._seen.get((tenant, chain))
            return msgspec.json.encode([((tenant, chain, *step), start) for step, start in seen.items()]) if seen else None
        window = self._windows.get(int(rest[0]), {}).get((tenant, chain))
        return None if window is None else msgspec.json.encode(window)

    # -- merging --------------------------------------------------------------------------------------------------

    def _add(self, delta: Delta, partition: int) -> None:
        window = self._window(delta.window_start_unix_us, delta.tenant, delta.chain)
        name = key_of(delta.step, delta.component)
        merged = window.series.get(name)
        if merged is None:
            # A window that has closed without it may have been told as silent: this corrects that.
            closed = delta.window_start_unix_us < self._progress.next_start_us
            sources = {partition: (delta.first_offset, delta.last_offset)}
            window.series[name] = MergedSeries(delta, sources, 0 if closed else OPEN)
        else:
            merge_delta(merged.total, delta)
            first, last = merged.sources.get(partition, (delta.first_offset, delta.last_offset))
            merged.sources[partition] = (min(first, delta.first_offset), max(last, delta.last_offset))
            merged.changed = True

    def _add_edge(self, edge: EdgeDelta) -> None:
        window = self._window(edge.window_start_unix_us, edge.tenant, edge.chain)
        name = key_of(edge.kind, edge.source, edge.target, edge.topic)
        merged = window.edges.get(name)
        if merged is None:
            window.edges[name] = MergedEdge(edge)
        else:
            merge_edge(merged.total, edge)
            merged.changed = True

    def _window(self, start_us: int, tenant: str, chain: str) -> ChainWindow:
        self._dirty.add((_WINDOW, start_us, tenant, chain))
        self._changed.add((start_us, (tenant, chain)))
        return self._windows.setdefault(start_us, {}).setdefault((tenant, chain), ChainWindow())

    # -- closing --------------------------------------------------------------------------------------------------

    def _close(self, closed: Closed) -> None:
        limits = self._limits
        passed_us = closed.watermark_us - limits.lateness_us - limits.window_us
        next_start_us = passed_us - passed_us % limits.window_us + limits.window_us
        if next_start_us <= self._progress.next_start_us:
            return
        before_us = self._progress.next_start_us
        self._progress.next_start_us = next_start_us
        self._dirty.add((_PROGRESS,))
        due = sorted(key for key in self._changed if key[0] < next_start_us)
        self._changed.difference_update(due)
        for start_us, chain in due:
            self._emit(start_us, chain, before_us, closed)
        self._end_silence(before_us, next_start_us, closed)
        self._purge(closed.watermark_us)
        closed.windows.sort(key=lambda w: (w.window_start_unix_us, w.tenant, w.chain, w.step, w.component))

    def _emit(self, start_us: int, chain: ChainKey, before_us: int, closed: Closed) -> None:
        window = self._windows[start_us][chain]
        self._dirty.add((_WINDOW, start_us, *chain))
        for merged in window.series.values():
            if merged.changed:
                merged.revision, merged.changed = merged.revision + 1, False
                self._emit_series(merged, before_us, closed)
        for edge in window.edges.values():
            if edge.changed:
                edge.revision, edge.changed = edge.revision + 1, False
                closed.dependencies.append(dependency_window(edge.total, edge.revision, self._limits.window_us))

    def _emit_series(self, merged: MergedSeries, before_us: int, closed: Closed) -> None:
        total = merged.total
        chain, step = (total.tenant, total.chain), (total.step, total.component)
        sources = [
            OffsetRange(topic=closed.source_topic, partition=p, first_offset=first, last_offset=last)
            for p, (first, last) in sorted(merged.sources.items())
        ]
        window = health_window(total, merged.revision, sources, closed.watermark_us, self._limits.window_us)
        closed.windows.append(window)
        if total.chain and total.events:
            seen = self._seen.setdefault(chain, {})
            if step in seen:
                self._emit_silence(chain, step, before_us, total.window_start_unix_us, closed)
            seen[step] = max(total.window_start_unix_us, seen.get(step, 0))
            self._dirty.add((_SEEN, *chain))
        for found in broken_promises(window):
            if found.type not in merged.told:
                merged.told.append(found.type)
                closed.violations.append(found)

    def _emit_silence(self, chain: ChainKey, step: StepKey, before_us: int, until_us: int, closed: Closed) -> None:
        """Publish empty windows, from `before_us` to before `until_us`, for what had events lately and then had none."""
        seen_us = self._seen[chain][step]
        length = self._limits.window_us
        end_us = min(until_us, seen_us + (SILENT_WINDOWS + 1) * length)
        for start_us in range(max(before_us, seen_us + length), end_us, length):
            held = self._windows.get(start_us, {}).get(chain)
            if held is None or key_of(*step) not in held.series:
                empty = Delta(*chain, *step, start_us, 0, 0)
                closed.windows.append(health_window(empty, 0, [], closed.watermark_us, length))

    def _end_silence(self, before_us: int, next_start_us: int, closed: Closed) -> None:
        """Publish the silence up to the last closed window, and forget what has been silent for long."""
        for chain, steps in sorted(self._seen.items()):
            for step, seen_us in sorted(steps.items()):
                self._emit_silence(chain, step, before_us, next_start_us, closed)
                if seen_us + SILENT_WINDOWS * self._limits.window_us < next_start_us:
                    del steps[step]
                    self._dirty.add((_SEEN, *chain))
            if not steps:
                del self._seen[chain]

    def _purge(self, watermark_us: int) -> None:
        limits = self._limits
        keep_us = watermark_us - limits.grace_us - limits.lateness_us - limits.window_us
        self._progress.forgotten_us = max(self._progress.forgotten_us, keep_us)
        for start_us in [start_us for start_us in self._windows if start_us <= keep_us]:
            self._dirty |= {(_WINDOW, start_us, *chain) for chain in self._windows.pop(start_us)}


def _loss(delta: Delta, partition: int, closed: Closed) -> DataLoss:
    """Return the report of events that belong to a window that was forgotten.

    Only a source partition whose first events are older than what all others have left behind can hold such ones.
    """
    where = (closed.source_topic, partition, delta.first_offset, delta.last_offset)
    series = (delta.tenant, delta.chain, delta.step, delta.component)
    return DataLoss(
        id=derived_id("window-forgotten", *where, *series, delta.window_start_unix_us), topic=closed.source_topic,
        partition=partition, first_offset=delta.first_offset, last_offset=delta.last_offset,
        detected_unix_us=closed.watermark_us,
        reason=f"{delta.events} events of {'/'.join(filter(None, series))} came after their window was forgotten",
    )  # fmt: skip
