"""Brings the pieces of all source partitions into the order of event time.

A slice is complete once the smallest watermark over all source partitions has reached its end. Then, one after the
other, each is handed on as a moment: its pieces, summed per source partition. Between them come moments without pieces,
where something is due. So what the analysis sees, and when in event time it looks, is a function of the logs of the
source partitions: neither of how ingest cut them into transactions nor of how they interleave on the partials topic.

Nothing is too late here. A piece for a moment that has passed, which only a partition can bring that had held nothing
before, joins the next moment.
"""

from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush

import msgspec
from msgspec import Struct, field

from schemas.internal import Delta, EdgeDelta, Partial, Slice
from streams.ids import key_of, parts_of
from streams.limits import Limits
from streams.timers import NEVER_US
from streams.windows import merge_delta, merge_edge

_PROGRESS, _PIECE = "progress", "piece"
"""Kinds of saved entries; a key is (kind, ...)."""


class Piece(Struct):
    """What one source partition adds to one slice, summed per window and edge."""

    deltas: dict[str, Delta] = field(default_factory=dict)
    edges: dict[str, EdgeDelta] = field(default_factory=dict)

    def add(self, deltas: list[Delta], edges: list[EdgeDelta]) -> None:
        """Add what a transaction, or another slice, holds."""
        for delta in deltas:
            key = key_of(delta.tenant, delta.chain, delta.step, delta.component, delta.window_start_unix_us)
            known = self.deltas.setdefault(key, delta)
            if known is not delta:
                merge_delta(known, delta)
                known.first_offset = min(known.first_offset, delta.first_offset)
                known.last_offset = max(known.last_offset, delta.last_offset)
        for edge in edges:
            key = key_of(edge.tenant, edge.chain, edge.kind, edge.source, edge.target, edge.topic, edge.window_start_unix_us)
            held = self.edges.setdefault(key, edge)
            if held is not edge:
                merge_edge(held, edge)


class Additions(Struct):
    """A piece in a fixed order."""

    partition: int
    deltas: list[Delta]
    edges: list[EdgeDelta]


class Moment(Struct):
    """All source partitions have reached `end_us`, and this came since the last moment."""

    end_us: int
    source_topic: str
    additions: list[Additions]


class Progress(Struct):
    """How far event time is."""

    source_topic: str = ""
    watermarks: dict[int, int] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    """Source partitions that hold records and had not reported when a worker took its own over."""
    idle: list[int] = field(default_factory=list)
    """Source partitions that hold records, but no event among them."""
    passed_us: int = 0
    """End of the last moment."""


