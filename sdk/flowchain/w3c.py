"""W3C Trace Context and Baggage as text: read without trusting it, written within its limits.

https://www.w3.org/TR/trace-context/ and https://www.w3.org/TR/baggage/
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

MAX_STATE_MEMBERS, MAX_STATE_CHARS, MAX_STATE_VALUE_CHARS, LONG_MEMBER_CHARS = 32, 512, 256, 128
MAX_BAGGAGE_MEMBERS, MAX_BAGGAGE_BYTES = 64, 8192
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_STATE_KEY = r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_STATE_MEMBER = re.compile(rf"({_STATE_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_UNQUOTED = "!#$&'()*-./:<=>?@[]^_`{|}~"
"""What a baggage value may hold as it is; without `+`, which some read as a space."""


class TraceParent(NamedTuple):
    """Who called: the trace, and the span in it."""

    trace: str
    span: str


def parse_traceparent(text: str) -> TraceParent | None:
    """Return what a `traceparent` says, None where it is none; of a later version the fields that version 00 has."""
    found = _PARENT.fullmatch(text.strip())
    if found is None:
        return None
    version, trace, span, more = found.groups()
    if version == "ff" or (version == "00" and more is not None) or not trace.strip("0") or not span.strip("0"):
        return None
    return TraceParent(trace, span)


def format_traceparent(trace: str, span: str) -> str | None:
    """Return the `traceparent` of a span; None where its id cannot be one (a host may name spans as it likes)."""
    text = f"00-{trace}-{span}-01"
    return text if parse_traceparent(text) else None


def split_state(text: str, own_key: str) -> tuple[str | None, str]:
    """Return (the value of our entry, the others as they came); nothing of a `tracestate` that breaks the rules."""
    if text.startswith(own_key + "=") and "," not in text:  # as it is mostly
        return text[len(own_key) + 1 :].rstrip(" \t"), ""
    members = [stripped for member in text.split(",") if (stripped := member.strip(" \t"))]
    keys = [found[1] for member in members if (found := _STATE_MEMBER.fullmatch(member))]
    if len(keys) != len(members) or len(set(keys)) != len(keys) or len(keys) > MAX_STATE_MEMBERS:
        return None, ""
    own = next((member.split("=", 1)[1] for member in members if member.startswith(own_key + "=")), None)
    return own, ",".join(member for member in members if not member.startswith(own_key + "="))


def join_state(own: str, foreign: str) -> str:
    """Return a `tracestate` with our entry at the front; what is too much goes as the specification says: long ones, then the last."""
    members = foreign.split(",") if foreign else []
    members = members[: MAX_STATE_MEMBERS - 1]
    while members and len(own) + sum(len(member) + 1 for member in members) > MAX_STATE_CHARS:
        long = [number for number, member in enumerate(members) if len(member) > LONG_MEMBER_CHARS]
        del members[long[-1] if long else -1]
    return ",".join([own, *members])


def own_baggage(text: str, prefix: str) -> dict[str, str]:
    """Return the values of the members whose key begins with `prefix`, without it."""
    own: dict[str, str] = {}
    for member in text.split(","):
        key, equals, value = member.strip(" \t").partition("=")
        if equals and key.startswith(prefix):
            own[key[len(prefix) :].rstrip(" \t")] = unquote_plus(value.partition(";")[0].strip(" \t"))
    return own


def foreign_baggage(text: str, prefix: str) -> str:
    """Return the other members as they came, but what is no member or could not be a header again."""
    members = [member.strip(" \t") for member in text.split(",")]
    foreign = [member for member in members if not member.startswith(prefix) and "=" in member]
    return ",".join([member for member in foreign if member.isascii() and member.isprintable()])


def join_baggage(own: Mapping[str, str], prefix: str, foreign: str) -> str:
    """Return a `baggage` with our members first; foreign ones that do not fit any more are left out from the end."""
    members = ",".join([f"{prefix}{key}={quote_baggage(value)}" for key, value in own.items()])
    return append_baggage(members, foreign) if foreign else members


def append_baggage(first: str, then: str) -> str:
    """Return both as one `baggage`, within the limits."""
    return ",".join(_fitting([*first.split(","), *then.split(",")]))


def _fitting(members: Iterable[str]) -> Iterable[str]:
    total = -1
    for number, member in enumerate(members):
        total += len(member) + 1
        if number == MAX_BAGGAGE_MEMBERS or total > MAX_BAGGAGE_BYTES:
            return
        yield member


def quote_baggage(value: str) -> str:
    """Return `value` as a baggage value, percent-encoded where it must be."""
    return value if value.isascii() and value.isalnum() else quote(value, safe=_UNQUOTED, errors="replace")

