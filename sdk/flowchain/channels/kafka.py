"""Kafka: the default way out. librdkafka is loaded when the channel is made, so that importing the SDK costs nothing."""

from typing import TYPE_CHECKING, Any

from flowchain.channels.base import Encoded
from flowchain.counts import Counts

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

KAFKA_DEFAULTS: dict[str, Any] = {
    "client.id": "flowchain-sdk",
    "enable.idempotence": True,
    # As Java clients partition, so that every producer of an execution's events agrees where they go.
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 5,
    # The publisher's queue is the buffer; this one only keeps the network busy.
    "queue.buffering.max.messages": 20_000,
    "queue.buffering.max.kbytes": 32_768,
    "delivery.timeout.ms": 120_000,
    # Else librdkafka writes to the host's stderr twice a second while a broker is away; errors are told once instead.
    "log_level": 2,
}


class KafkaChannel:
    """An idempotent producer to one topic. Never waits for the broker but in `close`."""

    def __init__(self, counts: Counts, topic: str, settings: dict[str, Any]) -> None:
        from confluent_kafka import KafkaError, Producer

        self._counts = counts
        self._queue_full = KafkaError._QUEUE_FULL
        self._topic = topic
        self._reported = 0
        ours = {"on_delivery": self._on_delivery, "error_cb": self._on_error}
        self._producer = Producer({**KAFKA_DEFAULTS, **settings, **ours})

    def send(self, events: list[Encoded]) -> list[Encoded]:
        messages: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in events]
        if self._producer.produce_batch(self._topic, messages) == len(messages):
            return []
        return [event for event, message in zip(events, messages, strict=True) if self._is_refused(message)]

    def _is_refused(self, message: dict[str, Any]) -> bool:
        """Whether there was no room for a message; one that can never be sent is counted as lost."""
        error = message.get("_error")
        if error is None:
            return False
        if error.code() == self._queue_full:
            return True
        self._counts.drop("refused", error)
        return False

    def poll(self, timeout_s: float) -> None:
        self._producer.poll(timeout_s)
        self._tell()

    def close(self, timeout_s: float) -> int:
        remaining = self._producer.flush(timeout_s)
        self._tell()
        if remaining:
            self._producer.purge(blocking=False)
        return remaining

    def _tell(self) -> None:
        if self._reported:
            self._counts.delivered(self._reported)
            self._reported = 0

    def _on_error(self, error: "KafkaError") -> None:
        self._counts.tell(f"kafka {error.name()}", error)

    def _on_delivery(self, error: "KafkaError | None", _message: "Message") -> None:
        if error is None:
            self._reported += 1
        else:
            self._counts.drop("delivery_failed", error)
