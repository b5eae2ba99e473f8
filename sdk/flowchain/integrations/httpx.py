"""httpx: every request of a Client or AsyncClient carries the flow."""

from typing import Any

from flowchain.integrations.calling import Prepared, around, around_async
from flowchain.integrations.carrying import carry
from flowchain.integrations.guarding import wrap
from flowchain.integrations.work import call


def wrap_httpx(module: Any) -> None:
    """Wrap both clients."""
    wrap(module.Client, "send", around(_prepare, _status))
    wrap(module.AsyncClient, "send", around_async(_prepare, _status))


def _prepare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Prepared:
    request = args[1] if len(args) > 1 else kwargs["request"]
    work = call(f"{request.method} {request.url.host}")
    carry(request.headers)
    return work, args, kwargs


def _status(response: Any) -> int:
    return int(response.status_code)
