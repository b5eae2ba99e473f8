"""Rows of the ClickHouse tables (`schemas/clickhouse`), column by column, without `inserted_at`, which the
sink adds.

Times are integers: the driver takes microseconds for DateTime64(6) as they are.
"""

from collections.abc import Iterable
from typing import Any

from connectors.rows.position import Position, turned
from schemas.analysis import Anomaly
from schemas.health import DependencyWindow, HealthWindow
from schemas.operations import RecoveryAction

Columns = list[tuple[Any, ...]]
_SOURCE = ("source_topic", "source_partition", "source_offset")

HEALTH_TABLE = "chain_health_metrics"
HEALTH_COLUMNS = (
    "id", "kind", "tenant", "chain", "step", "component", "window_start", "window_end", "revision",
    "watermark", "events",
    "started", "completed", "failed", "error_ratio", "throughput_per_s", "mean_us", "p50_us", "p95_us",
    "p99_us", "max_us",
    "durations_scale", "durations_zero", "durations_buckets", "violations", "affected_executions",
    "affected_sample",
    "cpu_us", "io_wait_us", "memory_max_bytes", "broker_mean_us", "broker_max_us", "resources", "sources",
    *_SOURCE,
)  # fmt: skip

DEPENDENCY_TABLE = "chain_dependency_events"
DEPENDENCY_COLUMNS = (
    "id", "tenant", "chain", "kind", "source", "target", "topic", "window_start", "window_end", "revision",
    "count",
    "failed", "latency_mean_us", "latency_max_us", *_SOURCE,
)  # fmt: skip

ANOMALY_TABLE = "chain_anomalies"
ANOMALY_COLUMNS = (
    "id", "revision", "tenant", "chain", "step", "component", "window_start", "window_end", "score",
    "threshold",
    "direction", "features", "learned_windows", "detectors_version", *_SOURCE,
)  # fmt: skip

RECOVERY_TABLE = "chain_recovery_actions"
RECOVERY_COLUMNS = (
    "id", "revision", "command", "incident", "tenant", "chain", "component", "strategy", "status", "time",
    "breaker",
    "detail", *_SOURCE,
)  # fmt: skip


def health_columns(records: Iterable[tuple[Position, HealthWindow]]) -> Columns:
    """Return the rows of HEALTH_COLUMNS: one per window."""
    return turned([_health_row(position, window) for position, window in records], len(HEALTH_COLUMNS))


def _health_row(position: Position, w: HealthWindow) -> tuple[Any, ...]:
    return (
        w.id, w.kind, w.tenant, w.chain, w.step, w.component, w.window_start_unix_us, w.window_end_unix_us,
        w.revision,
        w.watermark_unix_us, w.events, w.started, w.completed, w.failed, w.error_ratio, w.throughput_per_s,
        w.mean_us,
        w.p50_us, w.p95_us, w.p99_us, w.max_us, w.durations.scale, w.durations.zero_count,
        {int(bucket): count for bucket, count in w.durations.buckets.items()}, w.violations,
        w.affected_executions,
        w.affected_sample, w.cpu_us, w.io_wait_us, w.memory_max_bytes, w.broker_mean_us, w.broker_max_us,
        [(name, summary.count, summary.mean, summary.max) for name, summary in w.resources.items()],
        [(r.topic, r.partition, r.first_offset, r.last_offset) for r in w.sources], *position,
    )  # fmt: skip


def dependency_columns(records: Iterable[tuple[Position, DependencyWindow]]) -> Columns:
    """Return the rows of DEPENDENCY_COLUMNS: one per edge and window."""
    return turned(
        [_dependency_row(position, window) for position, window in records], len(DEPENDENCY_COLUMNS)
    )


def _dependency_row(position: Position, w: DependencyWindow) -> tuple[Any, ...]:
    return (
        w.id, w.tenant, w.chain, w.kind, w.source, w.target, w.topic, w.window_start_unix_us,
        w.window_end_unix_us,
        w.revision, w.count, w.failed, w.latency_mean_us, w.latency_max_us, *position,
    )  # fmt: skip


def anomaly_columns(records: Iterable[tuple[Position, Anomaly]]) -> Columns:
    """Return the rows of ANOMALY_COLUMNS: one per anomaly and revision."""
    return turned([_anomaly_row(position, anomaly) for position, anomaly in records], len(ANOMALY_COLUMNS))


def _anomaly_row(position: Position, a: Anomaly) -> tuple[Any, ...]:
    return (
        a.id, a.revision, a.tenant, a.chain, a.step, a.component, a.window_start_unix_us,
        a.window_end_unix_us, a.score,
        a.threshold, a.direction, [(f.feature, f.detector, f.value, f.expected, f.contribution) for f in
        a.features],
        a.learned_windows, a.detectors_version, *position,
    )  # fmt: skip


def recovery_columns(records: Iterable[tuple[Position, RecoveryAction]]) -> Columns:
    """Return the rows of RECOVERY_COLUMNS: one per state of an action."""
    return turned([_recovery_row(position, action) for position, action in records], len(RECOVERY_COLUMNS))


def _recovery_row(position: Position, a: RecoveryAction) -> tuple[Any, ...]:
    return (
        a.id, a.revision, a.command, a.incident, a.tenant, a.chain, a.component, a.strategy, a.status,
        a.time_unix_us,
        a.breaker, a.detail, *position,
    )  # fmt: skip
