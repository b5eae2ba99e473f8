"""How far the consumer groups of the pipeline are behind the ends of their topics."""

from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

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
    admin = AdminClient(settings.kafka())
    consumer = reader(settings)
    rows = []
    for group, read in GROUPS.items():
        name = settings.group(group)
        listing = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])
        committed = listing[name].result(30).topic_partitions or []
        offsets = {(tp.topic, tp.partition): tp.offset for tp in committed}
        for topic in read:
            physical = settings.topic(topic.name)
            partitions = consumer.list_topics(physical, timeout=30).topics[physical].partitions
            lag = 0
            for partition in partitions:
                low, high = offsets_held(consumer, physical, partition)
                lag += high - max(low, offsets.get((physical, partition), low))
            rows.append({"group": name, "topic": physical, "lag": lag})
    consumer.close()
    return rows
