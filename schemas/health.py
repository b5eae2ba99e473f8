"""Health windows and dependency windows: what the merged partials say once event time has passed."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Count, DurationUs, Id, Name, OptionalName, Ratio, Record, UnixUs


class OffsetRange(Record):
    """Evidence: a stretch of a partition, both ends included."""

    topic: Name
    partition: Count
    first_offset: Count
    last_offset: Count


class Histogram(Record):
    """OpenTelemetry exponential histogram of durations in µs: bucket i holds (base^i, base^(i+1)], base = 2^(2^-scale)."""

    scale: int
    zero_count: Count = 0
    buckets: dict[str, Count]


class ResourceSummary(Record):
    """Samples of one resource in a window."""

    count: Count
    mean: float
    max: float


class HealthWindow(Record):
    """One window of a step, of a chain's executions, or of a component's resources.

    kind step: tenant, chain, step and component are set. kind chain: step and component are "".
    kind component: chain and step are "".
    """

    id: Id = Field(description="hash of tenant, chain, step, component, window start")
    kind: Literal["step", "chain", "component"]
    tenant: Name
    chain: OptionalName
    step: OptionalName
    component: OptionalName
    window_start_unix_us: UnixUs
    window_end_unix_us: UnixUs
    revision: Count = Field(description="0 when it closes; higher when late data changed it")
    watermark_unix_us: UnixUs
    events: Count = Field(description="all events of this key in the window, duplicates left out")
    started: Count
    completed: Count
    failed: Count
    error_ratio: Ratio = Field(description="failed / (completed + failed), 0 without either")
    throughput_per_s: float
    mean_us: float
    p50_us: float
    p95_us: float
    p99_us: float
    max_us: DurationUs
    durations: Histogram
    violations: dict[str, Count] = Field(description="count per violation type")
    affected_executions: Count
    affected_sample: list[Id] = Field(description="some of the executions with a violation")
    cpu_us: Count
    io_wait_us: Count
    memory_max_bytes: Count
    broker_mean_us: float = Field(description="mean time of consumed records in the broker")
    broker_max_us: DurationUs
    resources: dict[str, ResourceSummary]
    sources: list[OffsetRange]


class DependencyWindow(Record):
    """One observed edge of the dependency graph in one window."""

    id: Id
    tenant: Name
    chain: OptionalName
    kind: Literal["call", "flow", "topic"] = Field(
        description="call: source waits for target; flow: target works on what source left; topic: a flow through Kafka"
    )
    source: Name
    target: Name
    topic: Annotated[str, Field(max_length=249)] = ""
    window_start_unix_us: UnixUs
    window_end_unix_us: UnixUs
    revision: Count
    count: Count
    failed: Count = Field(description="of them, target failed")
    latency_mean_us: float = Field(description="from source's end to target's end; for a call, target's duration")
    latency_max_us: DurationUs
