"""aiokafka: what a producer sends carries the flow; what a consumer returns is worked on until it is asked for more."""

import asyncio
from collections.abc import Callable
from typing import Any

from flowchain.integrations.consuming import asked, flat, received
from flowchain.integrations.guarding import attempt, wrap
from flowchain.integrations.injecting import refused, with_headers

_ARGUMENTS = ("topic", "value", "key", "partition", "timestamp_ms", "headers")


def wrap_aiokafka(module: Any) -> None:
    """Wrap producer and consumer."""
    wrap(module.AIOKafkaProducer, "send", _around_send)
    for name in ("getone", "getmany", "stop"):
        wrap(module.AIOKafkaConsumer, name, _around_read)


def _around_send(original: Callable[..., Any]) -> Callable[..., Any]:
    async def send(producer: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        ours = attempt(with_headers, given)
        if ours is None:
            return await original(producer, *args, **kwargs)
        try:
            future = await original(producer, **ours)
        except Exception as error:
            if not attempt(refused, given["topic"], type(error).__name__):
                raise
            return await original(producer, *args, **kwargs)
        return asyncio.ensure_future(_delivered(future, lambda: original(producer, *args, **kwargs), given["topic"]))

    return send


async def _delivered(future: Any, again: Callable[[], Any], topic: str) -> Any:
    """Return the record's metadata; what the broker refused because of our headers goes again without them."""
    try:
        return await future
    except Exception as error:
        if not attempt(refused, topic, type(error).__name__):
            raise
    return await (await again())


def _around_read(original: Callable[..., Any]) -> Callable[..., Any]:
    async def read(consumer: Any, *args: Any, **kwargs: Any) -> Any:
        attempt(asked, consumer)
        found = await original(consumer, *args, **kwargs)
        attempt(_received, consumer, found)
        return found

    return read


def _received(consumer: Any, found: Any) -> None:
    """Begin the work on one record, or on those of every partition together."""
    if found is not None:
        received(consumer, flat(found) if isinstance(found, dict) else [found])
