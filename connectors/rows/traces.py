"""Rows of `chain_execution_traces`: the table with by far the most rows, so its rows are built with as little
as can be."""

from collections.abc import Iterable, Iterator
from typing import Any

from connectors.rows.position import Position, turned
from schemas.internal import FAILED, Execution, Step, TraceBatch

TRACE_TABLE = "chain_execution_traces"
TRACE_COLUMNS = (
    "record_kind", "tenant", "chain", "chain_version", "execution", "span", "step", "component", "user",
    "tier", "status",
    "attempt", "start_time", "end_time", "duration_us", "error_type", "error_message", "cpu_us",
    "memory_bytes",
    "io_wait_us", "parents", "consumed_topic", "consumed_partition", "consumed_offset", "broker_us", "logs",
    "steps",
    "steps_failed", "steps_pending", "missing", "violations", "revision", "finished_watermark", "event_topic",
    "event_partition", "event_first_offset", "event_last_offset", "source_topic", "source_partition",
    "source_offset",
    "source_row",
)  # fmt: skip
NOTHING: list[Any] = []


def trace_columns(records: Iterable[tuple[Position, TraceBatch]]) -> list[tuple[Any, ...]]:
    """Return the rows of TRACE_COLUMNS: each execution, followed by its steps, in the order of the batch."""
    rows = [row for position, batch in records for row in _batch_rows(position, batch)]
    return turned(rows, len(TRACE_COLUMNS))


def _batch_rows(position: Position, batch: TraceBatch) -> Iterator[tuple[Any, ...]]:
    index = 0
    for execution in batch.executions:
        yield _execution_row(position, batch, execution, index)
        index += 1
        for step in execution.steps.values():
            yield _step_row(position, batch, execution, step, index)
            index += 1


def _execution_row(position: Position, batch: TraceBatch, e: Execution, index: int) -> tuple[Any, ...]:
    failed = sum(step.status == FAILED for step in e.steps.values())
    return (
        "execution", e.tenant, e.chain, e.chain_version, e.execution, "", "", e.component, e.user, e.tier,
        e.status, 0,
        e.start_us, e.ended_us, e.duration_us, e.error_type, e.error_message, 0, 0, 0, NOTHING, "", 0, 0, 0,
        NOTHING,
        len(e.steps), failed, e.pending, e.missing, e.violations, e.revision, e.finished_us,
        batch.source_topic,
        batch.source_partition, e.first_offset, e.last_offset, *position, index,
    )  # fmt: skip


def _step_row(position: Position, batch: TraceBatch, e: Execution, s: Step, index: int) -> tuple[Any, ...]:
    return (
        "step", e.tenant, e.chain, e.chain_version, e.execution, s.span, s.step, s.component, e.user, e.tier,
        s.status,
        s.attempt, s.start_us, s.end_us, s.duration_us, s.error_type, s.error_message, s.cpu_us,
        s.memory_bytes,
        s.io_wait_us, s.parents, s.topic, s.topic_partition, s.topic_offset, s.broker_us, s.logs, 0, 0, 0,
        NOTHING, 0,
        e.revision, e.finished_us, batch.source_topic, batch.source_partition, s.offset, s.offset, *position,
        index,
    )  # fmt: skip
