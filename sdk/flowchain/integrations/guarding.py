"""How an integration touches the host: what fails in it is counted and said once, the host goes on."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import flowchain
from flowchain.counts import logger
from flowchain.tracker import Tracker

P = ParamSpec("P")
R = TypeVar("R")


def tracker() -> Tracker:
    """Return the tracker of this process."""
    return flowchain._tracker


def attempt(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
    """Return what `function` returns, or None where it failed."""
    try:
        return function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the host goes on
        flowchain._tracker.guard("integration_error", error)
        logger.debug("flowchain integration error", exc_info=True)
        return None


def wrap(owner: Any, attribute: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace `owner.attribute` by what `around` makes of it, once; where there is none (another version), do nothing."""
    original = getattr(owner, attribute, None)
    if original is None or getattr(original, "_flowchain", False):
        return
    wrapper = functools.wraps(original)(around(original))
    wrapper._flowchain = True  # type: ignore[attr-defined]
    setattr(owner, attribute, wrapper)
