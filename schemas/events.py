"""What services emit to `flowchain.events.v1`: JSON objects, one per message or several in an array; key = execution id.

An array is the same as its events one after the other in messages of their own: each stands and falls by itself.
These models are the contract. Ingest decodes with the Structs of `streams/events.py`, which are held to the same
verdict on any input by a property test.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.base import DurationUs, Id, Name, Record, TopicName, UnixUs

AttributeValue = str | bool | int | Annotated[float, Field(allow_inf_nan=False)]
Attributes = Annotated[dict[Annotated[str, Field(max_length=128)], AttributeValue], Field(max_length=32)]


class Parent(Record):
    """What caused a step: a span of this execution, or of another one where a batch joins several."""

    span: Id
    execution: Id | None = Field(None, description="set when the parent belongs to another execution")
    component: Name | None = Field(None, description="known to the SDK from its context, so that an edge needs no state")


class Resources(Record):
    """What a step used."""

    cpu_us: DurationUs = 0
    memory_bytes: Annotated[int, Field(ge=0, le=2**60)] = 0
    io_wait_us: DurationUs = 0


class ConsumedRecord(Record):
    """The Kafka record that a step worked on."""

    topic: TopicName
    partition: Annotated[int, Field(ge=0, le=2**31 - 1)]
    offset: Annotated[int, Field(ge=0, le=2**63 - 1)]
    broker_us: DurationUs = Field(0, description="time between its production and its consumption")


class _Event(Record):
    chain: Name
    execution: Id
    time_unix_us: UnixUs
    tenant: Name = "default"
    component: Name | None = Field(None, description="who did it; the step's name where it is left out")
    id: Id | None = Field(None, description="unique per event; two different ids are never taken for a duplicate")
    user: Name | None = None
    tier: Name | None = Field(None, description="subscription tier of the tenant or user")
    chain_version: Id | None = None
    traceparent: Annotated[str, Field(max_length=128)] | None = Field(None, description="W3C trace context")
    attributes: Attributes | None = None


ErrorCategory = Annotated[
    Name | None,
    Field(description="kind of trouble: data, model, dependency, timeout, capacity, permission, cancelled, bug, unknown, or one of the service's own"),
]


class _StepEvent(_Event):
    step: Name
    span: Id | None = Field(None, description="this run of the step; step and attempt where it is left out")
    parents: Annotated[list[Parent], Field(max_length=256)] | None = None
    attempt: Annotated[int, Field(ge=1, le=10_000)] = 1


class _EndedStep(_StepEvent):
    duration_us: DurationUs | None = Field(None, description="since step.started where it is left out")
    resources: Resources | None = None
    consumed: ConsumedRecord | None = None


class StepStarted(_StepEvent):
    """A component began a step."""

    type: Literal["step.started"]


class StepCompleted(_EndedStep):
    """A component finished a step; its time is the end."""

    type: Literal["step.completed"]


class StepFailed(_EndedStep):
    """A component gave up a step; its time is the end."""

    type: Literal["step.failed"]
    error_type: Name = Field(description="low cardinality, e.g. an exception class or an error taxonomy entry")
    error_message: Annotated[str, Field(max_length=2048)] | None = None
    error_category: ErrorCategory = None


class ExecutionStarted(_Event):
    """One run of a chain began."""

    type: Literal["execution.started"]


class ExecutionCompleted(_Event):
    """One run of a chain ended well."""

    type: Literal["execution.completed"]
    duration_us: DurationUs | None = None


class ExecutionFailed(_Event):
    """One run of a chain ended badly."""

    type: Literal["execution.failed"]
    duration_us: DurationUs | None = None
    error_type: Name
    error_message: Annotated[str, Field(max_length=2048)] | None = None
    error_category: ErrorCategory = None


class LogObserved(Record):
    """A log statement of a component, of an execution's step where it is known."""

    type: Literal["log.observed"]
    component: Name
    level: Literal["trace", "debug", "info", "warn", "error", "fatal"]
    template: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        description="identity of the statement: its code location (logger:line), else its template without values"
    )
    time_unix_us: UnixUs
    tenant: Name = "default"
    chain: Name | None = None
    execution: Id | None = None
    step: Name | None = None
    span: Id | None = None
    id: Id | None = None


class ResourceSampled(Record):
    """What a component (or one instance of it) used at a moment."""

    type: Literal["resource.sampled"]
    component: Name
    time_unix_us: UnixUs
    tenant: Name = "default"
    instance: Name | None = None
    cpu_ratio: Annotated[float, Field(ge=0, le=1e6)] | None = Field(None, description="share of the limit")
    memory_ratio: Annotated[float, Field(ge=0, le=1e6)] | None = Field(None, description="share of the limit")
    memory_bytes: Annotated[int, Field(ge=0, le=2**60)] | None = None
    io_wait_ratio: Annotated[float, Field(ge=0, le=1e6)] | None = None
    network_receive_bytes_per_s: Annotated[float, Field(ge=0, le=1e18)] | None = None
    network_transmit_bytes_per_s: Annotated[float, Field(ge=0, le=1e18)] | None = None


class ClockTick(Record):
    """Silence, on the log: written to an idle partition by its ingest worker so that event time moves on."""

    type: Literal["clock.tick"]
    time_unix_us: UnixUs


StepEvent = StepStarted | StepCompleted | StepFailed
ChainEvent = Annotated[
    StepStarted
    | StepCompleted
    | StepFailed
    | ExecutionStarted
    | ExecutionCompleted
    | ExecutionFailed
    | LogObserved
    | ResourceSampled
    | ClockTick,
    Field(discriminator="type"),
]
CHAIN_EVENT: TypeAdapter[ChainEvent] = TypeAdapter(ChainEvent)
"""Validates one event: `CHAIN_EVENT.validate_json(value)`."""
CHAIN_MESSAGE: TypeAdapter[ChainEvent | list[ChainEvent]] = TypeAdapter(
    ChainEvent | Annotated[list[ChainEvent], Field(min_length=1)]
)
"""Validates the value of a message: an event, or several in an array."""
