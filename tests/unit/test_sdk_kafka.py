"""What the SDK puts on Kafka, read back from librdkafka's mock cluster."""

from collections.abc import Iterator

import orjson
import pytest
from confluent_kafka import Consumer, Message, Producer

import flowchain
from schemas.events import CHAIN_EVENT

PREFIX, PARTITIONS = "test.", 4


@pytest.fixture
def bootstrap_servers() -> Iterator[str]:
    owner = Producer({"bootstrap.servers": "ignored:1", "test.mock.num.brokers": 1})
    brokers = owner.list_topics(timeout=10).brokers
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers.values())
    del owner  # the cluster lives as long as its producer


def read(bootstrap_servers: str, events: int) -> list[Message]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "test", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([PREFIX + "flowchain.events.v1"])
    messages: list[Message] = []
    for _ in range(100):
        messages.extend(consumer.consume(events, timeout=0.3))
        if len(messages) >= events:
            break
    consumer.close()
    return messages


def java_partition(key: bytes, partitions: int) -> int:
    """As org.apache.kafka.clients.producer does it: murmur2, positive, modulo."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    for start in range(0, len(key) - len(key) % 4, 4):
        k = int.from_bytes(key[start : start + 4], "little") * m & mask
        h = (h * m ^ (k ^ k >> 24) * m) & mask
    rest = key[len(key) - len(key) % 4 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


def test_events_are_on_the_topic_by_execution_partitioned_as_java_does(bootstrap_servers: str) -> None:
    flowchain.init("shop", bootstrap_servers, topic_prefix=PREFIX, linger_ms=1)
    for _ in range(40):
        with flowchain.execution("order"), flowchain.step("validate"):
            pass
    assert flowchain.shutdown(20.0)
    messages = read(bootstrap_servers, 160)
    assert len(messages) == 160
    for message in messages:
        key, value = message.key(), message.value()
        assert isinstance(key, bytes) and isinstance(value, bytes)
        CHAIN_EVENT.validate_json(value)
        assert orjson.loads(value)["execution"] == key.decode()
        assert message.partition() == java_partition(key, PARTITIONS)
    assert {message.partition() for message in messages} == set(range(PARTITIONS))
