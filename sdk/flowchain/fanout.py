"""Several channels at once, each with a publisher of its own: one that fails or is slow takes nothing from another."""

from collections import Counter
from collections.abc import Mapping

from flowchain.counts import Counts
from flowchain.publisher import Publisher, Stats


class Fanout:
    """Gives every event to every publisher. It looks like a Publisher to whoever uses one."""

    def __init__(self, publishers: Mapping[str, Publisher]) -> None:
        self.counts = Counts()
        """Of events that could not be made; each publisher counts its own."""
        self._publishers = dict(publishers)
        self._all = tuple(self._publishers.values())

    def publish(self, key: bytes, value: bytes) -> None:
        """Queue one event for every channel."""
        for publisher in self._all:
            publisher.publish(key, value)

    def start(self) -> None:
        """Start the threads."""
        for publisher in self._all:
            publisher.start()

    def stats(self) -> Stats:
        """Return the sums, and each channel's own counts under its name."""
        channels = {name: publisher.stats() for name, publisher in self._publishers.items()}
        dropped = Counter(self.counts.snapshot()[1])
        for stats in channels.values():
            dropped.update(stats.dropped)
        return Stats(
            sum(stats.published for stats in channels.values()),
            sum(stats.delivered for stats in channels.values()),
            sum(stats.queued for stats in channels.values()),
            dict(dropped),
            channels,
        )

    def flush(self, timeout_s: float) -> bool:
        """Wait until every channel has settled every event so far; False if it took longer than `timeout_s`."""
        flushed = [publisher.flush(timeout_s) for publisher in self._all]
        return all(flushed)

    def close(self, timeout_s: float) -> bool:
        """Close all at the same time, within `timeout_s`; False if any gave up events."""
        waits = [publisher.ask_to_stop(timeout_s) for publisher in self._all]
        closed = [wait() for wait in waits]
        return all(closed)
