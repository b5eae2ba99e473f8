"""Fans records out to many clients: one ring per stream, and each client is only a place in it.

Nothing is queued per client, so memory does not grow with them, and a slow one never slows another: when the ring has
gone over its place it is told the gap and goes on at the oldest record that is still there. Belongs to the event loop.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from connectors.http.live.frames import STREAMS, Facts, Frame, Position

Matches = Callable[[Facts], bool]


class Ring:
    """The last records of one stream, and who waits for the next."""

    def __init__(self, size: int) -> None:
        self._slots: list[Frame | None] = [None] * size
        self.next = 0
        """Number of the next record."""
        self.floor: dict[int, int] = {}
        """Per partition the offset from which on every record is here."""
        self.waiting: set[asyncio.Event] = set()

    @property
    def oldest(self) -> int:
        """Number of the oldest record that is there."""
        return max(0, self.next - len(self._slots))

    def put(self, frames: Iterable[Frame]) -> None:
        """Add records and wake whoever waits."""
        for frame in frames:
            slot = self.next % len(self._slots)
            gone = self._slots[slot]
            if gone is not None:
                self.floor[gone.partition] = gone.offset + 1
            self._slots[slot] = frame
            self.next += 1
        for event in self.waiting:
            event.set()

    def since(self, number: int) -> list[Frame]:
        """Return the records from a number on, which must not be older than `oldest`."""
        size = len(self._slots)
        return [found for n in range(number, self.next) if (found := self._slots[n % size]) is not None]

    def reaches(self, position: Position) -> bool:
        """Whether nothing behind a position is missing here; of offsets alone nobody can tell: marks of transactions have some too."""
        return all(position.get(partition, -1) + 1 >= offset for partition, offset in self.floor.items())


class Hub:
    """All rings of a process."""

    def __init__(self, size: int) -> None:
        self.rings = {name: Ring(size) for name in STREAMS}
        self.clients = 0

    def begin(self, floors: Mapping[str, Mapping[int, int]]) -> None:
        """Note from which offset on the records of each stream's partitions will come."""
        for name, floor in floors.items():
            self.rings[name].floor = dict(floor)

    def publish(self, frames: dict[str, list[Frame]]) -> None:
        """Add records by stream."""
        for name, some in frames.items():
            self.rings[name].put(some)


@dataclass(frozen=True, slots=True)
class Gap:
    """Some records of a stream are not sent: the client was too slow, or was away for too long."""

    stream: str


class Subscription:
    """One client's place in some streams; use it as a context, so that the hub forgets it."""

    def __init__(self, hub: Hub, streams: Iterable[str], matches: Matches) -> None:
        self._rings = {name: hub.rings[name] for name in streams}
        self._places = {name: ring.next for name, ring in self._rings.items()}
        self._seen: dict[str, Position] = {}
        self._matches = matches
        self._wake = asyncio.Event()

    def __enter__(self) -> "Subscription":
        for ring in self._rings.values():
            ring.waiting.add(self._wake)
        return self

    def __exit__(self, *_: object) -> None:
        for ring in self._rings.values():
            ring.waiting.discard(self._wake)

    def resume(self, stream: str, position: Position) -> None:
        """Go on behind a position, as far as the ring reaches back."""
        self._places[stream] = self._rings[stream].oldest
        self._seen[stream] = position
        self._wake.set()

    async def next(self) -> list[Frame | Gap]:
        """Wait for records; return those that match, each stream in its order, and gaps where the client was too slow."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            found: list[Frame | Gap] = []
            for name, ring in self._rings.items():
                found += self._take(name, ring)
            if found:
                return found

    def _take(self, name: str, ring: Ring) -> list[Frame | Gap]:
        found: list[Frame | Gap] = []
        if self._places[name] < ring.oldest:
            self._places[name] = ring.oldest
            found.append(Gap(name))
        seen = self._seen.get(name)
        for frame in ring.since(self._places[name]):
            if (seen is None or frame.offset > seen.get(frame.partition, -1)) and self._matches(frame.facts):
                found.append(frame)
        self._places[name] = ring.next
        return found
