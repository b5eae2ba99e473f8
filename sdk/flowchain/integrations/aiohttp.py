"""aiohttp's client: every request of a ClientSession carries the flow, also the one that opens a websocket."""

from typing import Any
from urllib.parse import urlsplit

from flowchain.integrations.calling import Prepared, around_async
from flowchain.integrations.carrying import carried
from flowchain.integrations.guarding import wrap
from flowchain.integrations.work import call


def wrap_aiohttp(module: Any) -> None:
    """Wrap the session."""
    wrap(module.ClientSession, "_request", around_async(_prepare, _status))


def _prepare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Prepared:
    _, method, url = args
    work = call(f"{method} {urlsplit(str(url)).hostname}")
    headers = carried(kwargs.get("headers"))
    return work, args, kwargs if headers is None else {**kwargs, "headers": headers}


def _status(response: Any) -> int:
    return int(response.status)
