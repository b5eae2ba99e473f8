"""Consumed Kafka records, of whatever client: confluent-kafka, aiokafka, kafka-python, Faust."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from flowchain.context import Context, Headers
from flowchain.spans import Consumed, StepOptions
from flowchain.tracker import MAX_PARENTS, Tracker


class Read(NamedTuple):
    """Where a record was, when it was produced (0: not known), and what came with it."""

    topic: str
    partition: int
    offset: int
    produced_ms: int
    headers: Headers


def read(record: Any) -> Read:
    """Return what a record says about itself."""
    record = getattr(record, "message", None) or record  # an event of Faust has it inside
    if callable(record.topic):
        return Read(record.topic(), record.partition(), record.offset(), record.timestamp()[1], record.headers() or ())
    stamp = record.timestamp or 0
    milliseconds = stamp * 1000 if isinstance(stamp, float) else stamp  # Faust counts seconds
    return Read(record.topic, record.partition, record.offset, int(milliseconds), record.headers or ())


def consumed(record: Any) -> Consumed:
    """Return what a step says of the record it works on; its time in the broker ends now."""
    found = read(record)
    broker_us = time.time_ns() // 1000 - found.produced_ms * 1000 if found.produced_ms > 0 else 0
    return Consumed(found.topic, found.partition, found.offset, max(0, broker_us))


def contexts(tracker: Tracker, records: Iterable[Any]) -> list[Context]:
    """Return the contexts that came with `records`, each once, at most as many as a step may have parents."""
    found: dict[tuple[str, str | None], Context] = {}
    for record in records:
        context = tracker.extract(read(record).headers)
        if context is not None:
            found.setdefault((context.flow.execution, context.span), context)
            if len(found) == MAX_PARENTS:
                break
    return list(found.values())


def joined(tracker: Tracker, records: Sequence[Any]) -> StepOptions:
    """Return what a step that works on `records` together says of them."""
    return StepOptions(parents=contexts(tracker, records), consumed=consumed(records[0]) if records else None)
