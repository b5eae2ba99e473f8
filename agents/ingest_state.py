"""How an ingest worker takes over a partition: its state as of the last commit, read back from the log.

Open executions, known series and the watermark stand in the changelog; finished executions that are still remembered
stand in the tail of the traces topic, which the same transactions wrote.
"""

import msgspec
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from connectors.log import offsets_held, read_changelog, read_range, reader
from connectors.producers import TRANSACTION_MS
from connectors.settings import Settings
from schemas import topics
from schemas.internal import (
    KNOWN_EDGE,
    KNOWN_SERIES,
    OPEN_EXECUTION,
    PARTITION_STATE,
    Execution,
    PartitionState,
    TraceBatch,
)
from streams.booking import KnownEdge, SeriesKey
from streams.ids import parts_of
from streams.refusals import Refusals
from streams.rules import RuleBook
from streams.tracked import ExecutionKey
from streams.tracker import Tracker

decode_execution = msgspec.json.Decoder(Execution).decode


class StateBehind(Exception):
    """What the last transaction wrote is not to be seen yet."""


until_visible = retry(
    retry=retry_if_exception_type(StateBehind), wait=wait_fixed(0.1), reraise=True,
    stop=stop_after_delay(2 * TRANSACTION_MS / 1000 + 20),
)  # fmt: skip
"""A commit shows in one topic after the other; and a transaction that its owner did not end hides what came after it
until the brokers abort it."""

TAIL = 64
"""Trace batches read back at first; more when they do not reach back far enough."""


def load_tracker(settings: Settings, partition: int, rules: RuleBook, refusals: Refusals, committed: int) -> Tracker:
    """Return the tracker of a partition as of its last commit, and take its records into the window of `refusals`.

    `committed`: the offset at which that commit ended, < 0 = none yet. Raises StateBehind when what it wrote does not
    come to light.
    """
    tracker = Tracker(settings.topic(topics.EVENTS.name), partition, rules, settings.limits)
    if committed < 0:
        return tracker
    state, entries = _as_of(settings, partition, committed)
    open_, series, edges = _told(entries)
    finished = _remembered(settings, partition, state)
    tracker.restore(state.watermark_unix_us, open_, finished, series, edges)
    tracker.next_offset = state.next_offset
    refusals.restore(partition, state.recent_records, state.recent_refused)
    tracker.clock = (state.clock_unix_us, state.clock_broker_us)
    tracker.trace_batches = state.trace_batches
    return tracker


@until_visible
def _as_of(settings: Settings, partition: int, committed: int) -> tuple[PartitionState, dict[bytes, bytes]]:
    """Return what the changelog of a partition held at a commit."""
    entries = read_changelog(settings, settings.topic(topics.OPEN_EXECUTIONS.name), partition)
    value = entries.pop(PARTITION_STATE, None)
    state = None if value is None else msgspec.json.decode(value, type=PartitionState)
    if state is None or state.next_offset < committed:
        held = "nothing" if state is None else f"offset {state.next_offset}"
        raise StateBehind(f"partition {partition} is committed up to offset {committed}, its changelog shows {held}")
    return state, entries


def _told(entries: dict[bytes, bytes]) -> tuple[list[Execution], list[SeriesKey], list[KnownEdge]]:
    """Return the open executions, the known series and the known edges of a changelog."""
    open_: list[Execution] = []
    series: list[SeriesKey] = []
    edges: list[KnownEdge] = []
    for key, value in entries.items():
        kind, *parts = parts_of(key.decode())
        if kind == OPEN_EXECUTION:
            open_.append(decode_execution(value))
        elif kind == KNOWN_SERIES:
            tenant, chain, step, component = parts
            series.append((tenant, chain, step, component))
        elif kind == KNOWN_EDGE:
            tenant, chain, how, source, target, topic = parts
            edges.append((tenant, chain, how, source, target, topic))
    return open_, series, edges


@until_visible
def _remembered(settings: Settings, partition: int, state: PartitionState) -> list[Execution]:
    """Return the newest state of the executions that may still be remembered, in the order they finished."""
    topic = settings.topic(topics.TRACES.name)
    horizon_us = settings.limits.remembered_since_us(state.watermark_unix_us)
    consumer = reader(settings)
    low, high = offsets_held(consumer, topic, partition)
    consumer.close()
    tail = TAIL
    while True:
        start = max(low, high - tail)
        newest: dict[ExecutionKey, Execution] = {}
        oldest_us, last = None, 0
        for message in read_range(settings, topic, partition, start):
            batch = msgspec.json.decode(message.value() or b"", type=TraceBatch)
            oldest_us, last = oldest_us or batch.watermark_unix_us, batch.number
            for execution in batch.executions:
                _note(newest, execution)
        if start == low or (oldest_us is not None and oldest_us < horizon_us):
            break
        tail *= 4
    if last < state.trace_batches and (newest or low == 0):  # else retention has deleted them
        raise StateBehind(f"partition {partition} has published {state.trace_batches} trace batches, {last} are to be seen")
    return sorted((x for x in newest.values() if x.finished_us >= horizon_us), key=lambda x: x.finished_us)


def _note(newest: dict[ExecutionKey, Execution], execution: Execution) -> None:
    """Put the newest state of an execution in its place: where that run of it finished, whatever changed it later."""
    key = (execution.tenant, execution.execution)
    known = newest.get(key)
    if known is not None and (known.first_offset, known.ordinal) != (execution.first_offset, execution.ordinal):
        del newest[key]
    newest[key] = execution
