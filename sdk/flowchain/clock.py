"""Time as a parameter: the host's clocks, or a simulation's."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where events get their times from. Called in the host's thread for every event: it must be cheap."""

    def now_us(self) -> int:
        """Return the event time: microseconds since 1970-01-01 UTC."""

    def elapsed_us(self) -> int:
        """Return a time that only moves forward, in microseconds since any moment: durations are its differences."""


class SystemClock:
    """The host's wall clock, and its monotonic clock for durations."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def elapsed_us(self) -> int:
        return time.perf_counter_ns() // 1000
