"""requests: every request that a Session sends carries the flow, redirects too."""

from typing import Any
from urllib.parse import urlsplit

from flowchain.integrations.calling import Prepared, around
from flowchain.integrations.carrying import carry
from flowchain.integrations.guarding import wrap
from flowchain.integrations.work import call


def wrap_requests(module: Any) -> None:
    """Wrap the session."""
    wrap(module.Session, "send", around(_prepare, _status))


def _prepare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Prepared:
    request = args[1] if len(args) > 1 else kwargs["request"]
    work = call(f"{request.method} {urlsplit(request.url).hostname}")
    carry(request.headers)
    return work, args, kwargs


def _status(response: Any) -> int:
    return int(response.status_code)
