"""What a transaction of ingest writes: partials, traces, violations, dead letters, changelog, ticks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from zlib import crc32

import msgspec
import orjson
from confluent_kafka import Producer

from agents.ingest_letters import Dead
from connectors.deadletters import Headers, headers_of, letter_headers
from connectors.settings import Settings
from connectors.telemetry import RECORDS_OUT
from schemas import topics
from schemas.internal import Execution, Partial, PartitionState, Slice, TraceBatch
from schemas.operations import DataLoss
from streams.ids import derived_id, key_of
from streams.lifecycle import Output
from streams.tracker import Tracker

encode = msgspec.json.Encoder().encode
EXECUTION, SERIES, PARTITION = "e", "s", b"p"
"""What the keys of the changelog begin with; there is one partition."""
DELTAS_PER_PARTIAL = 2_000
STEPS_PER_BATCH = 2_000
TICK_HEADERS: Headers = [("flowchain-tick", b"1")]


@dataclass
class Pending:
    """What a source partition has waiting for the next commit, beside what its tracker holds."""

    events: int = 0
    dead: list[Dead] = field(default_factory=list)
    lost: tuple[int, int] | None = None
    """Offsets that were gone, both included."""
    waiting_for: list[int] = field(default_factory=list)
    idle: bool = False
    """Read to its end without any event."""
    recent: tuple[int, int] = (0, 0)
    """Of the worker's last records, those of the partition, and how many of them were refused."""
    out: Output = field(init=False)
    """Taken from the tracker when the transaction is written."""


def publish(
    producer: Producer, settings: Settings, source: str, tracker: Tracker, pending: Pending, analysis_partitions: int
) -> None:
    """Write everything of one source partition into the transaction that has begun."""
    out = pending.out = tracker.take()
    _partials(producer, settings, source, tracker, pending, analysis_partitions)
    _traces(producer, settings, source, tracker, list(out.finished.values()))
    for violation in out.violations:
        producer.produce(settings.topic(topics.VIOLATIONS.name), violation.encode(), violation.tenant)
    for dead in pending.dead:
        producer.produce(
            settings.topic(topics.EVENTS_DLQ.name), dead.value, dead.message.key(), tracker.partition,
            headers=letter_headers(headers_of(dead.message), dead.letter()),
        )  # fmt: skip
    RECORDS_OUT.labels(topics.VIOLATIONS.name).inc(len(out.violations))
    RECORDS_OUT.labels(topics.EVENTS_DLQ.name).inc(len(pending.dead))
    if pending.lost is not None:
        _data_loss(producer, settings, source, tracker, pending.lost)
    _changelog(producer, settings.topic(topics.OPEN_EXECUTIONS.name), tracker, pending)


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
        *first, last = list(_by_size(slices)) or [[]]
        for chunk in first:
            producer.produce(topic, encode(Partial(source, tracker.partition, 0, 0, chunk)), partition=partition)
        RECORDS_OUT.labels(topics.PARTIALS.name).inc(len(first) + 1)
        partial = Partial(
            source, tracker.partition, tracker.watermark_us, tracker.next_offset - 1, last, pending.waiting_for,
            pending.idle,
        )  # fmt: skip
        producer.produce(topic, encode(partial), partition=partition)


def _traces(
    producer: Producer, settings: Settings, source: str, tracker: Tracker, executions: list[Execution]
) -> None:
    topic = settings.topic(topics.TRACES.name)
    for chunk in _by_steps(executions):
        tracker.trace_batches += 1
        batch = TraceBatch(source, tracker.partition, tracker.watermark_us, chunk, tracker.trace_batches)
        producer.produce(topic, encode(batch), partition=tracker.partition)
        RECORDS_OUT.labels(topics.TRACES.name).inc()


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
        if not tracked.execution.finished_us:
            producer.produce(topic, encode(tracked.execution), _name(EXECUTION, tracked.key), partition)
            tracked.logged = True
        elif tracked.logged:
            producer.produce(topic, None, _name(EXECUTION, tracked.key), partition)
            tracked.logged = False
    for series in out.new_series:
        producer.produce(topic, b"1", _name(SERIES, series), partition)
    state = PartitionState(
        tracker.watermark_us, tracker.next_offset, *tracker.clock, tracker.trace_batches, *pending.recent
    )  # fmt: skip
    producer.produce(topic, encode(state), PARTITION, partition)


def _name(kind: str, parts: Iterable[str]) -> bytes:
    return key_of(kind, *parts).encode()


def _by_steps(executions: Iterable[Execution]) -> Iterator[list[Execution]]:
    """Cut executions into batches that stay well below the largest message."""
    batch: list[Execution] = []
    steps = 0
    for execution in executions:
        batch.append(execution)
        steps += 1 + len(execution.steps)
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


def _by_size(slices: Iterable[Slice]) -> Iterator[list[Slice]]:
    """Cut slices into messages that stay well below the largest one; a slice may be spread over several."""
    batch: list[Slice] = []
    size = 0
    for whole in slices:
        for at in range(0, max(len(whole.deltas), len(whole.edges)), DELTAS_PER_PARTIAL):
            until = at + DELTAS_PER_PARTIAL
            part = Slice(whole.end_unix_us, whole.deltas[at:until], whole.edges[at:until])
            if size and size + len(part.deltas) > DELTAS_PER_PARTIAL:
                yield batch
                batch, size = [], 0
            batch.append(part)
            size += len(part.deltas)
    if batch:
        yield batch
