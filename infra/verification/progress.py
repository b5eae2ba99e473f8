"""How far a run has come: what is committed, and whether anything waits to be worked on."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from connectors.lag import GROUPS
from connectors.log import TIMEOUT_S, offsets_committed, offsets_held, partitions_held, reader
from connectors.settings import Settings
from schemas import topics
from schemas.topics import Topic

POLL_S = 0.5
COUNTED = 1_000
"""Fewer offsets than this are looked at one by one: markers of transactions and clock ticks are nothing to wait for."""
OUTPUTS = (
    topics.TRACES, topics.VIOLATIONS, topics.HEALTH, topics.DEPENDENCIES, topics.ANOMALIES, topics.INCIDENTS, topics.ALERTS,
    topics.LIMITS, topics.SLO,
)  # fmt: skip


class NotCaughtUp(Exception):
    """Something is still to be worked on, in one sentence."""


@dataclass(frozen=True)
class Snapshot:
    """Where everything stood: offsets per partition."""

    committed: Mapping[int, int]
    """Of the events topic, by ingest: all that follows from what is before has been published."""
    outputs: Mapping[str, dict[int, int]]
    """Ends of what the workers write, by topic name of the catalogue."""
    events: Mapping[int, tuple[int, int]]
    """First and end of what the events topic holds, taken after the outputs: so it explains all of them."""


def snapshot(settings: Settings, wait_s: float) -> Snapshot:
    """Return where everything stands once nothing waits any more; raises NotCaughtUp after `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    _wait(settings, "ingest", (topics.EVENTS,), deadline)
    committed = positions(settings, "ingest", topics.EVENTS)
    time.sleep(POLL_S)  # a commit is seen before the markers that make its records readable
    _wait(settings, "analysis", (topics.PARTIALS,), deadline)
    time.sleep(POLL_S)
    outputs = {topic.name: _ends(settings, topic) for topic in OUTPUTS}
    for group in ("sinks-clickhouse", "sinks-postgres"):
        _wait(settings, group, GROUPS[group], deadline)
    return Snapshot(committed, outputs, partitions_held(settings, settings.topic(topics.EVENTS.name)))


def positions(settings: Settings, group: str, topic: Topic) -> dict[int, int]:
    """Return the offset at which a group goes on, per partition; where it has never committed, the first one."""
    name = settings.topic(topic.name)
    consumer = reader(settings, **{"group.id": settings.group(group)})
    try:
        partitions = consumer.list_topics(name, timeout=TIMEOUT_S).topics[name].partitions
        committed = offsets_committed(consumer, name, partitions)
        return {partition: max(offset, offsets_held(consumer, name, partition)[0]) for partition, offset in committed.items()}
    finally:
        consumer.close()


def _wait(settings: Settings, group: str, read: tuple[Topic, ...], deadline: float) -> None:
    """Wait until a group is past where its topics end now."""
    for topic in read:
        ends = _ends(settings, topic)
        while (behind := _behind(settings, topic, positions(settings, group, topic), ends)) > 0:
            if time.monotonic() > deadline:
                raise NotCaughtUp(
                    f"the run has not caught up: {group} has {behind:,} records of {settings.topic(topic.name)} before it; "
                    "`--wait SECONDS` gives it time"
                )
            time.sleep(POLL_S)


def _ends(settings: Settings, topic: Topic) -> dict[int, int]:
    return {p: end for p, (_, end) in partitions_held(settings, settings.topic(topic.name)).items()}


def _behind(settings: Settings, topic: Topic, at: Mapping[int, int], ends: Mapping[int, int]) -> int:
    """Return how many records are between positions and ends."""
    gaps = {p: end - at[p] for p, end in ends.items() if end > at[p]}
    if sum(gaps.values()) > COUNTED:
        return sum(gaps.values())
    return sum(not _is_tick(message.headers()) for message in _between(settings, settings.topic(topic.name), gaps, at, ends))


def _between(
    settings: Settings, name: str, gaps: Iterable[int], at: Mapping[int, int], ends: Mapping[int, int]
) -> Iterator[Message]:
    """Yield the records between positions and ends of the partitions that have such a gap."""
    left = set(gaps)
    consumer = reader(settings)
    consumer.assign([TopicPartition(name, p, at[p]) for p in left])
    try:
        while left:
            message = consumer.poll(1.0)
            if message is None:
                continue
            partition, error = message.partition() or 0, message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if error is not None or (message.offset() or 0) >= ends[partition]:
                left.discard(partition)
            elif partition in left:
                yield message
    finally:
        consumer.close()


def _is_tick(headers: object) -> bool:
    return isinstance(headers, list) and any(name == "flowchain-tick" for name, _ in headers)
