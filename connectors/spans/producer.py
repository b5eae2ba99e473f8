"""Sends events to Kafka: idempotent, in order, and with an error for whatever was not delivered."""

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connectors.spans.model import SpanImportError

_POLL_EVERY = 256
_FLUSH_SLICE_S = 1.0
_CONFIG: dict[str, Any] = {
    "enable.idempotence": True,
    "compression.type": "lz4",
    "partitioner": "murmur2_random",  # the partition that Java clients and the SDK choose for a key
    "linger.ms": 5,
    # How far partitions can drift apart: events come in time order, but one partition's may be taken first.
    "queue.buffering.max.messages": 20_000,
    "delivery.timeout.ms": 60_000,
}


class KafkaSender:
    """A Sender (see publish.py) for one topic."""

    def __init__(self, bootstrap_servers: str, topic: str, config: Mapping[str, Any] | None = None) -> None:
        self._topic = topic
        self._error: KafkaError | None = None
        self._since_poll = 0
        try:
            self._producer = Producer({**_CONFIG, **(config or {}), "bootstrap.servers": bootstrap_servers})
        except KafkaException as error:
            raise SpanImportError(f"Kafka {bootstrap_servers}: unusable settings ({error}).") from error

    def send(self, key: str, value: bytes) -> None:
        """Queue one record; waits while the queue is full, raises SpanImportError after a failed delivery."""
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
                break
            except KafkaException as error:
                raise SpanImportError(f"topic {self._topic}: an event was refused ({error}).") from error
            except BufferError:
                self._producer.poll(0.1)
                self._raise_error()
        self._since_poll += 1
        if self._since_poll >= _POLL_EVERY:
            self._since_poll = 0
            self._producer.poll(0)
            self._raise_error()

    def flush(self) -> None:
        """Wait for all deliveries; every record ends, by delivery.timeout.ms at the latest."""
        while self._producer.flush(_FLUSH_SLICE_S):
            self._raise_error()
        self._raise_error()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._error is None:
            self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise SpanImportError(f"topic {self._topic}: an event was not delivered ({self._error.str()}).")
