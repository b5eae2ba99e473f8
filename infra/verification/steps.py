"""What single events tell of an execution and of a run of a step."""

from typing import Any

from infra.verification.windows import Totals
from schemas.internal import COMPLETED, FAILED, Execution, Step
from streams.events import ResourceSampled, StepCompleted, StepFailed, StepStarted

RESOURCES = (
    "cpu_ratio", "memory_ratio", "memory_bytes", "io_wait_ratio", "network_receive_bytes_per_s",
    "network_transmit_bytes_per_s",
)  # fmt: skip


Run = tuple[int, int]
"""(offset of the first event, how many executions had begun in that record before it): tells one run from all others."""


def run_of(x: Execution) -> Run:
    """Return which run of which execution it is."""
    return x.first_offset, x.ordinal


def opened(event: Any, offset: int, ordinal: int) -> Execution:
    """Return an execution as its first event tells of it: it began when that event's work did."""
    start_us = max(0, event.time_unix_us - (getattr(event, "duration_us", None) or 0))
    return Execution(
        event.tenant, event.chain, event.execution, offset, offset, user=event.user or "", tier=event.tier or "",
        chain_version=event.chain_version or "", start_us=start_us, last_us=event.time_unix_us,
        component=event.component or "", ordinal=ordinal,
    )  # fmt: skip


def parents_of(event: StepStarted | StepCompleted | StepFailed) -> list[tuple[str, str, str]]:
    """Return what caused a step, as executions keep it."""
    return [(parent.span, parent.execution or "", parent.component or "") for parent in event.parents or ()]


def keep(x: Execution, step: Step, parents: bool, message: str, limit: int) -> None:
    """Leave out what is too much: parents beyond the first count 256 characters each, texts their length."""
    if parents:
        room = max(0, limit - x.evidence) // 256
        step.parents = step.parents[: room + 1]
        x.evidence += 256 * max(0, len(step.parents) - 1)
    if x.evidence + len(message) <= limit:
        x.evidence += len(message)
    else:
        step.error_message = ""


def end_step(step: Step, event: StepCompleted | StepFailed) -> None:
    """Put into a run of a step what its end tells."""
    began_us, step.end_us = step.start_us, event.time_unix_us
    if event.duration_us is not None:
        step.duration_us = event.duration_us
    elif step.saw_started:
        step.duration_us = max(0, step.end_us - began_us)
    step.start_us = began_us or max(0, step.end_us - step.duration_us)
    step.step, step.component, step.id = event.step, event.component or event.step, event.id or ""
    step.parents = step.parents or parents_of(event)
    step.status = COMPLETED
    if isinstance(event, StepFailed):
        step.status, step.error_type, step.error_message = FAILED, event.error_type, event.error_message or ""
    if event.resources is not None:
        used = event.resources
        step.cpu_us, step.memory_bytes, step.io_wait_us = used.cpu_us, used.memory_bytes, used.io_wait_us
    if event.consumed is not None:
        read = event.consumed
        step.topic, step.topic_partition, step.topic_offset = read.topic, read.partition, read.offset
        step.broker_us = read.broker_us


def add_step(totals: Totals, step: Step) -> None:
    """Add the end of a step to its window."""
    totals.events += 1
    if step.status == FAILED:
        totals.failed += 1
    else:
        totals.completed += 1
    totals.add_duration(step.duration_us)
    totals.cpu_us += step.cpu_us
    totals.io_wait_us += step.io_wait_us
    totals.memory_max_bytes = max(totals.memory_max_bytes, step.memory_bytes)
    if step.topic:
        totals.broker_count += 1
        totals.broker_sum_us += step.broker_us
        totals.broker_max_us = max(totals.broker_max_us, step.broker_us)


def add_samples(totals: Totals, event: ResourceSampled) -> None:
    """Add what was sampled of a component's resources to its window."""
    totals.events += 1
    for name in RESOURCES:
        value = getattr(event, name)
        if value is not None:
            totals.add_sample(name, float(value))
