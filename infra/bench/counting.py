"""Counts what a baseline reads, from the end of its warm-up on; knows nothing but the standard library."""

import json
from pathlib import Path

WARM_UP_S, WARM_UP_SHARE = 1.0, 0.1
"""The warm-up lasts a second, or until this share of the events is read."""


class Count:
    """Counts from the end of the warm-up on; `finished` once the time is up or all events are read."""

    def __init__(self, seconds: float, events: int) -> None:
        self._seconds = seconds
        self._events = events
        self._read = 0
        self._begin_s = 0.0
        self._read_before = 0

    def finished(self, now_s: float, events: int = 1) -> bool:
        """Count so many events; tell whether they were the last."""
        self._read += events
        self._begin_s = self._begin_s or now_s + WARM_UP_S
        if now_s < self._begin_s:
            self._read_before = self._read
            if self._read >= self._events * WARM_UP_SHARE:
                self._begin_s = now_s
        return now_s >= self._begin_s + self._seconds or self._read >= self._events

    def report(self, now_s: float) -> dict[str, float]:
        """Return what was read since the warm-up, and how long it took."""
        return {"events": self._read - self._read_before, "seconds": now_s - self._begin_s}

    def write(self, path: Path, now_s: float) -> None:
        """Write the report; it is complete from the moment it is there."""
        partial = path.with_suffix(".tmp")
        partial.write_text(json.dumps(self.report(now_s)))
        partial.replace(path)
