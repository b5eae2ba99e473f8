"""How an ingest worker takes over a partition: its state as of the last commit, read back from the log.

Open executions, known series and the watermark stand in the changelog; finished executions that are still remembered
stand in the tail of the traces topic, which the same transactions wrote.
"""

import re
from collections.abc import Iterator

import msgspec
import structlog

from agents.ingest_output import EXECUTION, PARTITION, SERIES
from connectors.log import offsets_held, read_changelog, read_range, reader
from connectors.settings import Settings
from schemas import topics
from schemas.internal import Execution, PartitionState, TraceBatch
from streams.booking import SeriesKey
from streams.ids import split_key
from streams.lifecycle import ExecutionKey
from streams.refusals import Refusals
from streams.rules import RuleBook
from streams.tracker import Tracker

log = structlog.get_logger("ingest")
decode_execution = msgspec.json.Decoder(Execution).decode
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
TAIL = 64
"""Trace batches read back at first; more when they do not reach back far enough."""


def load_tracker(settings: Settings, partition: int, rules: RuleBook, refusals: Refusals) -> Tracker:
    """Return the tracker of a partition as of its last commit, and take its records into the window of `refusals`."""
    tracker = Tracker(settings.topic(topics.EVENTS.name), partition, rules, settings.limits)
    entries = read_changelog(settings, settings.topic(topics.OPEN_EXECUTIONS.name), partition)
    if PARTITION not in entries:
        return tracker
    state = msgspec.json.decode(entries[PARTITION], type=PartitionState)
    open_, series = _told(entries, partition)
    finished = _remembered(settings, partition, settings.limits.remembered_since_us(state.watermark_unix_us))
    tracker.restore(state.watermark_unix_us, open_, finished, series)
    tracker.next_offset = state.next_offset
    refusals.restore(partition, state.recent_records, state.recent_refused)
    tracker.clock = (state.clock_unix_us, state.clock_broker_us)
    return tracker


def _told(entries: dict[bytes, bytes], partition: int) -> tuple[list[Execution], list[SeriesKey]]:
    """Return the open executions and the known series of a changelog.

    What was written before names were held to the contract may hold control characters: no record could be published
    about such an execution, and such a series cannot come again, so both are left out.
    """
    open_: list[Execution] = []
    series: list[SeriesKey] = []
    left_out = 0
    for key, value in entries.items():
        kind, *parts = split_key(key.decode())
        if kind == EXECUTION and not _CONTROL.search("".join(_names(found := decode_execution(value)))):
            open_.append(found)
        elif kind == SERIES and len(parts) == 4 and not _CONTROL.search("".join(parts)):
            tenant, chain, step, component = parts
            series.append((tenant, chain, step, component))
        else:
            left_out += kind in (EXECUTION, SERIES)
    if left_out:
        log.error("state left out: control characters in names", partition=partition, entries=left_out)
    return open_, series


def _names(execution: Execution) -> Iterator[str]:
    yield from (execution.tenant, execution.chain, execution.execution, execution.user, execution.tier)
    yield from (execution.component, execution.error_type)
    for step in execution.steps.values():
        yield from (step.span, step.step, step.component, step.error_type)


def _remembered(settings: Settings, partition: int, horizon_us: int) -> list[Execution]:
    """Return the newest state of the executions that finished after `horizon_us`, in the order they finished."""
    topic = settings.topic(topics.TRACES.name)
    consumer = reader(settings)
    low, high = offsets_held(consumer, topic, partition)
    consumer.close()
    tail = TAIL
    while True:
        start = max(low, high - tail)
        newest: dict[ExecutionKey, Execution] = {}
        oldest_us = None
        for message in read_range(settings, topic, partition, start):
            batch = msgspec.json.decode(message.value() or b"", type=TraceBatch)
            oldest_us = oldest_us or batch.watermark_unix_us
            newest |= {(x.tenant, x.execution): x for x in batch.executions}
        if start == low or (oldest_us is not None and oldest_us < horizon_us):
            return sorted(
                (x for x in newest.values() if x.finished_us >= horizon_us), key=lambda x: x.finished_us
            )
        tail *= 4
