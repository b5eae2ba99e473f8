"""An execution and its steps while they are followed: what the hot path works on, written as records when they are published.

The records are `schemas.internal.Execution` and `Step`, where the fields are described. These here have the same ones, but
a layout that the compiler knows (see `infra/compiling.py`): reading a field of them costs a hundredth of a microsecond.
"""

from mypy_extensions import mypyc_attr

from schemas import internal
from schemas.internal import STARTED

Parent = tuple[str, str, str]
"""(span, execution or "", component or "")"""


@mypyc_attr(acyclic=True)
class Step:
    """One run of a step in an execution."""

    __slots__ = (
        "attempt", "broker_us", "component", "cpu_us", "duration_us", "end_us", "error_message", "error_type", "id",
        "io_wait_us", "logs", "memory_bytes", "offset", "parents", "saw_started", "span", "start_us", "status", "step",
        "topic", "topic_offset", "topic_partition",
    )  # fmt: skip

    def __init__(
        self, span: str, step: str, component: str, offset: int, attempt: int = 1, parents: list[Parent] | None = None,
        status: str = STARTED, start_us: int = 0, end_us: int = 0, duration_us: int = 0, saw_started: bool = False,
        id: str = "", error_type: str = "", error_message: str = "", cpu_us: int = 0, memory_bytes: int = 0,
        io_wait_us: int = 0, topic: str = "", topic_partition: int = 0, topic_offset: int = 0, broker_us: int = 0,
        logs: list[str] | None = None,
    ) -> None:  # fmt: skip
        self.span = span
        self.step = step
        self.component = component
        self.offset = offset
        self.attempt = attempt
        self.parents: list[Parent] = [] if parents is None else parents
        self.status = status
        self.start_us = start_us
        self.end_us = end_us
        self.duration_us = duration_us
        self.saw_started = saw_started
        self.id = id
        self.error_type = error_type
        self.error_message = error_message
        self.cpu_us = cpu_us
        self.memory_bytes = memory_bytes
        self.io_wait_us = io_wait_us
        self.topic = topic
        self.topic_partition = topic_partition
        self.topic_offset = topic_offset
        self.broker_us = broker_us
        self.logs: list[str] = [] if logs is None else logs

    def record(self) -> internal.Step:
        """Return it as it is published."""
        return internal.Step(
            self.span, self.step, self.component, self.offset, self.attempt, self.parents, self.status, self.start_us,
            self.end_us, self.duration_us, self.saw_started, self.id, self.error_type, self.error_message, self.cpu_us,
            self.memory_bytes, self.io_wait_us, self.topic, self.topic_partition, self.topic_offset, self.broker_us, self.logs,
        )  # fmt: skip

    @staticmethod
    def of(record: internal.Step) -> "Step":
        """Return what was published as such a record."""
        return Step(
            record.span, record.step, record.component, record.offset, record.attempt, record.parents, record.status,
            record.start_us, record.end_us, record.duration_us, record.saw_started, record.id, record.error_type,
            record.error_message, record.cpu_us, record.memory_bytes, record.io_wait_us, record.topic,
            record.topic_partition, record.topic_offset, record.broker_us, record.logs,
        )  # fmt: skip


@mypyc_attr(acyclic=True)
class Execution:
    """One run of a chain, as ingest knows it."""

    __slots__ = (
        "chain", "chain_version", "component", "duration_us", "ended_us", "ends", "error_message", "error_type", "evidence",
        "execution", "finished_us", "first_offset", "last_offset", "last_us", "missing", "ordinal", "pending", "revision",
        "saw", "start_us", "status", "steps", "tenant", "tier", "user", "violations",
    )  # fmt: skip

    def __init__(
        self, tenant: str, chain: str, execution: str, first_offset: int, last_offset: int, user: str = "", tier: str = "",
        chain_version: str = "", status: str = "open", start_us: int = 0, last_us: int = 0, ended_us: int = 0,
        duration_us: int = 0, component: str = "", error_type: str = "", error_message: str = "",
        steps: dict[str, Step] | None = None, pending: int = 0, missing: list[str] | None = None,
        ends: dict[str, int] | None = None, violations: int = 0, saw: int = 0, revision: int = 0, finished_us: int = 0,
        ordinal: int = 0, evidence: int = 0,
    ) -> None:  # fmt: skip
        self.tenant = tenant
        self.chain = chain
        self.execution = execution
        self.first_offset = first_offset
        self.last_offset = last_offset
        self.user = user
        self.tier = tier
        self.chain_version = chain_version
        self.status = status
        self.start_us = start_us
        self.last_us = last_us
        self.ended_us = ended_us
        self.duration_us = duration_us
        self.component = component
        self.error_type = error_type
        self.error_message = error_message
        self.steps: dict[str, Step] = {} if steps is None else steps
        self.pending = pending
        self.missing: list[str] = [] if missing is None else missing
        self.ends: dict[str, int] = {} if ends is None else ends
        self.violations = violations
        self.saw = saw
        self.revision = revision
        self.finished_us = finished_us
        self.ordinal = ordinal
        self.evidence = evidence

    def record(self) -> internal.Execution:
        """Return it as it is published; it shares the lists and maps, so encode it before anything happens."""
        return internal.Execution(
            self.tenant, self.chain, self.execution, self.first_offset, self.last_offset, self.user, self.tier,
            self.chain_version, self.status, self.start_us, self.last_us, self.ended_us, self.duration_us, self.component,
            self.error_type, self.error_message, {span: step.record() for span, step in self.steps.items()}, self.pending,
            self.missing, self.ends, self.violations, self.saw, self.revision, self.finished_us, self.ordinal, self.evidence,
        )  # fmt: skip

    @staticmethod
    def of(record: internal.Execution) -> "Execution":
        """Return what was published as such a record."""
        return Execution(
            record.tenant, record.chain, record.execution, record.first_offset, record.last_offset, record.user, record.tier,
            record.chain_version, record.status, record.start_us, record.last_us, record.ended_us, record.duration_us,
            record.component, record.error_type, record.error_message,
            {span: Step.of(step) for span, step in record.steps.items()}, record.pending, record.missing, record.ends,
            record.violations, record.saw, record.revision, record.finished_us, record.ordinal, record.evidence,
        )  # fmt: skip
