"""confluent-kafka: its classes are of C, so the host gets subclasses of them under the same names.

`Producer.produce_batch` and `AIOProducer` can carry no headers (librdkafka's batches have none): they are left as they are.
"""

from collections.abc import Callable
from typing import Any

from flowchain.integrations.consuming import asked, received
from flowchain.integrations.guarding import attempt, wrap
from flowchain.integrations.injecting import headers_for, refused

Produce = Callable[..., None]
_ARGUMENTS = ("value", "key", "partition", "callback", "on_delivery", "timestamp", "headers")


def wrap_confluent(module: Any) -> None:
    """Put subclasses in the place of Producer and Consumer, and wrap the classes that were derived from them before."""
    if getattr(module.Producer, "_flowchain", False):
        return
    produce = module.Producer.produce
    wrap(module.SerializingProducer, "__init__", _around_init)
    wrap(module.SerializingProducer, "produce", lambda original: _keywords(original, produce))
    for name in ("poll", "close"):
        wrap(module.DeserializingConsumer, name, _around_read)
    module.Producer = _producer(module.Producer)
    module.Consumer = _consumer(module.Consumer)


def _producer(base: Any) -> Any:
    class Producer(base):  # type: ignore[misc]
        _flowchain = True
        __init__ = _around_init(base.__init__)

        def produce(self, topic: Any, *args: Any, **kwargs: Any) -> None:
            _produce(base.produce, base.produce, self, topic, dict(zip(_ARGUMENTS, args, strict=False)) | kwargs)

    return Producer


def _consumer(base: Any) -> Any:
    class Consumer(base):  # type: ignore[misc]
        _flowchain = True
        poll = _around_read(base.poll)
        consume = _around_read(base.consume)
        close = _around_read(base.close)

    return Consumer


def _around_init(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(producer: Any, *args: Any, **kwargs: Any) -> None:
        original(producer, *args, **kwargs)
        attempt(_keep_callback, producer, {**(args[0] if args else {}), **kwargs})

    return __init__


def _keep_callback(producer: Any, settings: dict[str, Any]) -> None:
    """Keep the delivery callback of the settings, which one given with a record would replace."""
    producer._flowchain_callback = settings.get("on_delivery") or settings.get("dr_cb")


def _keywords(original: Produce, produce: Produce) -> Produce:
    names = ("key", "value", "partition", "on_delivery", "timestamp", "headers")

    def wrapper(producer: Any, topic: Any, *args: Any, **kwargs: Any) -> None:
        _produce(original, produce, producer, topic, dict(zip(names, args, strict=False)) | kwargs)

    return wrapper


def _produce(original: Produce, plain: Produce, producer: Any, topic: Any, given: dict[str, Any]) -> None:
    """Produce with our headers; where they are what the client refuses, without them."""
    ours = attempt(_with_headers, plain, producer, topic, given)
    if ours is None:
        return original(producer, topic, **given)
    try:
        return original(producer, topic, **ours)
    except Exception as error:
        if not attempt(_is_refused, topic, error):
            raise
    return original(producer, topic, **given)


def _with_headers(plain: Produce, producer: Any, topic: str, given: dict[str, Any]) -> dict[str, Any] | None:
    headers = headers_for(topic, given.get("headers"))
    if headers is None:
        return None
    host = given.get("on_delivery") or given.get("callback") or producer._flowchain_callback
    others = {name: value for name, value in given.items() if name != "callback"}
    return others | {"headers": headers, "on_delivery": _reporter(plain, producer, given.get("headers"), host)}


def _is_refused(topic: str, error: Exception) -> bool:
    return bool(error.args) and hasattr(error.args[0], "name") and refused(topic, error.args[0].name())


def _reporter(plain: Produce, producer: Any, headers: Any, host: Any) -> Callable[[Any, Any], None]:
    """Return the delivery callback: what the broker refused because of our headers goes again without them."""

    def on_delivery(error: Any, message: Any) -> None:
        if error is not None and attempt(_again, plain, producer, headers, host, error, message):
            return
        if host is not None:
            host(error, message)

    return on_delivery


def _again(plain: Produce, producer: Any, headers: Any, host: Any, error: Any, message: Any) -> bool:
    if not refused(message.topic(), error.name()):
        return False
    rest: dict[str, Any] = {"on_delivery": host} if host is not None else {}
    if headers:
        rest["headers"] = headers
    stamp = max(0, message.timestamp()[1])
    plain(producer, message.topic(), message.value(), message.key(), message.partition(), timestamp=stamp, **rest)
    return True


def _around_read(original: Callable[..., Any]) -> Callable[..., Any]:
    def read(consumer: Any, *args: Any, **kwargs: Any) -> Any:
        attempt(_asked, consumer)
        found = original(consumer, *args, **kwargs)
        attempt(_received, consumer, found)
        return found

    return read


def _asked(consumer: Any) -> None:
    if not getattr(consumer, "_flowchain_silent", False):
        asked(consumer)


def _received(consumer: Any, found: Any) -> None:
    if not getattr(consumer, "_flowchain_silent", False):
        messages = found if isinstance(found, list) else [found]
        received(consumer, [message for message in messages if message is not None and message.error() is None])


def wrap_confluent_aio(module: Any) -> None:
    """Have AIOConsumer begin its work in the caller's task, not in the thread that waits for records."""
    wrap(module.AIOConsumer, "__init__", _around_aio_init)
    for name in ("poll", "consume", "close"):
        wrap(module.AIOConsumer, name, _around_aio_read)


def _around_aio_init(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(consumer: Any, *args: Any, **kwargs: Any) -> None:
        original(consumer, *args, **kwargs)
        attempt(setattr, consumer._consumer, "_flowchain_silent", True)

    return __init__


def _around_aio_read(original: Callable[..., Any]) -> Callable[..., Any]:
    async def read(consumer: Any, *args: Any, **kwargs: Any) -> Any:
        attempt(_asked, consumer)
        found = await original(consumer, *args, **kwargs)
        attempt(_received, consumer, found)
        return found

    return read
