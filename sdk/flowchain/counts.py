"""What the SDK could not do: counted per reason, told once per reason through logging, never raised."""

import logging
from collections import Counter
from threading import RLock

logger = logging.getLogger("flowchain")


class Counts:
    """Delivered and dropped events. Safe to use from any thread."""

    def __init__(self) -> None:
        # Reentrant, as every lock that the host's thread takes: a signal handler or a finalizer may report in the middle of it.
        self._lock = RLock()
        self._told: set[str] = set()
        self._dropped: Counter[str] = Counter()
        self._delivered = 0

    def delivered(self, events: int) -> None:
        """Add events that the channel has confirmed."""
        with self._lock:
            self._delivered += events

    def drop(self, reason: str, error: object = "", events: int = 1) -> None:
        """Add events lost for `reason`, and log the first of that reason with its error."""
        if events:
            with self._lock:
                self._dropped[reason] += events
            self.tell(reason, error)

    def tell(self, reason: str, error: object = "") -> None:
        """Log that something went wrong, the first time only."""
        if reason not in self._told:
            self._told.add(reason)
            logger.warning(
                "flowchain: %s %s (said once; flowchain.stats() counts lost events)", reason, error
            )

    def snapshot(self) -> tuple[int, dict[str, int]]:
        """Return (delivered, dropped per reason)."""
        with self._lock:
            return self._delivered, dict(self._dropped)

    def after_fork(self) -> None:
        """Begin anew in a forked child; the parent's lock may be held for ever there."""
        self._lock = RLock()
        self._dropped = Counter()
        self._delivered = 0
