"""Runs of steps, as their events tell of them. Hot path: one call of a constructor costs less than setting fields."""

from schemas.internal import COMPLETED, FAILED, HEARD_OF
from streams.events import ConsumedRecord, Parent, Resources, StepCompleted, StepFailed
from streams.runs import Step

RESOURCES = (
    "cpu_ratio", "memory_ratio", "memory_bytes", "io_wait_ratio", "network_receive_bytes_per_s",
    "network_transmit_bytes_per_s",
)  # fmt: skip
"""What may be sampled of a component."""
NOTHING_USED = Resources()
NOTHING_READ = ConsumedRecord("", 0, 0)


def parents_of(parents: list[Parent] | None) -> list[tuple[str, str, str]]:
    """Return what caused a step: (span, execution or "", component or "") each."""
    return [(parent.span, parent.execution or "", parent.component or "") for parent in parents] if parents else []


def ended(begun: Step | None, span: str, event: StepCompleted | StepFailed, offset: int) -> Step:
    """Return the run of a step that has ended; `begun` is what was known of it."""
    end_us, duration_us = event.time_unix_us, event.duration_us
    if begun is None:
        start_us, saw_started, attempt, logs = 0, False, event.attempt, []
        parents = parents_of(event.parents)
    else:
        start_us, saw_started, logs = begun.start_us, begun.saw_started, begun.logs
        attempt = event.attempt if begun.status == HEARD_OF else begun.attempt
        parents, offset = begun.parents or parents_of(event.parents), begun.offset
    if duration_us is None:
        duration_us = max(0, end_us - start_us) if saw_started else 0
    if not start_us and end_us > duration_us:
        start_us = end_us - duration_us
    status, error_type, error_message = COMPLETED, "", ""
    if type(event) is StepFailed:
        status, error_type, error_message = FAILED, event.error_type, event.error_message or ""
    used, read = event.resources or NOTHING_USED, event.consumed or NOTHING_READ
    return Step(
        span, event.step, event.component or event.step, offset, attempt, parents, status, start_us, end_us, duration_us,
        saw_started, event.id or "", error_type, error_message, used.cpu_us, used.memory_bytes, used.io_wait_us,
        read.topic, read.partition, read.offset, read.broker_us, logs,
    )  # fmt: skip
