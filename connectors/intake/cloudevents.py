"""CloudEvents 1.0 to events of ours: the table stands in docs/intake.md. Binary and structured mode, over Kafka and HTTP."""

import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import orjson

from connectors.spans.names import clean_id

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
REQUIRED = ("id", "source", "specversion", "type")
_TYPE = re.compile(r"(?:io\.flowchain\.)?([a-z]+\.[a-z]+?)(?:\.v1)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = {"correlationid": "execution", "tenantid": "tenant", "traceparent": "traceparent"}
"""Extension attributes that have a field of their own."""
_MEANT = {*REQUIRED, *_FIELDS, "time", "subject", "causationid", "partitionkey", "datacontenttype", "data", "data_base64"}
"""Attributes that have a meaning here; all others become attributes of the event."""


class NoCloudEvent(ValueError):
    """A CloudEvent that cannot become an event; says which field, and why, without a value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason


def is_structured(content_type: str) -> bool:
    """Return whether a content type says that the whole CloudEvent is in the body."""
    return content_type.strip().lower().startswith("application/cloudevents")


def from_structured(value: Any) -> dict[str, Any]:
    """Return the event of a CloudEvent in JSON; raises NoCloudEvent."""
    if not isinstance(value, dict):
        raise NoCloudEvent("cloudevent", "is no JSON object")
    data = value.get("data")
    if "data_base64" in value:
        try:
            data = parsed(b64decode(value["data_base64"], validate=True))
        except (ValueError, TypeError) as error:
            raise NoCloudEvent("data_base64", "is not JSON in base64") from error
    return event_of(value, data)


def from_binary(headers: Iterable[tuple[str, str]], content_type: str, body: bytes | None, prefix: str) -> dict[str, Any]:
    """Return the event of a CloudEvent whose attributes are headers with a prefix and whose data is the body; raises NoCloudEvent."""
    attributes: dict[str, Any] = {name[len(prefix) :].lower(): value for name, value in headers if name.lower().startswith(prefix)}
    if prefix == "ce-":  # the HTTP binding escapes what headers cannot hold
        attributes = {name: unquote(value) for name, value in attributes.items()}
    attributes["datacontenttype"] = content_type or "application/json"
    return event_of(attributes, parsed(body) if body else None)


def parsed(body: bytes) -> Any:
    """Return what JSON holds; raises NoCloudEvent."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NoCloudEvent("data", "is not JSON") from error


def event_of(attributes: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """Return the event that attributes and data make; what data says itself is taken as it is. Raises NoCloudEvent."""
    _check(attributes, data)
    found: dict[str, Any] = {"type": _type(attributes["type"]), "id": clean_id(attributes["id"]), "component": _component(attributes["source"])}
    if "time" in attributes:
        found["time_unix_us"] = _time_us(attributes["time"])
    execution = attributes.get("correlationid") or attributes.get("partitionkey")
    if execution:
        found["execution"] = execution
    found |= {field: attributes[name] for name, field in _FIELDS.items() if attributes.get(name) and field != "execution"}
    if found["type"].startswith("step."):
        found |= {"step": attributes["subject"]} if attributes.get("subject") else {}
        found |= {"parents": [{"span": attributes["causationid"]}]} if attributes.get("causationid") else {}
    more = {name: _number(name, value) for name, value in attributes.items() if name not in _MEANT and value is not None}
    if more and found["type"].partition(".")[0] in ("step", "execution"):
        found["attributes"] = more
    own = data or {}
    if more and isinstance(own.get("attributes"), dict):
        own = {**own, "attributes": {**more, **own["attributes"]}}
    return {**found, **own}


def _check(attributes: Mapping[str, Any], data: Any) -> None:
    for name in REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise NoCloudEvent(name, "must be there, and a text")
    if attributes["specversion"] != "1.0":
        raise NoCloudEvent("specversion", "only 1.0 is known")
    kind = str(attributes.get("datacontenttype") or "application/json").partition(";")[0].strip().lower()
    if kind not in ("application/json", "text/json") and not kind.endswith("+json"):
        raise NoCloudEvent("datacontenttype", "the data must be JSON")
    if data is not None and not isinstance(data, dict):
        raise NoCloudEvent("data", "is no JSON object")


def _type(text: str) -> str:
    found = _TYPE.fullmatch(text)
    return found[1] if found else text


def _component(source: str) -> str:
    """Return the last part of a URI-reference, which names the service."""
    return re.split(r"[/:#?]", source.rstrip("/"))[-1] or source


def _time_us(text: Any) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no offset")
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, TypeError, OverflowError) as error:
        raise NoCloudEvent("time", "is no RFC 3339 time") from error


def _number(name: str, value: Any) -> Any:
    """Return an attribute; a sampledrate is a number also where a header holds it."""
    return int(value) if name == "sampledrate" and isinstance(value, str) and value.isascii() and value.isdigit() else value
