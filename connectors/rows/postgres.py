"""Rows of the PostgreSQL tables (`schemas/postgres`) and how they are merged."""

from collections.abc import Iterable
from typing import Any

import orjson

from connectors.postgres import Upsert
from connectors.rows.position import Position, optional_timestamp, text, timestamp
from schemas.definitions import ChainDefinition, ChainStep
from schemas.health import HealthWindow
from schemas.internal import COMPLETED, FAILED, Execution, TraceBatch

Rows = dict[str, list[tuple[Any, ...]]]
"""Rows by table, as `PostgresSink.write` takes them."""
_SOURCE = ("source_topic", "source_partition", "source_offset")

EXECUTIONS = Upsert(
    table="flow_executions",
    columns=(
        "tenant", "execution", "chain", "chain_version", "user_id", "tier", "component", "status",
        "started_at",
        "last_event_at", "ended_at", "duration_us", "error_type", "error_message", "steps", "steps_completed",
        "steps_failed", "steps_pending", "missing_steps", "violations", "revision", *_SOURCE,
    ),
    key=("tenant", "execution"),
    revision=("revision", "source_offset"),
)  # fmt: skip

METRICS = Upsert(
    table="flow_metrics",
    columns=(
        "tenant", "kind", "chain", "step", "component", "window_start", "window_end", "revision", "events",
        "started",
        "completed", "failed", "error_ratio", "throughput_per_s", "mean_us", "p50_us", "p95_us", "p99_us",
        "max_us",
        "violations", "affected_executions", "cpu_us", "io_wait_us", "memory_max_bytes", "broker_mean_us",
        "resources",
        *_SOURCE,
    ),
    key=("tenant", "kind", "chain", "step", "component"),
    revision=("window_start", "revision"),
)  # fmt: skip

DEFINITIONS = Upsert(
    table="flow_definitions",
    columns=(
        "tenant", "kind", "name", "version", "description", "definition", "steps", "effective_from",
        "revision", *_SOURCE,
    ),
    key=("tenant", "kind", "name", "version"),
    revision=("revision",),
)  # fmt: skip

CHAINS = Upsert(
    table="flow_chains",
    columns=(
        "tenant", "chain", "version", "position", "step", "component", "after_steps", "expected_duration_us",
        "deadline_us", "optional", "repeated", "input_type", "output_type", "revision",
    ),
    key=("tenant", "chain", "version", "position"),
    revision=("revision",),
    owner=("tenant", "chain", "version"),
)  # fmt: skip


def execution_rows(records: Iterable[tuple[Position, TraceBatch]]) -> Rows:
    """Return the rows of flow_executions."""
    rows = [
        _execution_row(position, execution) for position, batch in records for execution in batch.executions
    ]
    return {EXECUTIONS.table: rows}


def _execution_row(position: Position, e: Execution) -> tuple[Any, ...]:
    statuses = [step.status for step in e.steps.values()]
    return (
        text(e.tenant), text(e.execution), text(e.chain), text(e.chain_version), text(e.user), text(e.tier),
        text(e.component), e.status, optional_timestamp(e.start_us), optional_timestamp(e.last_us),
        optional_timestamp(e.ended_us), e.duration_us, text(e.error_type), text(e.error_message),
        len(statuses),
        statuses.count(COMPLETED), statuses.count(FAILED), e.pending, [text(name) for name in e.missing],
        e.violations, e.revision, *position,
    )  # fmt: skip


def metric_rows(records: Iterable[tuple[Position, HealthWindow]]) -> Rows:
    """Return the rows of flow_metrics."""
    return {METRICS.table: [_metric_row(position, window) for position, window in records]}


def _metric_row(position: Position, w: HealthWindow) -> tuple[Any, ...]:
    resources = {name: summary.model_dump() for name, summary in w.resources.items()}
    return (
        text(w.tenant), w.kind, text(w.chain), text(w.step), text(w.component),
        timestamp(w.window_start_unix_us),
        timestamp(w.window_end_unix_us), w.revision, w.events, w.started, w.completed, w.failed,
        w.error_ratio,
        w.throughput_per_s, w.mean_us, w.p50_us, w.p95_us, w.p99_us, w.max_us, _json(w.violations),
        w.affected_executions,
        w.cpu_us, w.io_wait_us, w.memory_max_bytes, w.broker_mean_us, _json(resources), *position,
    )  # fmt: skip


def definition_rows(records: Iterable[tuple[Position, ChainDefinition]]) -> Rows:
    """Return the rows of flow_definitions and of flow_chains."""
    found = list(records)
    return {
        DEFINITIONS.table: [_definition_row(position, chain) for position, chain in found],
        CHAINS.table: [
            _chain_row(position, chain, place, step)
            for position, chain in found
            for place, step in enumerate(chain.steps)
        ],
    }


def _definition_row(position: Position, d: ChainDefinition) -> tuple[Any, ...]:
    return (
        text(d.tenant or ""), "chain", text(d.name), text(d.version), text(d.description),
        _json(d.model_dump(mode="json", exclude_none=True)), len(d.steps),
        timestamp(d.effective_from_unix_us),
        position.offset, *position,
    )  # fmt: skip


def _chain_row(position: Position, d: ChainDefinition, place: int, s: ChainStep) -> tuple[Any, ...]:
    after = None if s.after is None else [text(name) for name in s.after]
    return (
        text(d.tenant or ""), text(d.name), text(d.version), place, text(s.name), text(s.component), after,
        _microseconds(s.expected_duration_ms), _microseconds(s.deadline_ms), s.optional, s.repeated,
        s.input and text(s.input), s.output and text(s.output), position.offset,
    )  # fmt: skip


def _microseconds(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1000)


def _json(value: Any) -> str:
    # jsonb refuses NUL, which orjson writes as \u0000; an escaped backslash before it is a different text.
    encoded = orjson.dumps(value).decode()
    return encoded if "\\u0000" not in encoded else orjson.dumps(_without_nul(value)).decode()


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {text(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value
