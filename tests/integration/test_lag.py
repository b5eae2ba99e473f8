"""Lag of the pipeline's groups, on a real broker."""

from confluent_kafka import Producer

from connectors.lag import GROUPS, group_lag
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra.devstack import Stack
from schemas.topics import EVENTS


def test_what_no_group_has_read_is_lag(stack: Stack) -> None:
    settings = Settings(bootstrap_servers=stack.bootstrap_servers, topic_prefix="lag-test.")
    apply_topics(settings)
    producer = Producer(settings.kafka())
    for _ in range(7):
        producer.produce(settings.topic(EVENTS.name), b"{}")
    assert producer.flush(30) == 0
    rows = {(row["group"], row["topic"]): row["lag"] for row in group_lag(settings)}
    assert len(rows) == sum(len(topics) for topics in GROUPS.values())
    assert rows.pop((settings.group("ingest"), settings.topic(EVENTS.name))) == 7
    assert set(rows.values()) == {0}
