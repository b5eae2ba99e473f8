"""Where events go: Kafka, a file of JSON lines, or a list. All are used from the publisher's thread only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import KafkaError, Message, Producer

from flowchain.counts import Counts

Encoded = tuple[bytes, bytes]
"""(key, value) of one event."""


class Channel(Protocol):
    """Takes events in order. It may raise; the publisher then counts the events as lost and goes on."""

    def send(self, events: list[Encoded]) -> list[Encoded]:
        """Take events and return those that there was no room for, to be given again later."""

    def poll(self, timeout_s: float) -> None:
        """Do what is due (delivery reports), waiting at most `timeout_s`."""

    def close(self, timeout_s: float) -> int:
        """Deliver what was taken, within `timeout_s`; return how many events are given up."""


MakeChannel = Callable[[Counts], Channel]


class MemoryChannel:
    """Keeps the events in a list, for tests and small simulations."""

    def __init__(self, counts: Counts, events: list[Encoded]) -> None:
        self._counts = counts
        self._events = events

    def send(self, events: list[Encoded]) -> list[Encoded]:
        self._events.extend(events)
        self._counts.delivered(len(events))
        return []

    def poll(self, timeout_s: float) -> None:
        pass

    def close(self, timeout_s: float) -> int:
        return 0


class FileChannel:
    """Appends JSON lines to a file, for hosts without a way to Kafka."""

    def __init__(self, counts: Counts, path: Path) -> None:
        self._counts = counts
        self._file = path.open("ab")

    def send(self, events: list[Encoded]) -> list[Encoded]:
        self._file.write(b"".join(value + b"\n" for _, value in events))
        self._counts.delivered(len(events))
        return []

    def poll(self, timeout_s: float) -> None:
        self._file.flush()

    def close(self, timeout_s: float) -> int:
        self._file.close()
        return 0


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
        self._counts = counts
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
        if error.code() == KafkaError._QUEUE_FULL:
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

    def _on_error(self, error: KafkaError) -> None:
        self._counts.tell(f"kafka {error.name()}", error)

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._reported += 1
        else:
            self._counts.drop("delivery_failed", error)
