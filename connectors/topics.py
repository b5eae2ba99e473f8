"""Makes the topic catalogue so on a cluster, and tells where a cluster differs from it."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]

from connectors.settings import Settings
from schemas.topics import CATALOGUE, Topic

TIMEOUT_S = 30.0


def partitions_of(topic: Topic, settings: Settings) -> int:
    """Return how many partitions a topic is created with."""
    return {"source": settings.source_partitions, "analysis": settings.analysis_partitions, "one": 1}[topic.partitions]


def topic_config(topic: Topic) -> dict[str, str]:
    """Return the broker's configuration of a topic."""
    config = {"cleanup.policy": topic.cleanup, **topic.config}
    if topic.cleanup == "delete":
        config["retention.ms"] = str(topic.retention_ms)
    else:
        # Changelogs are read whole at a start: compact them soon, so that they stay as small as what they describe.
        config |= {"min.cleanable.dirty.ratio": "0.1", "segment.ms": "600000", "delete.retention.ms": "3600000"}
    return config


def apply_topics(settings: Settings, topics: tuple[Topic, ...] = CATALOGUE) -> dict[str, str]:
    """Create the topics that are missing; return {physical name: "created" | "exists"}.

    Raises KafkaException when the brokers cannot be reached or refuse.
    """
    admin = AdminClient(settings.kafka())
    wanted = [
        NewTopic(settings.topic(t.name), partitions_of(t, settings), settings.replication_factor, config=topic_config(t))
        for t in topics
    ]
    outcome = {}
    for name, future in admin.create_topics(wanted, request_timeout=TIMEOUT_S).items():
        try:
            future.result()
            outcome[name] = "created"
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            outcome[name] = "exists"
    return outcome


def partition_counts(settings: Settings) -> dict[str, int]:
    """Return {physical name: partitions} of the topics that exist; raises KafkaException without brokers."""
    topics = AdminClient(settings.kafka()).list_topics(timeout=TIMEOUT_S).topics
    return {name: len(topic.partitions) for name, topic in topics.items()}


def describe_topic(settings: Settings, topic: Topic) -> dict[str, str]:
    """Return the configuration of a topic as the brokers have it."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, settings.topic(topic.name))
    entries = AdminClient(settings.kafka()).describe_configs([resource])[resource].result(TIMEOUT_S)
    return {name: entry.value for name, entry in entries.items() if not entry.is_default}
