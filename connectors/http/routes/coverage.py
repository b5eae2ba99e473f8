"""How much of what happens is seen: hops that are declared against those that came, and whether the thread between them holds."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from connectors.http import times
from connectors.http.parameters import NameInPath
from connectors.http.problems import not_found
from connectors.http.scope import Reader, Scope

router = APIRouter(prefix="/v1", tags=["flows"])


class StepCoverage(BaseModel):
    """How often a declared step was seen."""

    step: str
    seen: int = Field(description="executions in which it was seen")
    coverage_ratio: float = Field(description="share of the executions that were looked at, 0 to 1")


class Thread(BaseModel):
    """Whether the runs of steps hang together."""

    executions: int
    runs: int
    without_parents: int = Field(description="runs that name no parent: one per execution where nothing is lost and one thing begins it")
    parents_named: int = Field(description="parents that runs name within their execution")
    parents_seen: int = Field(description="of them, those that were seen themselves")
    linked_ratio: float | None = Field(description="parents_seen / parents_named; null: none was named")


class Coverage(BaseModel):
    """How much of a flow is seen.

    Hops: the steps that are declared and not optional, in executions that have come to their end (completed, or incomplete because
    a declared step never came) and began under the definition that is in force now.
    """

    executions: int = Field(description="that were looked at")
    hops_declared: int
    hops_seen: int
    coverage_ratio: float | None = Field(description="hops_seen / hops_declared; null: the flow has no definition, or no such execution")
    steps: list[StepCoverage] = Field(description="the least seen first")
    thread: Thread


@router.get("/flows/{flow}/coverage", summary="How much of a flow is seen")
def show_coverage(scope: Reader, flow: NameInPath, stretch: times.Day) -> Coverage:
    """Return the share of declared hops that were seen, and of named parents; a chain without a definition has only the latter."""
    thread = _thread(scope, flow, stretch)
    steps = scope.rows(_DECLARED, tenant=scope.tenant, flow=flow)
    if not steps and not thread.executions:
        raise not_found(f"flow {flow}")
    since = max([stretch.since, *(row["effective_from"] for row in steps)])
    rows = scope.rows(_MISSING, tenant=scope.tenant, flow=flow, since=since, until=stretch.until) if steps else []
    executions = rows[0]["executions"] if rows else 0
    missing = {row["step"]: row["missing"] for row in rows}
    names = [row["step"] for row in steps]
    seen = {name: executions - missing.get(name, 0) for name in names}
    declared = executions * len(names)
    return Coverage(
        executions=executions, hops_declared=declared, hops_seen=sum(seen.values()),
        coverage_ratio=sum(seen.values()) / declared if declared else None,
        steps=[StepCoverage(step=name, seen=seen[name], coverage_ratio=seen[name] / executions) for name in sorted(names, key=seen.__getitem__)] if executions else [],
        thread=thread,
    )  # fmt: skip


def _thread(scope: Scope, flow: str, stretch: times.Stretch) -> Thread:
    row: dict[str, Any] = scope.select("thread", chain=flow, since_us=stretch.since_us, until_us=stretch.until_us)[0]
    named, seen = row["parents_named"], row["parents_seen"]
    return Thread(
        executions=row["executions_seen"], runs=row["runs_in_all"], without_parents=row["without_parents"], parents_named=named, parents_seen=seen,
        linked_ratio=seen / named if named else None,
    )  # fmt: skip


_DECLARED = """
SELECT s.step, d.effective_from FROM flow_definitions_current d JOIN flow_chains s ON s.tenant = d.tenant AND s.chain = d.name AND s.revision = d.revision
WHERE d.tenant = (SELECT max(tenant) FROM flow_definitions_current WHERE tenant IN (%(tenant)s, '') AND name = %(flow)s)
    AND d.name = %(flow)s AND NOT s.optional ORDER BY s.position"""
_MISSING = """
SELECT step, missing, executions FROM
    (SELECT count(*) AS executions FROM flow_executions WHERE {of}) AS looked
    LEFT JOIN LATERAL
    (SELECT unnest(missing_steps) AS step, count(*) AS missing FROM flow_executions WHERE {of} GROUP BY 1) AS gone ON true""".format(
    of="""tenant = %(tenant)s AND chain = %(flow)s AND status IN ('completed', 'incomplete') AND started_at >= %(since)s AND started_at < %(until)s
        AND started_on >= (%(since)s AT TIME ZONE 'UTC')::date AND started_on <= (%(until)s AT TIME ZONE 'UTC')::date"""
)
