"""One window: how its pieces add up, and the records that are made of the sum."""

from collections.abc import Iterator, Sequence

from schemas.health import DependencyWindow, HealthWindow, Histogram, OffsetRange, ResourceSummary
from schemas.internal import Delta, EdgeDelta
from schemas.violations import Violation, ViolationType
from streams import histogram
from streams.booking import MAX_INDICATORS, first_by_name, keep_smallest, sample_unit
from streams.ids import derived_id

ERROR_RATE = 0.05
"""Above it, error_rate.exceeded; exactly at it, not."""
ERROR_RATE_MIN_COUNT = 20


def merge_delta(into: Delta, other: Delta) -> None:
    """Add `other` to `into`: the same sum for any order and grouping."""
    for name in (
        "events", "started", "completed", "failed", "duration_sum_us", "cpu_us", "io_wait_us", "broker_count",
        "broker_sum_us", "affected_executions", "units", "clean_units",
    ):  # fmt: skip
        setattr(into, name, getattr(into, name) + getattr(other, name))
    for name in ("duration_max_us", "memory_max_bytes", "broker_max_us"):
        setattr(into, name, max(getattr(into, name), getattr(other, name)))
    for name in ("durations", "own", "gap"):
        histogram.merge(getattr(into, name), getattr(other, name))
    for counts, more in ((into.violations, other.violations), (into.indicators, other.indicators)):
        for key, count in more.items():
            counts[key] = counts.get(key, 0) + count
    into.indicators = first_by_name(into.indicators, MAX_INDICATORS)
    keep_smallest(into.affected, other.affected)
    keep_smallest(into.users, other.users)
    firsts = [t for t in (into.first_violation_unix_us, other.first_violation_unix_us) if t]
    into.first_violation_unix_us = min(firsts, default=0)
    for key, (count, total, largest) in other.samples.items():
        known = into.samples.get(key, (0, 0, largest))
        into.samples[key] = (known[0] + count, known[1] + total, max(known[2], largest))


def merge_edge(into: EdgeDelta, other: EdgeDelta) -> None:
    """Add `other` to `into`."""
    into.count += other.count
    into.failed += other.failed
    into.latency_sum_us += other.latency_sum_us
    into.latency_max_us = max(into.latency_max_us, other.latency_max_us)


def window_kind(total: Delta) -> str:
    """Return what a series is: of a step, of a chain's executions, or of a component."""
    if not total.chain:
        return "component"
    return "step" if total.step else "chain"


def health_window(
    total: Delta, revision: int, sources: Sequence[OffsetRange], watermark_us: int, window_us: int
) -> HealthWindow:
    """Return the health window of a series."""
    ended = total.completed + total.failed
    p50, p95, p99 = (histogram.quantile(total.durations, q) for q in (0.5, 0.95, 0.99))
    buckets = {str(i): n for i, n in sorted(total.durations.items()) if i != histogram.ZERO}
    return HealthWindow.model_validate(
        {
            "id": derived_id(total.tenant, total.chain, total.step, total.component, total.window_start_unix_us),
            "kind": window_kind(total),
            "tenant": total.tenant,
            "chain": total.chain,
            "step": total.step,
            "component": total.component,
            "window_start_unix_us": total.window_start_unix_us,
            "window_end_unix_us": total.window_start_unix_us + window_us,
            "revision": revision,
            "watermark_unix_us": watermark_us,
            "events": total.events,
            "started": total.started,
            "completed": total.completed,
            "failed": total.failed,
            "error_ratio": total.failed / ended if ended else 0.0,
            "throughput_per_s": ended * 1e6 / window_us,
            "mean_us": total.duration_sum_us / ended if ended else 0.0,
            "p50_us": p50,
            "p95_us": p95,
            "p99_us": p99,
            "max_us": total.duration_max_us,
            "durations": Histogram(
                scale=histogram.SCALE, zero_count=total.durations.get(histogram.ZERO, 0), buckets=buckets
            ),
            "violations": total.violations,
            "affected_executions": total.affected_executions,
            "affected_sample": total.affected,
            "cpu_us": total.cpu_us,
            "io_wait_us": total.io_wait_us,
            "memory_max_bytes": total.memory_max_bytes,
            "broker_mean_us": total.broker_sum_us / total.broker_count if total.broker_count else 0.0,
            "broker_max_us": total.broker_max_us,
            "resources": {
                name: ResourceSummary(count=count, mean=value / count / sample_unit(name), max=largest)
                for name, (count, value, largest) in total.samples.items()
            },
            "sources": list(sources),
        }
    )


def dependency_window(total: EdgeDelta, revision: int, window_us: int) -> DependencyWindow:
    """Return the dependency window of an edge."""
    parts = (total.tenant, total.chain, total.kind, total.source, total.target, total.topic, total.window_start_unix_us)
    return DependencyWindow.model_validate(
        {
            "id": derived_id(*parts),
            "tenant": total.tenant,
            "chain": total.chain,
            "kind": total.kind,
            "source": total.source,
            "target": total.target,
            "topic": total.topic,
            "window_start_unix_us": total.window_start_unix_us,
            "window_end_unix_us": total.window_start_unix_us + window_us,
            "revision": revision,
            "count": total.count,
            "failed": total.failed,
            "latency_mean_us": total.latency_sum_us / total.count if total.count else 0.0,
            "latency_max_us": total.latency_max_us,
        }
    )


def broken_promises(window: HealthWindow) -> Iterator[Violation]:
    """Yield what only a whole window shows: a step that fails too often, a component whose clock is ahead."""
    ended = window.completed + window.failed
    if window.kind == "step" and ended >= ERROR_RATE_MIN_COUNT and window.failed > ERROR_RATE * ended:
        detail = f"{window.failed} of {ended} runs of {window.step} failed, more than {ERROR_RATE:.0%}"
        yield _violation("error_rate.exceeded", window, detail, observed_ratio=window.error_ratio)
    if ahead := window.violations.get("clock.ahead"):
        detail = f"{ahead} events of {window.component} were ahead of the broker's clock, and were dated back"
        yield _violation("clock.ahead", window, detail)


def _violation(kind: ViolationType, window: HealthWindow, detail: str, observed_ratio: float | None = None) -> Violation:
    return Violation(
        id=derived_id(kind, window.id), type=kind, tenant=window.tenant, chain=window.chain, step=window.step,
        component=window.component, time_unix_us=window.window_end_unix_us, observed_ratio=observed_ratio, detail=detail,
    )  # fmt: skip
