"""What the analysis concludes: anomalies, incidents and alerts."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Count, Id, Name, OptionalName, Ratio, Record, UnixUs
from schemas.health import OffsetRange

Severity = Literal["info", "warning", "critical"]


class FeatureContribution(Record):
    """Why a window was unusual: one feature as one detector saw it."""

    feature: Name
    detector: Name
    value: float
    expected: float | None = None
    contribution: Ratio = Field(description="share of the score")


class Anomaly(Record):
    """A health window that differs from what its key has shown before (`flowchain.anomalies.v1`)."""

    id: Id
    revision: Count = 0
    tenant: Name
    chain: OptionalName
    step: OptionalName
    component: OptionalName
    window_start_unix_us: UnixUs
    window_end_unix_us: UnixUs
    score: Ratio
    threshold: Ratio
    direction: Literal["higher", "lower", "other"] = Field(description="of the leading feature against expectation")
    features: list[FeatureContribution] = Field(description="strongest first")
    learned_windows: Count = Field(description="windows the detectors had learned from")
    detectors_version: Name


class Suspect(Record):
    """A component that may be the cause."""

    component: Name
    step: OptionalName = ""
    score: float
    probability: Ratio
    reader: Name = Field(description="which root-cause reader put it here")
    reason: Annotated[str, Field(max_length=512)] = Field(description="one sentence for a person")


class Hurt(Record):
    """Something that is, or will be, affected."""

    kind: Literal["component", "chain", "topic"]
    name: Name
    probability: Ratio
    observed: bool = Field(description="already seen to be hurt")
    expected_arrival_unix_us: UnixUs | None = None
    hops: Count
    path: list[Name] = Field(description="from the suspect to here")


class Incident(Record):
    """Anomalies and violations that belong together (`flowchain.incidents.v1`)."""

    id: Id
    revision: Count
    tenant: Name
    status: Literal["open", "resolved"]
    opened_unix_us: UnixUs
    first_fault_unix_us: UnixUs
    updated_unix_us: UnixUs
    resolved_unix_us: UnixUs | None = None
    severity: Severity
    title: Annotated[str, Field(max_length=256)]
    suspects: list[Suspect] = Field(description="most likely first; empty when the evidence is thin")
    blast_radius: list[Hurt]
    chains: list[Name]
    affected_executions: Count
    affected_sample: list[Id]
    affected_users: list[Name] = Field(default_factory=list)
    violations: dict[str, Count]
    anomalies: list[Id]
    evidence: list[OffsetRange]


class Cause(Record):
    """The leading suspect, as an alert carries it."""

    component: Name
    step: OptionalName = ""
    probability: Ratio
    reason: Annotated[str, Field(max_length=512)]


class Alert(Record):
    """What pages a person (`flowchain.alerts.v1`): corrected by higher revisions of the same id, never repeated."""

    id: Id
    revision: Count
    status: Literal["opened", "updated", "resolved", "retracted"]
    severity: Severity
    tenant: Name
    incident: Id = Field(description="what it speaks of; of an alert about an objective, the id of that")
    slo: Id | None = Field(None, description="the objective whose error budget burns; there is no incident then")
    title: Annotated[str, Field(max_length=256)]
    summary: Annotated[str, Field(max_length=1024)]
    cause: Cause | None = None
    suspects: list[Suspect]
    affected: list[Hurt]
    affected_chains: list[Name]
    affected_executions: Count
    affected_sample: list[Id]
    violations: dict[str, Count]
    first_fault_unix_us: UnixUs
    opened_unix_us: UnixUs
    updated_unix_us: UnixUs
    resolved_unix_us: UnixUs | None = None
    evidence: list[OffsetRange]
