"""How a chain keeps its service level objective (`flowchain.slo.v1`, compacted)."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Count, DurationUs, Id, Name, Ratio, Record, UnixUs

SloState = Literal["ok", "burning", "exhausted", "withdrawn"]


class BurnRate(Record):
    """How fast the error budget was used up in one stretch of event time; 1 = it would just last for the whole window."""

    window_s: Annotated[int, Field(ge=1)]
    good: Count
    bad: Count
    data_ratio: Ratio = Field(description="share of the stretch in which the chain was followed; below 0.5 nothing pages")
    rate: float = Field(ge=0, description="bad / (good + bad), over the share that may be bad; 0 without executions")


class SloStatus(Record):
    """The state of one chain's objective. Of two records of an id, the one with the later `updated_unix_us` is right."""

    id: Id = Field(description="hash of tenant and chain")
    tenant: Name
    chain: Name
    state: SloState = Field(
        description="exhausted: more was bad in the window than may be; burning: an alert is open; withdrawn: no objective any more"
    )
    objective: Annotated[float, Field(gt=0, lt=1)]
    window_days: Annotated[int, Field(ge=1)]
    latency_us: DurationUs | None = Field(None, description="executions that took longer are bad, too")
    good: Count = Field(description="executions in the window")
    bad: Count = Field(description="of the others: failed, incomplete, abandoned, too slow")
    budget_remaining_ratio: float = Field(le=1, description="1 = nothing used, 0 = used up, below 0 = overdrawn; of what has run so far")
    burn: list[BurnRate] = Field(description="shortest stretch first")
    since_unix_us: UnixUs = Field(description="event time from which on the chain was followed")
    updated_unix_us: UnixUs
    alert: Id | None = Field(None, description="the alert that is open")
