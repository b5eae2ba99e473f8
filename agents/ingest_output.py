"""What a transaction of ingest writes: partials, traces, violations, dead letters, changelog, ticks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import msgspec
import orjson
from confluent_kafka import Producer

from agents.ingest_letters import Dead
from agents.messages import MAX_BYTES, fitting, halve_list, halve_slices
from connectors.deadletters import Headers, headers_of, letter_headers
from connectors.settings import Settings
from connectors.telemetry import RECORDS_OUT
from schemas import topics
from schemas.internal import (
    KNOWN_EDGE,
    KNOWN_SERIES,
    OPEN_EXECUTION,
    PARTITION_STATE,
    Partial,
    PartitionState,
    Slice,
    TraceBatch,
)
from schemas.operations import DataLoss
from streams.ids import derived_id, key_of
from streams.tracked import Output
from streams.tracker import Tracker

encode = msgspec.json.Encoder().encode
STEPS_PER_BATCH = 2_000
MAX_LETTER_BYTES = 8_000_000
"""Of a refused record so much of its value is kept: a broker may allow larger events than dead letters can be."""
TICK_HEADERS: Headers = [("flowchain-tick", b"1")]


@dataclass
class Pending:
    """What a source partition has waiting for the next commit, beside what its tracker holds."""

    events: int = 0
    dead: list[Dead] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)
    """Offsets that were gone, both included: retention may overtake a worker again before it commits."""
    waiting_for: list[int] = field(default_factory=list)
    idle: bool = False
    """Read to its end without any event."""
    recent: tuple[int, int] = (0, 0)
    """Of the worker's last records, those of the partition, and how many of them were refused."""
    out: Output = field(init=False)
    """Taken from the tracker when the transaction is written."""
    records: list[bytes] = field(default_factory=list)
    """What was published of the finished executions of `out`."""


def publish(
    producer: Producer, settings: Settings, source: str, tracker: Tracker, pending: Pending, analysis_partitions: int
) -> None:
    """Write everything of one source partition into the transaction that has begun."""
    out = pending.out = tracker.take()
    _partials(producer, settings, source, tracker, pending, analysis_partitions)
    executions = [tracked.execution for tracked in out.finished.values()]
    pending.records = [encode(execution.record()) for execution in executions]
    steps = [1 + len(execution.steps) for execution in executions]
    _traces(producer, settings, source, tracker, list(zip(steps, pending.records, strict=True)))
    for violation in out.violations:
        producer.produce(settings.topic(topics.VIOLATIONS.name), violation.encode(), violation.tenant)
    for dead in pending.dead:
        producer.produce(
            settings.topic(topics.EVENTS_DLQ.name), _kept(dead.value), dead.message.key(), tracker.partition,
            headers=letter_headers(headers_of(dead.message), dead.letter()),
        )  # fmt: skip
    RECORDS_OUT.labels(topics.VIOLATIONS.name).inc(len(out.violations))
    RECORDS_OUT.labels(topics.EVENTS_DLQ.name).inc(len(pending.dead))
    for lost in pending.lost:
        _data_loss(producer, settings, source, tracker, lost)
    _changelog(producer, settings.topic(topics.OPEN_EXECUTIONS.name), tracker, pending)


def let_rest(pending: Pending) -> None:
    """Keep the finished executions as what was published of them; call when nobody asks `pending.out` any more."""
    for tracked, record in zip(pending.out.finished.values(), pending.records, strict=True):
        tracked.rest(record)
    for tracked in pending.out.touched:
        if tracked.finished_us:
            tracked.rest()


def publish_tick(producer: Producer, topic: str, partition: int, time_us: int) -> None:
    """Put the passing of silent time on the log."""
    value = orjson.dumps({"type": "clock.tick", "time_unix_us": time_us})
    producer.produce(topic, value, partition=partition, headers=TICK_HEADERS)


def tenant_partition(tenant: str, partitions: int) -> int:
    """Return the partition of the partials topic that a tenant's analysis lives in."""
    return crc32(tenant.encode("utf-8", "surrogatepass")) % partitions


def _partials(
    producer: Producer, settings: Settings, source: str, tracker: Tracker, pending: Pending, partitions: int
) -> None:
    topic = settings.topic(topics.PARTIALS.name)
    for partition, slices in enumerate(_by_tenant(pending.out.slices, partitions)):
        for value in _cut_partial(source, tracker, pending, slices):
            producer.produce(topic, value, partition=partition)
            RECORDS_OUT.labels(topics.PARTIALS.name).inc()


