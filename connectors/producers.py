"""Transactional producers: everything between two commits is published together, or not at all."""

from typing import Any

from confluent_kafka import Producer

from connectors.settings import Settings

TIMEOUT_S = 30.0


def transactional_producer(settings: Settings, transactional_id: str, **config: Any) -> Producer:
    """Return a producer that has fenced every earlier one of the same id; raises KafkaException without brokers."""
    producer = Producer(
        {
            **settings.kafka(),
            "transactional.id": transactional_id,
            "transaction.timeout.ms": 30_000,
            "linger.ms": 2,
            "compression.type": "lz4",
            "message.max.bytes": 4_000_000,
            "partitioner": "murmur2_random",
            **config,
        }
    )
    producer.init_transactions(TIMEOUT_S)
    return producer
