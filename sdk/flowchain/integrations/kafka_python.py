"""kafka-python: what a producer sends carries the flow; what a consumer returns is worked on until it is asked for more."""

import threading
from collections.abc import Callable
from typing import Any

from flowchain.integrations.consuming import asked, flat, received
from flowchain.integrations.guarding import attempt, wrap
from flowchain.integrations.injecting import refused, with_headers

_ARGUMENTS = ("topic", "value", "key", "headers", "partition", "timestamp_ms")


def wrap_kafka_python(module: Any) -> None:
    """Wrap producer and consumer."""
    wrap(module.KafkaProducer, "send", lambda original: _around_send(original, module.future.Future))
    wrap(module.KafkaConsumer, "__next__", _around_next)
    for name in ("poll", "close"):
        wrap(module.KafkaConsumer, name, _around_read)


def _around_send(original: Callable[..., Any], future_class: Any) -> Callable[..., Any]:
    delivery = _delivery(future_class)

    def send(producer: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        ours = attempt(with_headers, given)
        if ours is None:
            return original(producer, *args, **kwargs)
        try:
            sent = original(producer, **ours)
        except Exception as error:
            if not attempt(refused, given["topic"], type(error).__name__):
                raise
            return original(producer, *args, **kwargs)
        return attempt(delivery, sent, lambda: original(producer, *args, **kwargs), given["topic"]) or sent

    return send


def _delivery(future_class: Any) -> Any:
    class Delivery(future_class):  # type: ignore[misc]
        """What the host waits for: the record's metadata, of its second sending where the first was refused for our headers."""

        def __init__(self, sent: Any, again: Callable[[], Any], topic: str) -> None:
            super().__init__()
            self._again, self._topic, self._over = again, topic, threading.Event()
            self.add_both(lambda _: self._over.set())
            sent.add_callback(self.success)
            sent.add_errback(self._failed)

        def _failed(self, error: Exception) -> None:
            if attempt(refused, self._topic, type(error).__name__):
                # In a thread of its own: this one empties the buffer that the second sending may wait for.
                threading.Thread(target=self._send_again, args=(error,), daemon=True).start()
            else:
                self.failure(error)

        def _send_again(self, error: Exception) -> None:
            sent = attempt(self._again)
            if sent is None:
                self.failure(error)
            else:
                sent.add_callback(self.success)
                sent.add_errback(self.failure)

        def get(self, timeout: float | None = None) -> Any:
            """Return the record's metadata, as the future that this one stands for does."""
            if not self._over.wait(timeout):
                raise TimeoutError(f"Timeout after waiting for {timeout} secs.")
            if self.failed():
                raise self.exception
            return self.value

    return Delivery


def _around_next(original: Callable[..., Any]) -> Callable[..., Any]:
    def following(consumer: Any) -> Any:
        attempt(asked, consumer)
        consumer._flowchain_iterating = True  # it polls inside
        try:
            record = original(consumer)
        finally:
            consumer._flowchain_iterating = False
        attempt(received, consumer, [record])
        return record

    return following


def _around_read(original: Callable[..., Any]) -> Callable[..., Any]:
    def read(consumer: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(consumer, "_flowchain_iterating", False):
            return original(consumer, *args, **kwargs)
        attempt(asked, consumer)
        found = original(consumer, *args, **kwargs)
        attempt(_received, consumer, found)
        return found

    return read


def _received(consumer: Any, found: dict[Any, list[Any]] | None) -> None:
    received(consumer, flat(found or {}))
