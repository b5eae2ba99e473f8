"""Reading stretches of Kafka's log: changelogs to their end, and the tail of a partition."""

from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from connectors.settings import Settings

TIMEOUT_S = 30.0
BATCH_S = 0.1
"""`consume` waits so long for a full batch, also at the end of a partition."""


def reader(settings: Settings, **config: Any) -> Consumer:
    """Return a consumer without a group that reads committed records only and tells the end of a partition."""
    return Consumer(
        {
            **settings.kafka(),
            "group.id": settings.group("reader"),
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 5,
            **config,
        }
    )


def _is_settling(error: BaseException) -> bool:
    """Whether a topic has just been made, or a broker started: partitions have no leader, groups no coordinator yet."""
    return isinstance(error, KafkaException) and error.args[0].code() in (
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    )


_settled = retry(retry=retry_if_exception(_is_settling), stop=stop_after_delay(5), wait=wait_fixed(0.1), reraise=True)


@_settled
def offsets_committed(consumer: Consumer, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return {partition: offset at which the consumer's group goes on}, below 0 where it has committed none.

    Not by the admin client: its query of a group's offsets can crash while a broker is starting.
    """
    wanted = [TopicPartition(topic, partition) for partition in partitions]
    return {found.partition: found.offset for found in consumer.committed(wanted, timeout=TIMEOUT_S)}


@_settled
def offsets_held(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """Return (first offset that is still there, offset after the last)."""
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
    return low, high


def read_range(settings: Settings, topic: str, partition: int, start: int, stop: int | None = None) -> Iterator[Message]:
    """Yield the committed records of a partition from `start` to before `stop` (None = where its end is found).

    Raises KafkaException on any error of the brokers, also when `start` is not there any more.
    """
    consumer = reader(settings)
    try:
        consumer.assign([TopicPartition(topic, partition, start)])
        while True:
            for message in consumer.consume(10_000, BATCH_S):
                error = message.error()
                if error is None:
                    if stop is not None and (message.offset() or 0) >= stop:
                        return
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def partitions_held(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    """Return {partition: (first offset that is still there, offset after the last)} of a topic."""
    consumer = reader(settings)
    try:
        partitions = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
        return {partition: offsets_held(consumer, topic, partition) for partition in partitions}
    finally:
        consumer.close()


def read_topic(settings: Settings, topic: str) -> Iterator[Message]:
    """Yield the committed records of all partitions of a topic, one partition after the other."""
    for partition, (low, high) in partitions_held(settings, topic).items():
        if low < high:
            yield from read_range(settings, topic, partition, low)


def read_changelog(settings: Settings, topic: str, partition: int) -> dict[bytes, bytes]:
    """Return the newest value of every key of a compacted partition, without the keys that were deleted."""
    consumer = reader(settings)
    low, _ = offsets_held(consumer, topic, partition)
    consumer.close()
    entries: dict[bytes, bytes] = {}
    for message in read_range(settings, topic, partition, low):
        key, value = message.key() or b"", message.value()
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value
    return entries
