"""Records that somebody waits for: whoever sent them is answered when the brokers have all of them, or have not taken one."""

import threading
from collections.abc import Iterable
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connectors.settings import Settings

DELIVERY_MS = 10_000
"""Brokers that take nothing for so long are away: the sender is told to come back."""
POLL_S = 0.1
CLOSE_S = DELIVERY_MS / 1000 + 1
Record = tuple[str, str, bytes]
"""(topic, key, value); the partition is the one that Java clients choose for the key."""


class AcknowledgedProducer:
    """An idempotent producer for many senders; any thread may call."""

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer(
            {
                **settings.kafka(), "enable.idempotence": True, "partitioner": "murmur2_random", "compression.type": "lz4", "linger.ms": 5,
                "delivery.timeout.ms": DELIVERY_MS, "queue.buffering.max.messages": 1_000_000, "message.max.bytes": 16_000_000,
            }
        )  # fmt: skip
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="deliveries", daemon=True)
        self._thread.start()

    def send(self, records: Iterable[Record]) -> Future[None]:
        """Send records; the result is there when all are acknowledged, or the KafkaException of the first that was not."""
        delivery = _Delivery()
        try:
            for topic, key, value in records:
                delivery.begin()
                self._producer.produce(topic, value, key, on_delivery=delivery.one)
        except BufferError:
            delivery.one(KafkaError(KafkaError._QUEUE_FULL, "too much waits for the brokers"), None)
        except KafkaException as error:
            delivery.one(error.args[0], None)
        delivery.all_sent()
        return delivery.future

    def close(self) -> None:
        """Deliver what was sent, as far as the brokers take it; nothing may be sent any more."""
        self._producer.flush(CLOSE_S)
        self._closing.set()
        self._thread.join()
        del self._producer  # its connections end with it

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(POLL_S)


class _Delivery:
    """Counts the acknowledgements of one sender's records."""

    def __init__(self) -> None:
        self.future: Future[None] = Future()
        self.future.set_running_or_notify_cancel()
        self._waiting = 1
        """Records that are on their way, and one for the sender who may send more."""
        self._lock = threading.Lock()
        self._error: KafkaError | None = None

    def begin(self) -> None:
        """Note that a record is about to be sent."""
        with self._lock:
            self._waiting += 1

    def one(self, error: KafkaError | None, _: Message | None) -> None:
        """Note what became of a record."""
        with self._lock:
            self._error = self._error or error
            self._waiting -= 1
            is_last = self._waiting == 0
        if is_last:
            self._finish()

    def all_sent(self) -> None:
        """Note that there are no more."""
        self.one(None, None)

    def _finish(self) -> None:
        if self._error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(KafkaException(self._error))
