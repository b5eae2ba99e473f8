"""Fills an events topic before a measurement, one event per message or several in an array."""

from collections.abc import Callable, Iterable, Iterator
from uuid import uuid4
from zlib import crc32

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from connectors.settings import Settings
from infra.bench.processes import BenchError
from schemas.topics import CATALOGUE, EVENTS

TELL_EVERY = 10_000
Event = tuple[bytes, bytes]
"""(key, value)"""
Message = tuple[bytes, bytes, int, int]
"""(key, value, partition, events in it)"""
Tell = Callable[[str, int, int], None]
"""Told (stage, done, of how many) now and then."""


def pack(events: Iterable[Event], per_message: int, partitions: int) -> Iterator[Message]:
    """Yield messages of so many events; all events of an execution go to one partition, in order.

    An array holds events of several executions of one partition: the way a producer that batches by partition would do it.
    """
    if per_message == 1:
        yield from ((key, value, crc32(key) % partitions, 1) for key, value in events)
        return
    waiting: list[list[Event]] = [[] for _ in range(partitions)]
    for event in events:
        partition = crc32(event[0]) % partitions
        waiting[partition].append(event)
        if len(waiting[partition]) == per_message:
            yield _array(waiting[partition], partition)
            waiting[partition] = []
    yield from (_array(held, partition) for partition, held in enumerate(waiting) if held)


def _array(events: list[Event], partition: int) -> Message:
    """Return a message under the key of its first event: Quix Streams counts by key."""
    return events[0][0], b"[%b]" % b",".join(value for _, value in events), partition, len(events)


def preload(settings: Settings, messages: Iterable[Message], events: int, tell: Tell) -> int:
    """Put the messages on the events topic and wait until the broker has them all; return how many there were."""
    producer = bulk_producer(settings)
    topic = settings.topic(EVENTS.name)
    number = done = told = 0
    for key, value, partition, size in messages:
        put(producer, topic, value, key, partition)
        number, done = number + 1, done + size
        if done - told >= TELL_EVERY:
            tell("load", done, events)
            told = done
    if left := producer.flush(60):
        raise BenchError(f"the brokers did not take {left} of {number} messages within a minute")
    tell("load", events, events)
    return number


def bulk_producer(settings: Settings) -> Producer:
    """Return a producer for throughput."""
    return Producer(
        {
            **settings.kafka(), "compression.type": "lz4", "linger.ms": 20, "enable.idempotence": True,
            "queue.buffering.max.messages": 500_000, "queue.buffering.max.kbytes": 262_144,
        }
    )  # fmt: skip


def put(producer: Producer, topic: str, value: bytes, key: bytes | None, partition: int) -> None:
    """Produce one message, waiting while the queue is full."""
    while True:
        try:
            producer.produce(topic, value, key, partition)
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.05)


def fresh_prefix() -> str:
    """Return a topic prefix that nobody uses."""
    return f"bench-{uuid4().hex[:8]}."


def remove_topics(settings: Settings) -> None:
    """Delete every topic under the prefix of the settings; for a cluster that outlives the measurement."""
    if not settings.topic_prefix:
        raise ValueError("only topics under a prefix are removed")
    admin = AdminClient(settings.kafka())  # lives until the last of its answers
    for future in admin.delete_topics([settings.topic(topic.name) for topic in CATALOGUE]).values():
        try:
            future.result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
