"""Events that a client of the API has sent: each accepted or refused by itself, all of them its tenant's."""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from connectors.acknowledged import Record
from connectors.intake import cloudevents
from connectors.intake.cloudevents import NoCloudEvent
from streams.events import Event, Refused, decode_record

JSON = "application/json"
TAKEN = (JSON, cloudevents.STRUCTURED, cloudevents.BATCH)
_FIELD = re.compile(r"(?:field `(?P<named>[^`]*)`)|(?:at `\$\.?(?P<place>[^`]*)`)")
_OURS = ("clock.tick",)
"""Types that only the pipeline itself writes."""


@dataclass(frozen=True)
class Refusal:
    """An event that is none."""

    index: int
    """Which of those sent."""
    field: str
    """Empty: the event as a whole."""
    reason: str


@dataclass(frozen=True)
class Judged:
    """What came of a body."""

    records: list[Record]
    refused: list[Refusal]


class Unreadable(ValueError):
    """A body that cannot be read as a whole, in one sentence."""


def judge(values: list[Any], tenant: str, topic: str) -> Judged:
    """Return records for the events topic, and what is refused; an event without a tenant gets this one, and no other is taken.

    A value may be a NoCloudEvent: it is refused as it says.
    """
    records: list[Record] = []
    refused: list[Refusal] = []
    for index, value in enumerate(values):
        found = _judged(value, tenant, topic)
        if isinstance(found, NoCloudEvent):
            refused.append(Refusal(index, found.field, found.reason))
        else:
            records.append(found)
    return Judged(records, refused)


def _judged(value: Any, tenant: str, topic: str) -> Record | NoCloudEvent:
    if isinstance(value, NoCloudEvent):
        return value
    if not isinstance(value, dict):
        return NoCloudEvent("", "is no JSON object")
    if value.get("type") in _OURS:
        return NoCloudEvent("type", "only the pipeline itself writes it")
    if value.setdefault("tenant", tenant) != tenant:
        return NoCloudEvent("tenant", "is not yours")
    try:
        encoded = orjson.dumps(value)
    except TypeError:
        return NoCloudEvent("", "holds a text that is no UTF-8")
    event = decode_record(encoded)
    if isinstance(event, Refused):
        return NoCloudEvent(field_of(event.reason), event.reason)
    return topic, key_of(event), encoded


def key_of(event: Event) -> str:
    """Return the Kafka key of an event: its execution, or its component where it is of none."""
    return str(getattr(event, "execution", None) or getattr(event, "component", ""))


def field_of(reason: str) -> str:
    """Return the field that a refusal of an event names; "" = the event as a whole."""
    found = {name: text for match in _FIELD.finditer(reason) for name, text in match.groupdict().items() if text}
    return ".".join(found[name] for name in ("place", "named") if name in found)


def read_body(content_type: str, headers: list[tuple[str, str]], body: bytes) -> list[Any]:
    """Return what a body holds, an item per event; raises Unreadable."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == cloudevents.BATCH:
        value = _parsed(body)
        if not isinstance(value, list):
            raise Unreadable("a batch of CloudEvents is a JSON array")
        return list(map(_structured, value))
    if kind == cloudevents.STRUCTURED:
        value = _parsed(body)
        if not isinstance(value, dict):
            raise Unreadable("a CloudEvent is a JSON object")
        return [_structured(value)]
    if any(name.lower() == "ce-specversion" for name, _ in headers):
        return [_binary(headers, content_type, body)]
    return events_of(body)


def events_of(body: bytes | str) -> list[Any]:
    """Return the events of JSON: an object, or an array of them; raises Unreadable."""
    value = _parsed(body)
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return [value]
    raise Unreadable("neither an event nor an array of events")


def _parsed(body: bytes | str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error}"[:200]) from error


def _structured(value: Any) -> Any:
    try:
        return cloudevents.from_structured(value)
    except NoCloudEvent as error:
        return error


def _binary(headers: list[tuple[str, str]], content_type: str, body: bytes) -> Any:
    try:
        return cloudevents.from_binary(headers, content_type, body, "ce-")
    except NoCloudEvent as error:
        return error
