"""What one transaction adds to the health windows: the additive pieces that ingest hands to the analysis."""

from collections.abc import Callable, Iterable

from schemas.internal import Delta, EdgeDelta
from streams.histogram import bucket_index

SeriesKey = tuple[str, str, str, str]
"""(tenant, chain, step, component)"""
DeltaKey = tuple[str, str, str, str, int]
OVERFLOW = "~overflow"
"""Stands for every chain beyond the cardinality limit."""
SAMPLE = 8
"""Executions and users named per delta and per window."""


class Book:
    """The deltas of the current transaction, by (tenant, chain, step, component, window start in µs).

    `admit` is asked for every key that the transaction has not met yet and returns the key to book it under: this is
    where cardinality is limited.
    """

    def __init__(self, window_us: int, admit: Callable[[SeriesKey, int], SeriesKey]) -> None:
        self._window_us = window_us
        self._admit = admit
        self.deltas: dict[DeltaKey, Delta] = {}
        self.edges: dict[tuple[str, str, str, str, str, str, int], EdgeDelta] = {}

    def __len__(self) -> int:
        return len(self.deltas) + len(self.edges)

    def at(self, tenant: str, chain: str, step: str, component: str, time_us: int, offset: int) -> Delta:
        """Return the delta of a key's window that holds `time_us`, and note `offset` as evidence."""
        start = time_us - time_us % self._window_us
        key = (tenant, chain, step, component, start)
        delta = self.deltas.get(key)
        if delta is None:
            series = self._admit(key[:4], time_us)
            admitted = (*series, start)
            delta = self.deltas.get(admitted)
            if delta is None:
                delta = self.deltas[admitted] = Delta(*admitted, offset, offset)
        if offset > delta.last_offset:
            delta.last_offset = offset
        elif offset < delta.first_offset:
            delta.first_offset = offset
        return delta

    def edge(self, piece: EdgeDelta) -> None:
        """Add one observed edge; its window start may be any time in the window."""
        piece.window_start_unix_us -= piece.window_start_unix_us % self._window_us
        key = (
            piece.tenant, piece.chain, piece.kind, piece.source, piece.target, piece.topic, piece.window_start_unix_us
        )
        known = self.edges.get(key)
        if known is None:
            self.edges[key] = piece
            return
        known.count += piece.count
        known.failed += piece.failed
        known.latency_sum_us += piece.latency_sum_us
        known.latency_max_us = max(known.latency_max_us, piece.latency_max_us)


def add_duration(delta: Delta, duration_us: int) -> None:
    """Book one duration."""
    delta.duration_sum_us += duration_us
    if duration_us > delta.duration_max_us:
        delta.duration_max_us = duration_us
    index = bucket_index(duration_us)
    buckets = delta.durations
    buckets[index] = buckets.get(index, 0) + 1


def add_violation(delta: Delta, violation_type: str, time_us: int) -> None:
    """Book one violation."""
    delta.violations[violation_type] = delta.violations.get(violation_type, 0) + 1
    if not delta.first_violation_unix_us or time_us < delta.first_violation_unix_us:
        delta.first_violation_unix_us = time_us


def add_affected(delta: Delta, execution: str, user: str) -> None:
    """Book an execution whose first violation this is."""
    delta.affected_executions += 1
    keep_smallest(delta.affected, [execution])
    if user:
        keep_smallest(delta.users, [user])


def keep_smallest(sample: list[str], more: Iterable[str]) -> None:
    """Add to a sample, keeping the SAMPLE smallest: the same sample whatever the order and grouping of additions."""
    sample[:] = sorted({*sample, *more})[:SAMPLE]


def add_samples(delta: Delta, samples: Iterable[tuple[str, float]]) -> None:
    """Book resource samples."""
    for name, value in samples:
        count, total, largest = delta.samples.get(name, (0, 0, value))
        delta.samples[name] = (count + 1, total + round(value * sample_unit(name)), max(largest, value))


def sample_unit(name: str) -> int:
    """Return by how much samples are multiplied before they are summed: whole numbers add up the same in any order."""
    return 1_000_000 if name.endswith("_ratio") else 1
