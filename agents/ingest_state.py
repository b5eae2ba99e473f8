"""How an ingest worker takes over a partition: its state as of the last commit, read back from the log.

Open executions, known series and the watermark stand in the changelog; finished executions that are still remembered
stand in the tail of the traces topic, which the same transactions wrote.
"""

import msgspec

from agents.ingest_output import EXECUTION, PARTITION, SEPARATOR, SERIES
from connectors.log import offsets_held, read_changelog, read_range, reader
from connectors.settings import Settings
from schemas import topics
from schemas.internal import Execution, PartitionState, TraceBatch
from streams.lifecycle import ExecutionKey
from streams.rules import RuleBook
from streams.tracker import Tracker

TAIL = 64
"""Trace batches read back at first; more when they do not reach back far enough."""


def load_tracker(settings: Settings, partition: int, rules: RuleBook) -> Tracker:
    """Return the tracker of a partition as of its last commit."""
    tracker = Tracker(settings.topic(topics.EVENTS.name), partition, rules, settings.limits)
    entries = read_changelog(settings, settings.topic(topics.OPEN_EXECUTIONS.name), partition)
    if PARTITION not in entries:
        return tracker
    state = msgspec.json.decode(entries[PARTITION], type=PartitionState)
    open_ = [
        msgspec.json.decode(value, type=Execution)
        for key, value in entries.items()
        if key.startswith(EXECUTION + SEPARATOR)
    ]
    series = [
        _series(key) for key in entries if key.startswith(SERIES + SEPARATOR)
    ]
    finished = _remembered(settings, partition, settings.limits.remembered_since_us(state.watermark_unix_us))
    tracker.restore(state.watermark_unix_us, open_, finished, series)
    tracker.next_offset = state.next_offset
    tracker.clock = (state.clock_unix_us, state.clock_broker_us)
    return tracker


def _series(key: bytes) -> tuple[str, str, str, str]:
    _, tenant, chain, step, component = key.decode().split(SEPARATOR.decode())
    return tenant, chain, step, component


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
