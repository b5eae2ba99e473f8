"""Ids of executions and spans. An execution's id is also its W3C trace id."""

import os
from hashlib import blake2b
from random import Random

from flowchain.clock import Clock

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM_A = 0xFFF << 64
_RANDOM_B = (1 << 62) - 1
_HEX = frozenset("0123456789abcdef")


class Ids:
    """Makes ids out of a random source (seeded anew in a forked child) and a clock."""

    def __init__(self, clock: Clock, random: Random | None = None) -> None:
        self._clock = clock
        self._random = random or Random()
        if random is None and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._random.seed)

    def execution(self) -> str:
        """Return a UUID version 7 as 32 hex digits: ordered by the millisecond of its making."""
        milliseconds = self._clock.now_us() // 1000
        bits = self._random.getrandbits(76)
        return f"{milliseconds << 80 | _VERSION_7 | bits & _RANDOM_A | _VARIANT | bits & _RANDOM_B:032x}"

    def span(self) -> str:
        """Return 16 hex digits, never all zero (W3C forbids it)."""
        return f"{self._random.getrandbits(64) or 1:016x}"


def trace_id(execution: str) -> str:
    """Return the W3C trace id of an execution: itself where it is one, else a hash of it."""
    if len(execution) == 32 and _HEX.issuperset(execution) and execution.strip("0"):
        return execution
    return blake2b(execution.encode("utf-8", "replace"), digest_size=16).hexdigest()
