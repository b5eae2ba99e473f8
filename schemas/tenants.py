"""Tenants and their tiers (`flowchain.tenants.v1`, compacted), and what is said when one reaches a limit (`flowchain.limits.v1`)."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Count, Id, Name, Ratio, Record, UnixUs

LimitName = Literal["max_chains", "max_executions_per_day"]
"""The limits that are counted in the stream; the API holds the others."""
TierName = Literal["free", "pro", "enterprise"]


class TierLimits(Record):
    """What a tier allows; a limit that is left out does not exist."""

    max_chains: Count | None = Field(None, description="chains that may be declared; in the stream, distinct chains with an execution in a UTC day")
    max_executions_per_day: Count | None = Field(None, description="executions that ended in a UTC day of event time")
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(None, description="how long executions are kept")
    requests_per_minute: Annotated[int, Field(ge=1)] | None = Field(None, description="of the API, per key")
    features: tuple[Name, ...] = Field((), description="what may be used beside the basic features")


class Tenant(Record):
    """A tenant, its tier, and what that allows: the newest record of a tenant is in force."""

    tenant: Name
    tier: Name
    display_name: Annotated[str, Field(max_length=256)] = ""
    limits: TierLimits = Field(default_factory=TierLimits)


class LimitReached(Record):
    """A tenant's use of a day has come to a share of what its tier allows. Nothing is dropped for it.

    Said once per tenant, day, limit and share; a higher revision corrects it, when late data or another tier do.
    """

    id: Id = Field(description="hash of tenant, limit, period and share")
    revision: Count
    type: Literal["tenant.limit.reached"] = "tenant.limit.reached"
    tenant: Name
    tier: Name
    limit: LimitName
    ratio: Ratio = Field(description="the share: 0.8 ahead of the limit, 1.0 at it")
    period_start_unix_us: UnixUs = Field(description="begin of the UTC day")
    period_end_unix_us: UnixUs
    reached_unix_us: UnixUs = Field(description="event time: end of the window with which the use has come so far")
    used: Count = Field(description="in the period up to then")
    allowed: Count


TIERS: Mapping[TierName, TierLimits] = {
    "free": TierLimits(max_chains=3, max_executions_per_day=1_000, retention_days=7, requests_per_minute=60),
    "pro": TierLimits(
        max_chains=50, max_executions_per_day=100_000, retention_days=30, requests_per_minute=600,
        features=("graphs",),
    ),
    "enterprise": TierLimits(
        retention_days=365, requests_per_minute=6_000, features=("graphs", "slo"),
    ),
}  # fmt: skip
"""The tiers to begin with, as the database has them. A tenant's own record says what holds for it; these are for tenants without one."""
