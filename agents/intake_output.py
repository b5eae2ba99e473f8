"""What a transaction of intake publishes: events, the changelog of traces, dead letters."""

import time
from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec
from confluent_kafka import Message, Producer

from agents.ingest_output import MAX_LETTER_BYTES
from connectors.deadletters import headers_of, letter_headers
from connectors.intake.bridges import Bridged
from connectors.settings import Settings
from connectors.spans.events import Event
from connectors.spans.live import LiveTraces
from schemas import topics
from schemas.operations import DataLoss, DeadLetter
from streams.events import MAX_RECORD_BYTES
from streams.ids import derived_id

POSITION = b"position"
"""Key of the changelog's record that says how far a partition was read; ids of traces are hexadecimal."""
ARRAY_BYTES = MAX_RECORD_BYTES // 2
"""Events of an execution that come together are one message, cut at so many bytes."""
encode = msgspec.json.Encoder().encode


def publish_events(producer: Producer, topic: str, events: Iterable[Event]) -> None:
    """Publish events in their order, those in a row of one execution in one message."""
    for key, run in groupby(events, key=lambda event: event.key):
        for value in _messages([event.value for event in run]):
            producer.produce(topic, value, key)


def _messages(values: list[bytes]) -> Iterator[bytes]:
    """Yield values as messages: one by itself, or several as an array."""
    held: list[bytes] = []
    size = 0
    for value in values:
        if held and size + len(value) > ARRAY_BYTES:
            yield _message(held)
            held, size = [], 0
        held.append(value)
        size += len(value) + 1
    if held:
        yield _message(held)


def _message(values: list[bytes]) -> bytes:
    return values[0] if len(values) == 1 else b"[" + b",".join(values) + b"]"


def publish_changelog(producer: Producer, topic: str, partition: int, traces: LiveTraces, next_offset: int) -> None:
    """Publish what has changed of traces, and how far their partition is read."""
    for name in traces.touched:
        live = traces.traces.get(name)
        producer.produce(topic, None if live is None else encode(live), name, partition)
    traces.touched.clear()
    producer.produce(topic, str(next_offset), POSITION, partition)


def publish_bridged(producer: Producer, settings: Settings, message: Message, bridged: Bridged) -> None:
    """Publish what a record has become, or the record itself to the dead letters."""
    for topic, key, value in bridged.records:
        producer.produce(topic, value, key)
    if bridged.refused is not None:
        stage, reason = bridged.refused
        letter = DeadLetter(
            topic=message.topic() or "", partition=message.partition() or 0, offset=message.offset() or 0, stage=stage, reason=reason
        )
        headers = letter_headers(headers_of(message), letter)
        held = message.value()
        letter_value = held if held is None else held[:MAX_LETTER_BYTES]
        producer.produce(settings.topic(topics.INTAKE_DLQ.name), letter_value, message.key(), headers=headers)


def publish_loss(producer: Producer, settings: Settings, topic: str, partition: int, first: int, resume_at: int) -> None:
    """Report offsets that were gone before they could be read."""
    record = DataLoss(
        id=derived_id("data-loss", topic, partition, first, resume_at), topic=topic, partition=partition, first_offset=first,
        last_offset=max(first, resume_at - 1), detected_unix_us=time.time_ns() // 1000, reason="the offsets were deleted before intake could read them",
    )  # fmt: skip
    producer.produce(settings.topic(topics.DATA_LOSS.name), record.encode(), f"{topic}/{partition}")
