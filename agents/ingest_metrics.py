"""What a transaction of ingest tells in /metrics."""

from collections import Counter

from agents.ingest_output import Pending
from connectors.telemetry import EVENTS, EXECUTIONS, LAG, LIMIT_REACHED, OPEN_EXECUTIONS, VIOLATIONS, WATERMARK
from streams.tracker import Tracker

LIMIT_COUNTS = (
    "untracked_steps", "closed_by_limit", "finished_over_limit", "series_over_limit", "edges_over_limit", "evidence_over_limit",
)  # fmt: skip


def measure(topic: str, tracker: Tracker, pending: Pending, end: int) -> None:
    """Count what one source partition of `topic` had in a transaction; `end` is the offset after its last record."""
    counts = pending.out.counts
    for name in LIMIT_COUNTS:
        LIMIT_REACHED.labels(name).inc(counts.get(name, 0))
    for stage, count in Counter(dead.refused.stage for dead in pending.dead).items():
        EVENTS.labels(stage).inc(count)
    duplicates, ticks = counts.get("duplicates", 0), counts.get("ticks", 0)
    EVENTS.labels("duplicate").inc(duplicates)
    EVENTS.labels("tick").inc(ticks)
    EVENTS.labels("applied").inc(pending.events - len(pending.dead) - duplicates - ticks)
    for kind, count in Counter(violation.type for violation in pending.out.violations).items():
        VIOLATIONS.labels(kind).inc(count)
    for status, count in Counter(x.execution.status for x in pending.out.finished.values() if not x.execution.revision).items():
        EXECUTIONS.labels(status).inc(count)
    partition = str(tracker.partition)
    OPEN_EXECUTIONS.labels(partition).set(tracker.open_executions)
    WATERMARK.labels("ingest", partition).set(tracker.watermark_us / 1e6)
    LAG.labels("ingest", topic, partition).set(max(0, end - tracker.next_offset))
