"""Health: how chains, steps and components are now, and how they were."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from connectors.http import times
from connectors.http.paging import Page, Paged
from connectors.http.parameters import Named
from connectors.http.scope import Reader
from schemas.analysis import FeatureContribution

router = APIRouter(prefix="/v1", tags=["health"])
Kind = Literal["step", "chain", "component"]


class ChainHealth(BaseModel):
    """How a chain is, by its newest window."""

    chain: str
    status: Literal["healthy", "degraded", "failing", "unknown"]
    error_ratio: float | None
    error_budget_ratio: float | None = Field(description="what its definition allows, 0.05 where it says nothing")
    p95_us: float | None
    violations: dict[str, int]
    window_start_unix_us: int | None
    window_end_unix_us: int | None


class Metrics(BaseModel):
    """The newest window of a step, a chain or a component."""

    kind: Kind
    chain: str
    step: str
    component: str
    window_start_unix_us: int
    window_end_unix_us: int
    revision: int
    events: int
    started: int
    completed: int
    failed: int
    error_ratio: float
    throughput_per_s: float
    mean_us: float
    p50_us: float
    p95_us: float
    p99_us: float
    max_us: int
    violations: dict[str, int]
    affected_executions: int
    cpu_us: int
    io_wait_us: int
    memory_max_bytes: int
    broker_mean_us: float
    resources: dict[str, Any]


class HealthPoint(BaseModel):
    """Some windows of a step, a chain or a component put together."""

    kind: Kind
    chain: str
    step: str
    component: str
    start_unix_us: int
    events: int
    completed: int
    failed: int
    error_ratio: float
    mean_us: float
    worst_p95_us: float
    worst_p99_us: float
    max_us: int
    affected_executions: int


class StoredAnomaly(BaseModel):
    """A window that differs from what its key has shown before."""

    id: str
    revision: int
    chain: str
    step: str
    component: str
    window_start_unix_us: int
    window_end_unix_us: int
    score: float
    threshold: float
    direction: str
    features: list[FeatureContribution]
    learned_windows: int
    detectors_version: str


@router.get("/health", summary="How every chain is now")
def show_health(scope: Reader) -> list[ChainHealth]:
    """Return the state of every chain that is declared or was seen."""
    rows = scope.rows("SELECT * FROM flow_health WHERE tenant = %(tenant)s ORDER BY chain LIMIT 10000", tenant=scope.tenant)
    return [
        ChainHealth(
            **{name: row[name] for name in ("chain", "status", "error_ratio", "error_budget_ratio", "p95_us")}, violations=row["violations"] or {},
            window_start_unix_us=times.unix_us(row["window_start"]), window_end_unix_us=times.unix_us(row["window_end"]),
        )
        for row in rows
    ]  # fmt: skip


@router.get("/metrics/newest", summary="The newest window of every step, chain and component")
def newest_metrics(
    scope: Reader, page: Paged, kind: Annotated[Kind | None, Query()] = None, chain: Named = "", component: Named = ""
) -> Page[Metrics]:
    """Return newest windows by kind, chain, step and component."""
    after = page.after(str, str, str, str)
    kind_, chain_, step_, component_ = after or ("", "", "", "")
    rows = scope.rows(
        _NEWEST, tenant=scope.tenant, kind=kind or "", chain=chain, component=component, limit=page.limit + 1,
        after_kind=kind_, after_chain=chain_, after_step=step_, after_component=component_,
    )  # fmt: skip
    return page.page(rows, lambda r: (r["kind"], r["chain"], r["step"], r["component"]), metrics)


def metrics(row: dict[str, Any]) -> Metrics:
    """Return a row of flow_metrics."""
    start, end = times.unix_us(row["window_start"]), times.unix_us(row["window_end"])
    return Metrics(**{name: row[name] for name in row if name in Metrics.model_fields}, window_start_unix_us=start, window_end_unix_us=end)


@router.get("/health/history", summary="Health over time")
def health_history(
    scope: Reader, page: Paged, stretch: times.Hour, kind: Annotated[Kind | None, Query()] = None, chain: Named = "", step: Named = "",
    component: Named = "", step_s: Annotated[int, Query(ge=1, le=86_400, description="length of a point, seconds")] = 60,
) -> Page[HealthPoint]:  # fmt: skip
    """Return points of `step_s` seconds by time, then by kind, chain, step and component."""
    after = page.after(int, str, str, str, str)
    start, *names = after or (-1, "", "", "", "")
    rows = scope.select(
        "health_history", since_us=stretch.since_us, until_us=stretch.until_us, kind=kind or "", chain=chain, step=step, component=component,
        step_us=step_s * 1_000_000, after_us=start, after_kind=names[0], after_chain=names[1], after_step=names[2],
        after_component=names[3], limit=page.limit + 1,
    )  # fmt: skip
    return page.page(rows, lambda r: (r["start_unix_us"], r["kind"], r["chain"], r["step"], r["component"]), lambda r: HealthPoint(**r))


@router.get("/anomalies", summary="Unusual windows")
def list_anomalies(
    scope: Reader, page: Paged, stretch: times.Day, chain: Named = "", step: Named = "", component: Named = "",
    score: Annotated[float, Query(ge=0, le=1, description="only those with at least this score")] = 0.0,
) -> Page[StoredAnomaly]:  # fmt: skip
    """Return anomalies with their reasons, the newest first."""
    after = page.after(int, str)
    rows = scope.select(
        "anomalies", since_us=stretch.since_us, until_us=stretch.until_us, chain=chain, step=step, component=component, score=score,
        after_us=after[0] if after else -1, after_id=after[1] if after else "", limit=page.limit + 1,
    )  # fmt: skip
    return page.page(rows, lambda r: (r["window_start_unix_us"], r["id"]), _anomaly)


def _anomaly(row: dict[str, Any]) -> StoredAnomaly:
    names = ("feature", "detector", "value", "expected", "contribution")
    features = [FeatureContribution(**dict(zip(names, feature, strict=True))) for feature in row["last_features"]]
    newest = {name: row[f"last_{name}"] for name in ("score", "threshold", "direction", "learned_windows", "detectors_version")}
    same = {name: row[name] for name in ("id", "chain", "step", "component", "window_start_unix_us", "window_end_unix_us")}
    return StoredAnomaly(**same, **newest, revision=row["newest"], features=features)


_NEWEST = """
SELECT * FROM flow_metrics
WHERE tenant = %(tenant)s AND (%(kind)s = '' OR kind = %(kind)s) AND (%(chain)s = '' OR chain = %(chain)s)
    AND (%(component)s = '' OR component = %(component)s)
    AND (kind, chain, step, component) > (%(after_kind)s, %(after_chain)s, %(after_step)s, %(after_component)s)
ORDER BY kind, chain, step, component LIMIT %(limit)s"""
