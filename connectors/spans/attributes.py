"""OTLP attributes -> plain values within the contract's bounds, and what they tell of Kafka and retries."""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from connectors.spans.model import AttributeValue, Audit, KafkaRecord, first_text
from connectors.spans.names import MAX_NAME, shorten

MAX_ATTRIBUTES, MAX_VALUE_CHARS = 32, 512
RESENDS = ("http.request.resend_count", "http.resend_count")
_INT64 = 1 << 63
_MAX_TOPIC, _MAX_DIGITS = 249, 18


def plain(pairs: Any, audit: Audit) -> dict[str, AttributeValue]:
    """Return OTLP key-values as a dict; lists and maps become JSON text, what has no value is left out."""
    values: dict[str, AttributeValue] = {}
    for pair in pairs or ():
        try:
            value = _value(pair["value"])
            key = pair["key"]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            audit.repair("span: an attribute without a usable value was left out")
            continue
        if value is not None and isinstance(key, str):
            values[key] = value
    return values


def _value(any_value: dict[str, Any]) -> AttributeValue | None:
    """Return an AnyValue; raises ValueError for a number that JSON or 64 bits cannot hold."""
    for name, value in any_value.items():
        if name in ("stringValue", "boolValue", "bytesValue") and isinstance(value, (str, bool)):
            return value
        if name == "intValue":
            return _int64(value)
        if name == "doubleValue":
            return _finite(value)
        if name in ("arrayValue", "kvlistValue"):
            return orjson.dumps(_nested(any_value)).decode()
    return None


def _int64(value: Any) -> int:
    number = int(value)
    if -_INT64 <= number < _INT64:
        return number
    raise ValueError("beyond 64 bits")


def _finite(value: Any) -> float:
    number = float(value)
    if math.isfinite(number):
        return number
    raise ValueError("not finite")


def _nested(any_value: dict[str, Any]) -> Any:
    if "arrayValue" in any_value:
        return [_nested(value) for value in any_value["arrayValue"].get("values", ())]
    if "kvlistValue" in any_value:
        return {
            str(pair["key"]): _nested(pair["value"]) for pair in any_value["kvlistValue"].get("values", ())
        }
    return _value(any_value)


def bounded(values: dict[str, AttributeValue], audit: Audit) -> dict[str, AttributeValue] | None:
    """Return at most 32 attributes (the first by name) with keys and texts shortened; None for none."""
    if not values:
        return None
    if len(values) <= MAX_ATTRIBUTES and max(map(len, values)) <= MAX_NAME and not any(map(_is_long, values.values())):
        return values
    if len(values) > MAX_ATTRIBUTES:
        audit.repair(f"span: more than {MAX_ATTRIBUTES} attributes, the rest was left out")
    kept = sorted(values.items())[:MAX_ATTRIBUTES]
    return {shorten(key, MAX_NAME): _bounded_value(value) for key, value in kept}


def _is_long(value: AttributeValue) -> bool:
    return type(value) is str and len(value) > MAX_VALUE_CHARS


def _bounded_value(value: AttributeValue) -> AttributeValue:
    return shorten(value, MAX_VALUE_CHARS) if isinstance(value, str) else value


def consumed_record(values: Mapping[str, AttributeValue]) -> KafkaRecord | None:
    """Return the Kafka record named by messaging attributes (today's names, else older ones), if complete."""
    if str(values.get("messaging.system", "kafka")).lower() != "kafka":
        return None
    topic = first_text(values, "messaging.destination.name", "messaging.destination")
    partition = _position(
        values,
        "messaging.destination.partition.id",
        "messaging.kafka.destination.partition",
        "messaging.kafka.source.partition",
        "messaging.kafka.partition",
    )
    offset = _position(values, "messaging.kafka.offset", "messaging.kafka.message.offset")
    if not topic or len(topic) > _MAX_TOPIC or partition is None or partition >= 1 << 31 or offset is None:
        return None
    return KafkaRecord(topic, partition, offset)


def _position(values: Mapping[str, AttributeValue], *names: str) -> int | None:
    text = first_text(values, *names)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def consumes(kind: str, values: Mapping[str, AttributeValue]) -> bool:
    """Return whether a span received or processed messages: since 2024 a polling receive is a client span."""
    if kind == "consumer":
        return True
    return first_text(values, "messaging.operation.type", "messaging.operation") in ("receive", "process")


def attempt(values: Mapping[str, AttributeValue]) -> int:
    """Return which try this was: 1 + the number of resends that HTTP instrumentation notes."""
    resends = _position(values, *RESENDS)
    return min(1 + (resends or 0), 10_000)
