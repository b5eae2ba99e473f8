"""Faust: an agent's event, or the batch that `take` gives it, is a step until it asks for the next.

What agents send goes through aiokafka, which is wrapped too.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from typing import Any
from weakref import WeakSet

from flowchain.integrations.consuming import asked, received
from flowchain.integrations.guarding import attempt, wrap

_taking: "WeakSet[Any]" = WeakSet()
"""Streams whose events are gathered into batches."""


def wrap_app(module: Any) -> None:
    """Give every app a sensor that hears of the events its agents work on."""
    sensor = _sensor(import_module("faust.sensors").Sensor)
    wrap(module.App, "__init__", lambda original: _around_init(original, sensor))


def wrap_streams(module: Any) -> None:
    """Wrap the ways to take batches."""
    for name in ("take", "take_events", "take_with_timestamp", "noack_take"):
        wrap(module.Stream, name, _around_take)


def wrap_agents(module: Any) -> None:
    """Wrap the running of an agent's body, whose errors no sensor hears of."""
    wrap(module.Agent, "_execute_actor", _around_actor)


def _sensor(base: Any) -> Any:
    class FlowSensor(base):  # type: ignore[misc]
        """Hears of each event that an agent begins and ends to work on."""

        def on_stream_event_in(self, tp: Any, offset: int, stream: Any, event: Any) -> None:
            attempt(_begin, stream, event)

        def on_stream_event_out(self, tp: Any, offset: int, stream: Any, event: Any, state: Any = None) -> None:
            attempt(_end, stream)

    return FlowSensor


def _begin(stream: Any, event: Any) -> None:
    if stream not in _taking:
        asked(stream)
        received(stream, [event])


def _end(stream: Any) -> None:
    if stream not in _taking:
        asked(stream)


def _around_init(original: Callable[..., None], sensor: Any) -> Callable[..., None]:
    def __init__(app: Any, *args: Any, **kwargs: Any) -> None:
        original(app, *args, **kwargs)
        attempt(lambda: app.sensors.add(sensor()))

    return __init__


def _around_take(original: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def take(stream: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        events: list[Any] = []
        gather = attempt(_gather, stream, events)
        batches = original(stream, *args, **kwargs)
        try:
            async for batch in batches:
                attempt(_received, stream, events, len(batch))
                yield batch
                attempt(asked, stream)
        finally:
            attempt(asked, stream)
            attempt(_stop_gathering, stream, gather)
            await batches.aclose()  # type: ignore[attr-defined]

    return take


def _gather(stream: Any, events: list[Any]) -> Callable[[Any], Any]:
    """Have the events kept that get as far as the batch: those that were filtered out do not."""

    def keep(value: Any) -> Any:
        events.append(stream.current_event)
        return value

    stream.add_processor(keep)
    _taking.add(stream)
    return keep


def _received(stream: Any, events: list[Any], number: int) -> None:
    batch = events[:number]
    del events[:number]
    received(stream, batch)


def _stop_gathering(stream: Any, gather: Any) -> None:
    _taking.discard(stream)
    stream._processors.remove(gather)


def _around_actor(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def run(agent: Any, coroutine: Awaitable[Any], actor: Any) -> None:
        await original(agent, _watched(coroutine, actor), actor)

    return run


async def _watched(coroutine: Awaitable[Any], actor: Any) -> Any:
    """Await an agent's body; an error that leaves it fails the step of the event that it was at."""
    try:
        return await coroutine
    except Exception:
        attempt(lambda: asked(actor.stream.get_active_stream()))
        raise