class SliceStage:
    """Holds the slices of each source partition until all have come as far (a `streams.stage.Stage`)."""

    def __init__(self, limits: Limits) -> None:
        self.reached: Counter[str] = Counter()
        """See Stage; slices_over_limit: slices that became one with the next because too many were held."""
        self._limits = limits
        self._progress = Progress()
        self._held: dict[int, dict[int, Piece]] = {}
        """End of a slice -> source partition -> piece."""
        self._ends: list[int] = []
        """A heap of the keys of `_held`."""
        self._count = 0
        self._dirty: set[tuple[str | int, ...]] = set()
        self._saved: set[str] = set()
        """Keys of the entries that stand somewhere: most pieces come and go between two calls of `changes`."""

    @property
    def watermark_us(self) -> int:
        """Event time that all source partitions have reached; 0 while one of them has not reported."""
        marks, idle = self._progress.watermarks, self._progress.idle
        if not marks or any(partition not in marks and partition not in idle for partition in self._progress.waiting):
            return 0
        return min(marks.values())

    @property
    def held(self) -> int:
        """Pieces that wait for other source partitions."""
        return self._count

    def take(self, partial: Partial) -> None:
        """Add what a transaction brought."""
        for piece in partial.slices:
            self._hold(piece, partial.source_partition)
        self._advance(partial)
        while self._count > self._limits.max_held and len(self._ends) > 1:
            self._merge_oldest()

    def next(self, due_us: int) -> Moment | None:
        """Return the next moment: a complete slice, or the first multiple of the slices' length from `due_us` on."""
        progress, length_us = self._progress, self._limits.slice_us
        due_us = max(due_us, progress.passed_us + 1)
        end_us = min(self._ends[0] if self._ends else NEVER_US, due_us + -due_us % length_us)
        if end_us > self.watermark_us:
            return None
        progress.passed_us = end_us
        self._dirty.add((_PROGRESS,))
        pieces = self._release(end_us) if self._ends and self._ends[0] == end_us else {}
        return Moment(end_us, progress.source_topic, [_in_order(partition, pieces[partition]) for partition in sorted(pieces)])

    def restore(self, key: str, value: bytes) -> None:
        """Take back one entry."""
        self._saved.add(key)
        kind, *rest = parts_of(key)
        if kind == _PROGRESS:
            self._progress = msgspec.msgpack.decode(value, type=Progress)
        elif kind == _PIECE:
            end_us, partition = map(int, rest)
            self._piece(end_us, partition).add(*msgspec.msgpack.decode(value, type=tuple[list[Delta], list[EdgeDelta]]))
        else:
            raise ValueError(f"no entry of the slices: {key!r}")

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the entries that changed since the last call."""
        for parts in sorted(self._dirty, key=lambda parts: tuple(map(str, parts))):
            key, value = key_of(*parts), self._entry(*parts)
            if value is not None:
                self._saved.add(key)
                yield key, value
            elif key in self._saved:
                self._saved.remove(key)
                yield key, None
        self._dirty.clear()

    def _entry(self, kind: str | int, *rest: str | int) -> bytes | None:
        if kind == _PROGRESS:
            return msgspec.msgpack.encode(self._progress)
        end_us, partition = map(int, rest)
        piece = self._held.get(end_us, {}).get(partition)
        return msgspec.msgpack.encode((list(piece.deltas.values()), list(piece.edges.values()))) if piece else None

    def _hold(self, piece: Slice, partition: int) -> None:
        end_us, passed_us = piece.end_unix_us, self._progress.passed_us
        if end_us <= passed_us:
            end_us = self._limits.slice_end_us(passed_us)
        self._dirty.add((_PIECE, end_us, partition))
        self._piece(end_us, partition).add(piece.deltas, piece.edges)

    def _piece(self, end_us: int, partition: int) -> Piece:
        pieces = self._held.get(end_us)
        if pieces is None:
            pieces = self._held[end_us] = {}
            heappush(self._ends, end_us)
        if partition not in pieces:
            pieces[partition] = Piece()
            self._count += 1
        return pieces[partition]

    def _release(self, end_us: int) -> dict[int, Piece]:
        heappop(self._ends)
        pieces = self._held.pop(end_us)
        self._count -= len(pieces)
        self._dirty |= {(_PIECE, end_us, partition) for partition in pieces}
        return pieces

    def _merge_oldest(self) -> None:
        self.reached["slices_over_limit"] += 1
        for partition, piece in self._release(self._ends[0]).items():
            self._dirty.add((_PIECE, self._ends[0], partition))
            self._piece(self._ends[0], partition).add(list(piece.deltas.values()), list(piece.edges.values()))

    def _advance(self, partial: Partial) -> None:
        progress = self._progress
        progress.source_topic = partial.source_topic
        if partial.waiting_for:
            progress.waiting = sorted({*progress.waiting, *partial.waiting_for})
        if partial.idle and partial.source_partition not in progress.idle:
            progress.idle.append(partial.source_partition)
        if partial.watermark_unix_us:
            known = progress.watermarks.get(partial.source_partition, 0)
            progress.watermarks[partial.source_partition] = max(known, partial.watermark_unix_us)
        self._dirty.add((_PROGRESS,))


def _in_order(partition: int, piece: Piece) -> Additions:
    return Additions(
        partition, [delta for _, delta in sorted(piece.deltas.items())], [edge for _, edge in sorted(piece.edges.items())]
    )
