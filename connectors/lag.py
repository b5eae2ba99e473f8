"""How far the consumer groups of the pipeline are behind the ends of their topics."""

from typing import Any

from confluent_kafka import Consumer, TopicPartition

from connectors.log import offsets_held, reader
from connectors.settings import Settings
from schemas import topics
from schemas.topics import Topic

GROUPS: dict[str, tuple[Topic, ...]] = {
    "ingest": (topics.EVENTS,),
    "analysis": (topics.PARTIALS,),
    "sinks-clickhouse": (topics.TRACES, topics.HEALTH, topics.DEPENDENCIES, topics.ANOMALIES),
    "sinks-postgres": (topics.TRACES, topics.HEALTH, topics.DEFINITIONS),
}


def group_lag(settings: Settings) -> list[dict[str, Any]]:
    """Return [{group, topic, lag}], lag in records; markers of transactions count, so an idle group shows a few.

    Raises KafkaException when the brokers cannot be reached.
    """
    rows = []
    for group, read in GROUPS.items():
        name = settings.group(group)
        # Not by the admin client: its query of a group's offsets can crash while a broker is starting.
        consumer = reader(settings, **{"group.id": name})
        for topic in read:
            physical = settings.topic(topic.name)
            count = len(consumer.list_topics(physical, timeout=30).topics[physical].partitions)
            committed = consumer.committed([TopicPartition(physical, p) for p in range(count)], timeout=30)
            rows.append({"group": name, "topic": physical, "lag": sum(_lag(consumer, tp) for tp in committed)})
        consumer.close()
    return rows


def _lag(consumer: Consumer, committed: TopicPartition) -> int:
    low, high = offsets_held(consumer, committed.topic, committed.partition)
    return high - max(low, committed.offset)
