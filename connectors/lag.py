"""How far the consumer groups of the pipeline are behind the ends of their topics."""

from typing import Any

from confluent_kafka import Consumer

from connectors.log import offsets_committed, offsets_held, reader
from connectors.settings import Settings
from schemas import topics
from schemas.topics import Topic

GROUPS: dict[str, tuple[Topic, ...]] = {
    "ingest": (topics.EVENTS,),
    "analysis": (topics.PARTIALS,),
    "sinks-clickhouse": (topics.TRACES, topics.HEALTH, topics.DEPENDENCIES, topics.ANOMALIES),
    "sinks-postgres": (topics.TRACES, topics.HEALTH, topics.DEPENDENCIES, topics.INCIDENTS, topics.ALERTS),
}


def group_lag(settings: Settings) -> list[dict[str, Any]]:
    """Return [{group, topic, lag}], lag in records; markers of transactions count, so an idle group shows a few.

    Raises KafkaException when the brokers cannot be reached.
    """
    rows = []
    for group, read in GROUPS.items():
        name = settings.group(group)
        consumer = reader(settings, **{"group.id": name})
        for topic in read:
            physical = settings.topic(topic.name)
            partitions = consumer.list_topics(physical, timeout=30).topics[physical].partitions
            committed = offsets_committed(consumer, physical, partitions)
            lag = sum(_lag(consumer, physical, partition, offset) for partition, offset in committed.items())
            rows.append({"group": name, "topic": physical, "lag": lag})
        consumer.close()
    return rows


def _lag(consumer: Consumer, topic: str, partition: int, committed: int) -> int:
    low, high = offsets_held(consumer, topic, partition)
    return high - max(low, committed)
