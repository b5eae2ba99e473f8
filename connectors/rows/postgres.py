"""Rows of the PostgreSQL tables (`schemas/postgres`) and how they are merged."""

from collections.abc import Iterable
from typing import Any

import orjson

from connectors.merging import Upsert
from connectors.rows.position import Position, optional_timestamp, text, timestamp
from schemas.analysis import Alert, Incident
from schemas.health import DependencyWindow, HealthWindow
from schemas.internal import COMPLETED, FAILED, Execution, TraceBatch

Rows = dict[str, list[tuple[Any, ...]]]
"""Rows by table, as `PostgresSink.write` takes them."""
_SOURCE = ("source_topic", "source_partition", "source_offset")

EXECUTIONS = Upsert(
    table="flow_executions",
    columns=(
        "tenant", "execution", "started_on", "chain", "chain_version", "user_id", "tier", "component", "status",
        "started_at", "last_event_at", "ended_at", "duration_us", "error_type", "error_message", "steps", "steps_completed",
        "steps_failed", "steps_pending", "missing_steps", "violations", "revision", *_SOURCE,
    ),
    key=("tenant", "execution", "started_on"),
    revision=("revision", "source_offset"),
    day="started_on",
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

DEPENDENCIES = Upsert(
    table="flow_dependencies",
    columns=(
        "tenant", "provenance", "kind", "flow", "source", "target", "topic", "events", "failed", "latency_mean_us", "revision",
        "first_seen_at", "last_seen_at", *_SOURCE,
    ),
    key=("tenant", "provenance", "kind", "flow", "source", "target", "topic"),
    revision=("last_seen_at", "revision"),
    earliest="first_seen_at",
)  # fmt: skip

_REVISED = (
    "tenant", "id", "revision", "status", "severity", "title", "cause", "opened_at", "updated_at", "resolved_at", "document", *_SOURCE,
)  # fmt: skip
INCIDENTS = Upsert("flow_incidents", _REVISED, key=("tenant", "id"), revision=("revision",), touched="stored_at")
ALERTS = Upsert("flow_alerts", _REVISED, key=("tenant", "id"), revision=("revision",), touched="stored_at")


def execution_rows(records: Iterable[tuple[Position, TraceBatch]]) -> Rows:
    """Return the rows of flow_executions."""
    rows = [
        _execution_row(position, execution) for position, batch in records for execution in batch.executions
    ]
    return {EXECUTIONS.table: rows}


def _execution_row(position: Position, e: Execution) -> tuple[Any, ...]:
    statuses = [step.status for step in e.steps.values()]
    return (
        text(e.tenant), text(e.execution), timestamp(e.start_us or e.last_us).date(), text(e.chain), text(e.chain_version),
        text(e.user), text(e.tier),
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


def dependency_rows(records: Iterable[tuple[Position, DependencyWindow]]) -> Rows:
    """Return the rows of flow_dependencies: what was observed."""
    return {DEPENDENCIES.table: [_dependency_row(position, window) for position, window in records]}


def _dependency_row(position: Position, w: DependencyWindow) -> tuple[Any, ...]:
    return (
        text(w.tenant), "observed", w.kind, text(w.chain), text(w.source), text(w.target), text(w.topic), w.count, w.failed,
        w.latency_mean_us, w.revision, timestamp(w.window_start_unix_us), timestamp(w.window_end_unix_us), *position,
    )  # fmt: skip


def incident_rows(records: Iterable[tuple[Position, Incident]]) -> Rows:
    """Return the rows of flow_incidents."""
    return {
        INCIDENTS.table: [
            _revised_row(position, incident, incident.suspects[0].component if incident.suspects else "")
            for position, incident in records
        ]
    }


def alert_rows(records: Iterable[tuple[Position, Alert]]) -> Rows:
    """Return the rows of flow_alerts."""
    return {
        ALERTS.table: [_revised_row(position, alert, alert.cause.component if alert.cause else "") for position, alert in records]
    }


def _revised_row(position: Position, x: Incident | Alert, cause: str) -> tuple[Any, ...]:
    return (
        text(x.tenant), x.id, x.revision, x.status, x.severity, text(x.title), text(cause), timestamp(x.opened_unix_us),
        timestamp(x.updated_unix_us), optional_timestamp(x.resolved_unix_us or 0), _json(x.model_dump(mode="json")), *position,
    )  # fmt: skip


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
