"""What the business asks: which chains are used, whether they get slower, what fails for whom, and what costs most.

But for the slowest runs, a stretch of time stands for the quarters of an hour that begin in it.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from connectors.http import times
from connectors.http.paging import Page, Paged
from connectors.http.parameters import Named, NameInPath
from connectors.http.routes.executions import ExecutionSummary, list_executions
from connectors.http.scope import Reader
from schemas.base import WITHOUT_CONTROLS

router = APIRouter(prefix="/v1", tags=["business"])
Most = Annotated[int, Query(ge=1, le=1000, description="at most so many")]


class ChainUse(BaseModel):
    """How much a chain is used."""

    chain: str
    executions: int
    users: int = Field(description="distinct users, within 2 %")
    success_ratio: float
    tiers: list[str]


class ChainTrend(BaseModel):
    """Whether a chain gets faster or slower."""

    chain: str
    executions: int
    buckets: int = Field(description="points in time that have completed executions")
    mean_us: float
    change_ratio: float = Field(description="from the first to the last point of the straight line through them; 0.5 = half as slow again")
    trend: Literal["faster", "steady", "slower", "unknown"]
    change_unix_us: int = Field(description="since when its level differs most from before; 0: unknown")
    before_us: float = Field(description="mean duration before that")
    after_us: float = Field(description="mean duration since")


class FailingStep(BaseModel):
    """How often a step fails for a tier."""

    chain: str
    step: str
    component: str
    tier: str
    runs: int
    failures: int
    failure_ratio: float


class ResourceUse(BaseModel):
    """What a chain consumes."""

    chain: str
    executions: int
    cpu_us: int
    cpu_us_per_execution: float
    io_wait_us: int
    memory_max_bytes: int
    busy_us: int = Field(description="durations of all its steps")


class SlowRun(BaseModel):
    """A run of a step that took long."""

    execution: str
    span: str
    step: str
    component: str
    status: str
    start_unix_us: int
    duration_us: int


class UserMetrics(BaseModel):
    """What a user has run."""

    user: str
    executions: int
    completed: int
    failed: int
    mean_duration_us: float | None = Field(description="null without executions")
    success_ratio: float | None = Field(description="null without executions")
    most_used_chains: list[str]


@router.get("/business/most-used-chains", summary="Which chains do users execute most frequently?")
def most_used_chains(scope: Reader, stretch: times.Month, limit: Most = 20) -> list[ChainUse]:
    """Return chains by executions, the most used first."""
    return [ChainUse(**row) for row in scope.select("most_used_chains", since_us=stretch.since_us, until_us=stretch.until_us, limit=limit)]


@router.get("/business/chain-trends", summary="Are chains getting faster or slower over time?")
def chain_trends(
    scope: Reader, stretch: times.Month, limit: Most = 100, bucket_s: Annotated[int, Query(ge=900, le=604_800, multiple_of=900, description="length of a point, seconds; whole quarters of an hour")] = 86_400
) -> list[ChainTrend]:
    """Return chains by how much they have changed, with the point in time where their level changed most."""
    rows = scope.select("chain_trends", since_us=stretch.since_us, until_us=stretch.until_us, step_us=bucket_s * 1_000_000, limit=limit)
    return [ChainTrend(**row) for row in rows]


@router.get("/business/failing-steps", summary="Which steps fail most often for which user tiers?")
def failing_steps(
    scope: Reader, stretch: times.Month, limit: Most = 100, tier: Named = ""
) -> list[FailingStep]:
    """Return steps by failures, per tier."""
    rows = scope.select("failing_steps", since_us=stretch.since_us, until_us=stretch.until_us, tier=tier, limit=limit)
    return [FailingStep(**{**row, "runs": row["runs_in_all"]}) for row in rows]


@router.get("/business/resource-use", summary="Which chains consume most resources?")
def resource_use(scope: Reader, stretch: times.Month, limit: Most = 100) -> list[ResourceUse]:
    """Return chains by the CPU time that they have used."""
    return [ResourceUse(**row) for row in scope.select("resource_use", since_us=stretch.since_us, until_us=stretch.until_us, limit=limit)]


@router.get("/business/slowest-runs", summary="The slowest runs of a chain's steps")
def slowest_runs(
    scope: Reader, stretch: times.Month, chain: Annotated[str, Query(min_length=1, max_length=128, pattern=WITHOUT_CONTROLS)],
    step: Named = "", limit: Most = 20,
) -> list[SlowRun]:  # fmt: skip
    """Return runs of steps by their duration, the longest first."""
    rows = scope.select("slow_steps", since_us=stretch.since_us, until_us=stretch.until_us, chain=chain, step=step, limit=limit)
    return [_slow_run(row) for row in rows]


def _slow_run(row: dict[str, Any]) -> SlowRun:
    return SlowRun(
        execution=row["execution"], span=row["span"], step=row["step_name"], component=row["component_name"], status=row["last_status"],
        start_unix_us=row["start_unix_us"], duration_us=row["took_us"],
    )  # fmt: skip


@router.get("/users/{user}/metrics", summary="What a user has run")
def user_metrics(scope: Reader, user: NameInPath) -> UserMetrics:
    """Return a user's totals; a user without executions has none, and that is no error."""
    row = scope.rows("SELECT * FROM user_chain_metrics(%(tenant)s, %(user)s)", tenant=scope.tenant, user=user)[0]
    return UserMetrics(user=user, **row)


@router.get("/users/{user}/executions", summary="A user's executions")
def user_executions(scope: Reader, user: NameInPath, page: Paged, stretch: times.Month) -> Page[ExecutionSummary]:
    """Return the executions of a user that have ended, the newest first."""
    return list_executions(scope, page, stretch, user=user)
