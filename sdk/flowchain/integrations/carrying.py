"""Puts the running flow into the headers that a client is about to send."""

from collections.abc import Iterable, MutableMapping
from typing import Any

from flowchain import w3c
from flowchain.context import current, to_headers


def carry(headers: MutableMapping[str, Any]) -> None:
    """Add the flow to `headers`. The host's own baggage stays, and its trace if it has set one; flow headers are ours."""
    for name, value in additions(headers.get("traceparent"), headers.get("baggage")).items():
        headers[name] = value


def additions(traceparent: Any, baggage: Any) -> dict[str, str]:
    """Return the headers to be set, beside a `traceparent` and a `baggage` that the host has set itself."""
    context = current.get()
    if context is None:
        return {}
    found = to_headers(context)
    if traceparent and not _is_ours(_text(traceparent), found.get("traceparent", "")):
        found.pop("traceparent", None)
        found.pop("tracestate", None)
    if baggage:
        foreign = w3c.foreign_baggage(_text(baggage), "flowchain-")
        if foreign:
            found["baggage"] = w3c.append_baggage(found["baggage"], foreign)
    return found


def carried(given: Any) -> list[tuple[str, Any]] | None:
    """Return the headers (a mapping, pairs or None) with the flow in them, as pairs; None where there is nothing to add."""
    pairs: Iterable[tuple[str, Any]] = given.items() if hasattr(given, "items") else given or ()
    headers = list(pairs)
    last = {str(name).lower(): value for name, value in headers}
    found = additions(last.get("traceparent"), last.get("baggage"))
    if not found:
        return None
    return [pair for pair in headers if str(pair[0]).lower() not in found] + list(found.items())


def _is_ours(present: str, ours: str) -> bool:
    """Whether a traceparent is of our trace: then it is an older one, passed on by hand."""
    return present[:36] == ours[:36]


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
