"""httpx: every request of a Client or AsyncClient carries the flow."""

from collections.abc import Callable
from typing import Any

from flowchain.integrations.carrying import carry
from flowchain.integrations.guarding import attempt, wrap
from flowchain.integrations.work import Work, call


def wrap_httpx(module: Any) -> None:
    """Wrap both clients."""
    wrap(module.Client, "send", _around)
    wrap(module.AsyncClient, "send", _around_async)


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        work = attempt(_begin, request)
        try:
            response = original(client, request, *args, **kwargs)
        except BaseException as error:
            attempt(_end, work, None, error)
            raise
        attempt(_end, work, response)
        return response

    return send


def _around_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def send(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        work = attempt(_begin, request)
        try:
            response = await original(client, request, *args, **kwargs)
        except BaseException as error:
            attempt(_end, work, None, error)
            raise
        attempt(_end, work, response)
        return response

    return send


def _begin(request: Any) -> Work | None:
    work = call(f"{request.method} {request.url.host}")
    carry(request.headers)
    return work


def _end(work: Work | None, response: Any, error: BaseException | None = None) -> None:
    if work is not None:
        work.status = response.status_code if response is not None else 0
        work.end(error)
        work.leave()
