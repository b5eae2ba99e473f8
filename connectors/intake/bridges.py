"""What becomes of a record that is no event of ours: records of our topics, and refusals for the dead letters."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from confluent_kafka import Message

from connectors.acknowledged import Record
from connectors.deadletters import headers_of
from connectors.intake.cloudevents import NoCloudEvent, from_binary, from_structured, is_structured, parsed
from connectors.intake.mapping import Mapper, NoValue
from connectors.intake.posted import key_of
from connectors.intake.spans import from_bytes
from connectors.settings import Settings
from connectors.spans.model import Options
from connectors.telemetry import INTAKE_SPANS
from schemas.topics import EVENTS, SPANS
from streams.events import Refused, decode_record

Stage = Literal["decode", "validate", "oversize", "null"]


@dataclass(frozen=True)
class Bridged:
    """What a record has become."""

    records: list[Record] = field(default_factory=list)
    refused: tuple[Stage, str] | None = None
    """Stage and reason, which names the field and holds no value of it; the record goes to the dead letters as it was."""

    @property
    def outcome(self) -> str:
        """What `flowchain_intake_records_total` counts it as."""
        return self.refused[0] if self.refused else "bridged" if self.records else "left out"


Bridge = Callable[[Message], Bridged]


def spans_bridge(settings: Settings, options: Options) -> Bridge:
    """Return the bridge from the Collector's topic: its batches are taken apart, a trace goes into one partition.

    A span that is not as OTLP has it costs no other: it is counted, and only a record without any usable one is refused.
    """
    topic = settings.topic(SPANS.name)

    def bridge(message: Message) -> Bridged:
        value = message.value()
        if value is None:
            return Bridged(refused=("null", "the record has no value"))
        try:
            received = from_bytes(value, options)
        except ValueError as error:
            return Bridged(refused=("decode", f"not OTLP: {error}"[:512]))
        INTAKE_SPANS.labels("kafka", "stored").inc(received.spans)
        INTAKE_SPANS.labels("kafka", "rejected").inc(received.rejected)
        if received.rejected and not received.spans:
            return Bridged(refused=("validate", received.reason[:512]))
        return Bridged([(topic, trace, spans) for trace, spans in received.records])

    return bridge


def cloudevents_bridge(settings: Settings) -> Bridge:
    """Return the bridge from the topic of CloudEvents: structured where the content type says so, else binary."""
    topic = settings.topic(EVENTS.name)

    def bridge(message: Message) -> Bridged:
        headers = [(name, as_text(value)) for name, value in headers_of(message)]
        content_type = next((value for name, value in headers if name.lower() == "content-type"), "")
        value = message.value()
        if value is None and not any(name.lower() == "ce_type" for name, _ in headers):
            return Bridged(refused=("null", "the record has no value"))
        try:
            if is_structured(content_type):
                return bridged_events([from_structured(parsed(value or b""))], topic)
            return bridged_events([from_binary(headers, content_type, value, "ce_")], topic)
        except NoCloudEvent as error:
            return Bridged(refused=("validate", str(error)[:512]))

    return bridge


def mapped_bridge(settings: Settings, mapper: Mapper) -> Bridge:
    """Return the bridge from a topic that a mapping file speaks of; a record of which one event is refused becomes none."""
    topic = settings.topic(EVENTS.name)

    def bridge(message: Message) -> Bridged:
        value = message.value()
        if value is None:
            return Bridged(refused=("null", "the record has no value"))
        return mapped(mapper, value, message.timestamp()[1] * 1000, topic)

    return bridge


def mapped(mapper: Mapper, value: bytes, record_us: int, topic: str) -> Bridged:
    """Return what a mapping makes of a record's value; `record_us` is the time of the record itself."""
    try:
        return bridged_events(mapper.events(orjson.loads(value), record_us), topic)
    except orjson.JSONDecodeError:
        return Bridged(refused=("decode", "not JSON"))
    except NoValue as error:
        return Bridged(refused=("validate", str(error)))


def bridged_events(events: list[dict[str, Any]], topic: str) -> Bridged:
    """Return the records of events for the events topic, or why one of them is none."""
    records: list[Record] = []
    for event in events:
        try:
            encoded = orjson.dumps(event)
        except TypeError:
            return Bridged(refused=("decode", "holds a text that is no UTF-8, or a number beyond 64 bits"))
        found = decode_record(encoded)
        if isinstance(found, Refused):
            return Bridged(refused=("oversize" if found.stage == "oversize" else "validate", found.reason))
        records.append((topic, key_of(found), encoded))
    return Bridged(records)


def as_text(value: str | bytes | None) -> str:
    """Return a header's value; what is no UTF-8 is replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
