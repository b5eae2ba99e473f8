"""Where a simulation's events go: a publisher, or a list."""

from typing import Protocol

from flowchain import Counts, Outlet, Stats


class Sink(Outlet, Protocol):
    """What a simulation wants of a publisher; `flowchain.Publisher` is one."""

    def wait_for_room(self, events: int, timeout_s: float) -> bool:
        """Wait until fewer than so many events are queued."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is delivered or dropped."""

    def stats(self) -> Stats:
        """Return what became of the events."""


class Recorder:
    """Keeps the events in a list, in the order they were emitted, without a thread."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.events: list[tuple[bytes, bytes]] = []

    def publish(self, key: bytes, value: bytes) -> None:
        """Keep one event."""
        self.events.append((key, value))

    def wait_for_room(self, events: int, timeout_s: float) -> bool:
        """There is always room."""
        return True

    def flush(self, timeout_s: float) -> bool:
        """Nothing is ever on its way."""
        return True

    def stats(self) -> Stats:
        """Everything has arrived, but what could not be encoded."""
        _, dropped = self.counts.snapshot()
        return Stats(len(self.events), len(self.events), 0, dropped)
