"""A client's function as a call to another service: sends the flow along, and is a step of its own where that is asked for."""

from collections.abc import Callable
from typing import Any

from flowchain.integrations.guarding import attempt
from flowchain.integrations.work import Work

Prepared = tuple[Work | None, tuple[Any, ...], dict[str, Any]]
Prepare = Callable[[tuple[Any, ...], dict[str, Any]], Prepared]
"""Takes the arguments of a call; returns its step, if it is one, and the arguments with the flow in their headers."""
Status = Callable[[Any], int]
"""Returns the HTTP status of a response."""


def around(prepare: Prepare, status: Status) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what `wrap` wants for a function that sends a request and returns the response."""

    def wrapping(original: Callable[..., Any]) -> Callable[..., Any]:
        def send(*args: Any, **kwargs: Any) -> Any:
            work, args, kwargs = attempt(prepare, args, kwargs) or (None, args, kwargs)
            try:
                response = original(*args, **kwargs)
            except BaseException as error:
                attempt(_end, work, None, error)
                raise
            attempt(_end, work, lambda: status(response))
            return response

        return send

    return wrapping


def around_async(prepare: Prepare, status: Status) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the same for a coroutine function."""

    def wrapping(original: Callable[..., Any]) -> Callable[..., Any]:
        async def send(*args: Any, **kwargs: Any) -> Any:
            work, args, kwargs = attempt(prepare, args, kwargs) or (None, args, kwargs)
            try:
                response = await original(*args, **kwargs)
            except BaseException as error:
                attempt(_end, work, None, error)
                raise
            attempt(_end, work, lambda: status(response))
            return response

        return send

    return wrapping


def _end(work: Work | None, status: Callable[[], int] | None, error: BaseException | None = None) -> None:
    if work is not None:
        work.status = status() if status is not None else 0
        work.end(error)
        work.leave()
