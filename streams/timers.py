"""Event-time timers in buckets: many are set, few matter when they fire, so setting one must cost next to nothing."""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

GRANULARITY_US = 50_000
NEVER_US = 2**61
"""Later than any time, and small enough that adding to it stays a machine word."""

K = TypeVar("K")


class Timers(Generic[K]):
    """Keys that want to be looked at once event time has reached a moment, rounded up to 50 ms."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[K]] = {}
        self._order: list[int] = []
        self._count = 0
        self.next_us = NEVER_US
        """Event time of the next bucket; compare before calling `due`."""

    def at(self, time_us: int, key: K) -> None:
        """Have `key` come up at `time_us`; a key may be set more than once and comes up each time."""
        self._count += 1
        bucket = -(-time_us // GRANULARITY_US)
        keys = self._buckets.get(bucket)
        if keys is None:
            self._buckets[bucket] = [key]
            heappush(self._order, bucket)
            self.next_us = self._order[0] * GRANULARITY_US
        else:
            keys.append(key)

    def due(self, now_us: int) -> Iterator[K]:
        """Yield the keys whose time has come, oldest bucket first; those set meanwhile for the past come up too."""
        while self._order and self._order[0] * GRANULARITY_US <= now_us:
            keys = self._buckets.pop(heappop(self._order))
            self._count -= len(keys)
            self.next_us = self._order[0] * GRANULARITY_US if self._order else NEVER_US
            yield from keys

    def __len__(self) -> int:
        return self._count

    def keep(self, wanted: Callable[[K], bool]) -> None:
        """Drop the keys that need not come up any more: until their time they would stay in memory."""
        kept = {bucket: [key for key in keys if wanted(key)] for bucket, keys in self._buckets.items()}
        self._buckets = {bucket: keys for bucket, keys in kept.items() if keys}
        self._order = sorted(self._buckets)
        self._count = sum(map(len, self._buckets.values()))
        self.next_us = self._order[0] * GRANULARITY_US if self._order else NEVER_US
