"""What happens to events on their way: some come twice, out of order, late, wrongly dated, or are no events. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from random import Random

from infra.simulator.load import Stamped
from infra.simulator.poison import POISON
from streams.events import MAX_RECORD_BYTES
from streams.limits import Limits

SECOND = 1_000_000
SHARES: Mapping[str, float] = {
    "duplicate": 0.01,
    "reordered": 0.02,
    "late": 0.002,
    "too late": 0.0005,
    "clock ahead": 0.001,
    "clock behind": 0.001,
    "future": 0.0005,
    "poison": 0.001,
}
"""Share of the events that each happens to."""
_TIME = re.compile(rb'(?<="time_unix_us":)\d+')
_OVERSIZE = b'{"type":"step.started","attributes":{"a":"' + b"x" * MAX_RECORD_BYTES + b'"}}'
_BAD: tuple[bytes | None, ...] = (*POISON, None)

Sent = tuple[int, bytes, bytes | None]
"""(µs since 1970 at which it is sent, key, value)"""


class Disturber:
    """Decides by lot what happens to each event; `counts` says how often each did."""

    def __init__(self, random: Random, limits: Limits) -> None:
        self.counts: Counter[str] = Counter()
        self._random, self._limits = random, limits
        self._bounds = list(zip(SHARES, accumulate(SHARES.values()), strict=True))
        self._touched = sum(SHARES.values())
        self._ways: Mapping[str, Callable[[Stamped], Iterable[Sent]]] = {
            "duplicate": self._duplicate, "reordered": self._reordered, "late": self._late, "too late": self._too_late,
            "clock ahead": self._ahead, "clock behind": self._behind, "future": self._future, "poison": self._poison,
        }  # fmt: skip

    def send(self, event: Stamped) -> Iterable[Sent]:
        """Return what is sent for one event: itself, now or later, and what comes beside it."""
        draw = self._random.random()
        if draw >= self._touched:
            return (event,)
        kind = next(kind for kind, bound in self._bounds if draw < bound)
        self.counts[kind] += 1
        return self._ways[kind](event)

    def _duplicate(self, event: Stamped) -> Iterable[Sent]:
        return event, self._later(event, 0.0, 5.0)

    def _reordered(self, event: Stamped) -> Iterable[Sent]:
        return (self._later(event, 0.0, 0.5),)

    def _late(self, event: Stamped) -> Iterable[Sent]:
        return (self._later(event, 3.0, self._limits.grace_us / SECOND / 3),)

    def _too_late(self, event: Stamped) -> Iterable[Sent]:
        return event, self._dated(event, -self._limits.grace_us - 30 * SECOND)

    def _ahead(self, event: Stamped) -> Iterable[Sent]:
        return (self._dated(event, round(self._random.uniform(1.0, 8.0) * SECOND)),)

    def _behind(self, event: Stamped) -> Iterable[Sent]:
        return (self._dated(event, -round(self._random.uniform(1.0, 20.0) * SECOND)),)

    def _future(self, event: Stamped) -> Iterable[Sent]:
        return event, self._dated(event, self._limits.future_us + 3600 * SECOND)

    def _poison(self, event: Stamped) -> Iterable[Sent]:
        count = self.counts["poison"]
        value = _OVERSIZE if count % 500 == 0 else _BAD[count % len(_BAD)]
        return event, (event.time_us, b"poison-%d" % count, value)

    def _later(self, event: Stamped, at_least_s: float, at_most_s: float) -> Sent:
        delay_us = round(self._random.uniform(at_least_s, at_most_s) * SECOND)
        return event.time_us + delay_us, event.key, event.value

    def _dated(self, event: Stamped, by_us: int) -> Sent:
        """The same event with another time: its clock is wrong."""
        return event.time_us, event.key, _TIME.sub(b"%d" % (event.time_us + by_us), event.value, count=1)
