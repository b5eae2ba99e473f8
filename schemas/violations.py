"""Broken promises of single executions (`flowchain.violations.v1`)."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Count, DurationUs, Id, Name, OptionalName, Record, UnixUs

ViolationType = Literal[
    "step.failed",
    "step.slow",
    "step.missing",
    "step.late",
    "step.delayed",
    "step.out_of_order",
    "step.unexpected",
    "step.duplicated",
    "execution.failed",
    "error_rate.exceeded",
    "cardinality.exceeded",
    "clock.ahead",
]


class LogPosition(Record):
    """Where on the log something was seen."""

    topic: Name
    partition: Count
    offset: Count


class Violation(Record):
    """One broken promise. The id is a hash of what identifies it: seen twice, it is the same."""

    id: Id
    type: ViolationType
    tenant: Name
    chain: OptionalName = Field(description="empty where no chain is meant, as of clock.ahead")
    step: OptionalName = ""
    component: OptionalName = ""
    execution: Id | None = None
    user: Name | None = None
    tier: Name | None = None
    time_unix_us: UnixUs = Field(description="event time at which the promise was broken")
    duration_us: DurationUs | None = None
    expected_us: DurationUs | None = Field(None, description="allowed duration, or the deadline's length")
    observed_ratio: float | None = Field(None, description="of error_rate.exceeded")
    error_type: Name | None = None
    error_message: Annotated[str, Field(max_length=2048)] | None = None
    detail: Annotated[str, Field(max_length=512)] = Field(description="one sentence for a person")
    position: LogPosition | None = Field(None, description="the event that showed it; none for what never came")