def _cut_partial(source: str, tracker: Tracker, pending: Pending, slices: list[Slice]) -> Iterator[bytes]:
    """Yield a partial as one message, or as several of which the last brings the watermark."""

    def last(slices: list[Slice]) -> bytes:
        where = (source, tracker.partition, tracker.watermark_us, tracker.next_offset - 1)
        return encode(Partial(*where, slices, pending.waiting_for, pending.idle))

    value = last(slices)
    if len(value) <= MAX_BYTES:
        yield value
        return
    yield from fitting(slices, lambda part: encode(Partial(source, tracker.partition, 0, 0, part)), halve_slices)
    yield last([])


def _traces(
    producer: Producer, settings: Settings, source: str, tracker: Tracker, executions: list[tuple[int, bytes]]
) -> None:
    topic = settings.topic(topics.TRACES.name)

    def batch(part: list[bytes]) -> bytes:
        held: Any = list(map(msgspec.Raw, part))  # encoded already
        return encode(TraceBatch(source, tracker.partition, tracker.watermark_us, held, tracker.trace_batches + 1))

    for chunk in _by_steps(executions):
        for value in fitting(chunk, batch, halve_list):
            tracker.trace_batches += 1
            producer.produce(topic, value, partition=tracker.partition)
            RECORDS_OUT.labels(topics.TRACES.name).inc()


def _kept(value: bytes | None) -> bytes | None:
    return value if value is None else value[:MAX_LETTER_BYTES]


def _data_loss(
    producer: Producer, settings: Settings, source: str, tracker: Tracker, lost: tuple[int, int]
) -> None:
    first, last = lost
    record = DataLoss(
        id=derived_id("data-loss", source, tracker.partition, first, last), topic=source, partition=tracker.partition,
        first_offset=first, last_offset=max(first, last), detected_unix_us=tracker.watermark_us,
        reason="the offsets were deleted before they could be read",
    )  # fmt: skip
    producer.produce(settings.topic(topics.DATA_LOSS.name), record.encode(), f"{source}/{tracker.partition}")
    RECORDS_OUT.labels(topics.DATA_LOSS.name).inc()


def _changelog(producer: Producer, topic: str, tracker: Tracker, pending: Pending) -> None:
    partition, out = tracker.partition, pending.out
    for tracked in out.touched:
        if not tracked.finished_us:
            producer.produce(topic, encode(tracked.execution.record()), _name(OPEN_EXECUTION, tracked.key), partition)
            tracked.logged = True
        elif tracked.logged:
            producer.produce(topic, None, _name(OPEN_EXECUTION, tracked.key), partition)
            tracked.logged = False
    for kind, keys in ((KNOWN_SERIES, out.new_series), (KNOWN_EDGE, out.new_edges)):
        for key in keys:
            producer.produce(topic, b"1", _name(kind, key), partition)
    state = PartitionState(
        tracker.watermark_us, tracker.next_offset, *tracker.clock, tracker.trace_batches, *pending.recent
    )  # fmt: skip
    producer.produce(topic, encode(state), PARTITION_STATE, partition)


def _name(kind: str, parts: Iterable[str]) -> bytes:
    return key_of(kind, *parts).encode()


def _by_steps(executions: Iterable[tuple[int, bytes]]) -> Iterator[list[bytes]]:
    """Cut executions, each with its number of rows, into batches that are about right."""
    batch: list[bytes] = []
    steps = 0
    for rows, record in executions:
        batch.append(record)
        steps += rows
        if steps >= STEPS_PER_BATCH:
            yield batch
            batch, steps = [], 0
    if batch:
        yield batch


def _by_tenant(slices: Iterable[Slice], partitions: int) -> list[list[Slice]]:
    """Return the slices for each partition of the partials topic."""
    result: list[list[Slice]] = [[] for _ in range(partitions)]
    for whole in slices:
        parts = [Slice(whole.end_unix_us, [], []) for _ in range(partitions)]
        for delta in whole.deltas:
            parts[tenant_partition(delta.tenant, partitions)].deltas.append(delta)
        for edge in whole.edges:
            parts[tenant_partition(edge.tenant, partitions)].edges.append(edge)
        for found, part in zip(result, parts, strict=True):
            if part.deltas or part.edges:
                found.append(part)
    return result
