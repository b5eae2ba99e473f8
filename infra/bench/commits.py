"""How fast a consumer group gets ahead, told by what it has committed.

The group's offsets are read every 50 ms, and the clock runs from the first time they move to the moment they reach the
end. So start-up and the join do not count, and what was applied but not committed does not either.
"""

import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer

from connectors.log import offsets_committed, offsets_held, reader
from connectors.settings import Settings
from infra.bench.processes import BenchError

POLL_S = 0.05
STALL_S = 60.0
"""A worker whose offsets have not moved for so long has failed; a start takes about 5 s."""


class Reading(NamedTuple):
    """So many messages were committed at a moment."""

    at_s: float
    messages: int


def throughput(readings: Iterable[Reading], total: int) -> float:
    """Return messages/s between the first reading above 0 and the first that has reached `total`."""
    first: Reading | None = None
    for reading in readings:
        if reading.messages and first is None:
            first = reading
        if first is not None and reading.messages >= total:
            if reading.messages == first.messages:
                raise BenchError(f"{total} messages are too few to measure: they were all committed at once")
            return (reading.messages - first.messages) / (reading.at_s - first.at_s)
    raise BenchError("the worker ended before it had read everything")


def committed(
    settings: Settings, topic: str, group: str, processes: Sequence[subprocess.Popen[bytes]]
) -> Iterator[Reading]:
    """Read the group's offsets as long as all processes run; what is appended to the topic meanwhile (ticks) is not counted."""
    ends = ends_of(settings, topic)
    watcher = watcher_of(settings, group)
    moved_s, before = time.monotonic(), 0
    try:
        while all(process.poll() is None for process in processes):
            offsets = offsets_committed(watcher, topic, ends)
            now_s = time.monotonic()
            done = sum(min(ends[partition], max(0, offset)) for partition, offset in offsets.items())
            yield Reading(now_s, done)
            if done > before:
                moved_s, before = now_s, done
            elif now_s - moved_s > STALL_S:
                raise BenchError(f"{group} has committed nothing for {STALL_S:.0f} s")
            time.sleep(POLL_S)
    finally:
        watcher.close()


def watcher_of(settings: Settings, group: str) -> Consumer:
    """Return a consumer that sees how far a group has committed, and the true end of the log.

    Never subscribed, so no member; uncommitted, so that it does not wait for the end of the running transaction.
    """
    return Consumer({**settings.kafka(), "group.id": group, "isolation.level": "read_uncommitted"})


def ends_of(settings: Settings, topic: str) -> dict[int, int]:
    """Return the offset after the last record of each partition."""
    consumer = reader(settings)
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        return {partition: offsets_held(consumer, topic, partition)[1] for partition in partitions}
    finally:
        consumer.close()
