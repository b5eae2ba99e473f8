"""Executions: which there are, how far one is, and everything that happened in it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from connectors.http import times
from connectors.http.paging import Page, Paged
from connectors.http.parameters import Named
from connectors.http.problems import not_found
from connectors.http.scope import Reader, Scope
from schemas.base import WITHOUT_CONTROLS
from schemas.internal import Execution
from streams.diagram import diagram, mermaid, svg

router = APIRouter(prefix="/v1", tags=["executions"])
Status = Literal["open", "completed", "failed", "incomplete", "abandoned"]
ExecutionId = Annotated[str, Path(min_length=1, max_length=64, pattern=WITHOUT_CONTROLS, description="execution id as the services named it")]


class ExecutionSummary(BaseModel):
    """One execution."""

    execution: str
    chain: str
    chain_version: str
    user: str
    tier: str
    status: Status
    start_unix_us: int | None
    end_unix_us: int | None = Field(description="null: no end was seen")
    duration_us: int
    error_type: str
    steps: int
    steps_completed: int
    steps_failed: int
    steps_pending: int
    missing_steps: list[str]
    violations: int
    revision: int


class ExecutionProgress(BaseModel):
    """How far an execution is."""

    current_steps: list[str] = Field(description="begun and not ended")
    completed_steps: list[str]
    progress_ratio: float | None = Field(description="share of the expected work that is done, 0 to 1; null: unknown")
    remaining_us: int | None = Field(description="estimated remaining time; null: unknown")
    basis: str = Field(description="what ratio and remaining time rest on, or why they are unknown")
    now_unix_us: int = Field(description="event time that the execution's partition has reached")


class ExecutionDetail(ExecutionSummary):
    """One execution and how far it is."""

    component: str
    error_message: str
    progress: ExecutionProgress | None = Field(description="null: it ended longer ago than the API remembers")


class Parent(BaseModel):
    """What caused a step."""

    span: str
    execution: str
    component: str


class Consumed(BaseModel):
    """The Kafka record that a step worked on."""

    topic: str
    partition: int
    offset: int
    broker_us: int


class TraceStep(BaseModel):
    """One run of a step."""

    span: str
    step: str
    component: str
    status: str
    attempt: int
    start_unix_us: int | None
    end_unix_us: int | None
    duration_us: int
    error_type: str
    error_message: str
    cpu_us: int
    memory_bytes: int
    io_wait_us: int
    parents: list[Parent]
    consumed: Consumed | None
    logs: list[str]


class Trace(BaseModel):
    """An execution with everything that was seen of it."""

    execution: ExecutionSummary
    live: bool = Field(description="from the pipeline's memory: it is open, or has just ended")
    steps: list[TraceStep] = Field(description="in the order in which they began")
    evidence: dict[str, Any] = Field(description="where its events lie: topic, partition, first and last offset")


@router.get("/executions", summary="List executions that have ended")
def list_executions(
    scope: Reader, page: Paged, stretch: times.Day, chain: Named = "", user: Named = "", status: Annotated[Status | None, Query()] = None
) -> Page[ExecutionSummary]:
    """Return executions by their beginning, the newest first."""
    rows = scope.rows(
        _LIST, tenant=scope.tenant, since=stretch.since, until=stretch.until, chain=chain, user=user, status=status or "",
        **page.behind(), limit=page.limit + 1,
    )  # fmt: skip
    return page.page(rows, lambda row: (times.unix_us(row["started_at"]), row["execution"]), stored_summary)


@router.get("/open-executions", summary="List executions that are open")
def list_open(scope: Reader, page: Paged, chain: Named = "", user: Named = "") -> Page[ExecutionDetail]:
    """Return open executions with their progress, by id."""
    after = page.after(str)
    live, found = scope.services.feed.executions, []
    for execution in live.open(scope.tenant):
        if (after is None or execution.execution > after[0]) and chain in ("", execution.chain) and user in ("", execution.user):
            found.append(execution)
            if len(found) > page.limit:
                break
    typical = _typical(scope, {x.chain for x in found})
    return page.page(found, lambda x: (x.execution,), lambda x: _detail(scope, x, typical.get(x.chain)))


@router.get("/executions/{execution}", summary="Show an execution and how far it is")
def show_execution(scope: Reader, execution: ExecutionId) -> ExecutionDetail:
    """Return an execution: from memory while it is open or has just ended, else as it is stored."""
    live = scope.services.feed.executions.find(scope.tenant, execution)
    if live is not None:
        return _detail(scope, live, _typical(scope, {live.chain}).get(live.chain))
    row = _stored(scope, execution)
    more = {"component": row["component"], "error_message": row["error_message"], "progress": None}
    return ExecutionDetail(**stored_summary(row).model_dump(), **more)


@router.get("/executions/{execution}/trace", summary="Show everything that happened in an execution")
def show_trace(scope: Reader, execution: ExecutionId) -> Trace:
    """Return an execution with all runs of its steps, what caused them, and where the events lie."""
    live = scope.services.feed.executions.find(scope.tenant, execution)
    if live is not None:
        runs = sorted(live.steps.values(), key=lambda step: (step.start_us, step.span))
        evidence = {"first_offset": live.first_offset, "last_offset": live.last_offset}
        return Trace(execution=live_summary(live), live=True, steps=[_live_step(run) for run in runs], evidence=evidence)
    rows = scope.select("trace", execution=execution)
    if not rows or rows[0]["record_kind"] != "execution":
        raise not_found(f"trace of execution {execution}")
    head, *steps = rows
    names = ("event_topic", "event_partition", "event_first_offset", "event_last_offset")
    evidence = {name.removeprefix("event_"): head[name] for name in names}
    return Trace(execution=_traced_summary(head, steps), live=False, steps=[_stored_step(row) for row in steps], evidence=evidence)


@router.get("/executions/{execution}/diagram", summary="Draw an execution", response_model=None,
            responses={200: {"content": {"application/json": {}, "text/vnd.mermaid": {}, "image/svg+xml": {}}}})  # fmt: skip
def draw_execution(scope: Reader, execution: ExecutionId, form: Annotated[Literal["json", "mermaid", "svg"], Query(alias="format")] = "json") -> Response:
    """Return the chain's steps with the state of each in this execution: as nodes and edges, as Mermaid text or as a picture."""
    trace = show_trace(scope, execution)
    rules = scope.services.feed.rules.find(scope.tenant, trace.execution.chain, trace.execution.start_unix_us or 0)
    steps = [(step.step, step.component, step.status, step.span, [p.span for p in step.parents]) for step in trace.steps]
    drawn = diagram(trace.execution.chain, rules, steps, trace.execution.missing_steps)
    if form == "mermaid":
        return Response(mermaid(drawn), media_type="text/vnd.mermaid")
    if form == "svg":
        return Response(svg(drawn), media_type="image/svg+xml")
    return Response(drawn.encode(), media_type="application/json")


def _stored(scope: Scope, execution: str) -> dict[str, Any]:
    rows = scope.rows(_SHOW, tenant=scope.tenant, execution=execution)
    if not rows:
        raise not_found(f"execution {execution}")
    return rows[0]


def _typical(scope: Scope, chains: set[str]) -> dict[str, int]:
    """Return what executions of chains take, µs, where the newest windows tell."""
    rows = scope.rows(_TYPICAL, tenant=scope.tenant, chains=sorted(chains)) if chains else []
    return {row["chain"]: round(row["mean_us"]) for row in rows}


def _detail(scope: Scope, x: Execution, typical_us: int | None) -> ExecutionDetail:
    found = scope.services.feed.executions.progress(x, typical_us)
    progress = ExecutionProgress(
        current_steps=found.current_steps, completed_steps=found.done_steps, progress_ratio=found.ratio,
        remaining_us=found.remaining_us, basis=found.basis, now_unix_us=found.now_unix_us,
    )  # fmt: skip
    return ExecutionDetail(**live_summary(x).model_dump(), component=x.component, error_message=x.error_message, progress=progress)


def live_summary(x: Execution) -> ExecutionSummary:
    """Return the summary of an execution in memory."""
    statuses = [step.status for step in x.steps.values()]
    return ExecutionSummary(
        execution=x.execution, chain=x.chain, chain_version=x.chain_version, user=x.user, tier=x.tier, status=x.status,
        start_unix_us=x.start_us or None, end_unix_us=x.ended_us or None, duration_us=x.duration_us, error_type=x.error_type,
        steps=len(statuses), steps_completed=statuses.count("completed"), steps_failed=statuses.count("failed"),
        steps_pending=x.pending, missing_steps=list(x.missing), violations=x.violations, revision=x.revision,
    )  # fmt: skip


def stored_summary(row: dict[str, Any]) -> ExecutionSummary:
    """Return the summary of a row of flow_executions."""
    same = ("execution", "chain", "chain_version", "tier", "status", "duration_us", "error_type", "steps", "steps_completed",
            "steps_failed", "steps_pending", "missing_steps", "violations", "revision")  # fmt: skip
    return ExecutionSummary(
        **{name: row[name] for name in same}, user=row["user_id"],
        start_unix_us=times.unix_us(row["started_at"]), end_unix_us=times.unix_us(row["ended_at"]),
    )  # fmt: skip


def _traced_summary(row: dict[str, Any], steps: list[dict[str, Any]]) -> ExecutionSummary:
    same = ("execution", "chain", "chain_version", "user", "tier", "status", "duration_us", "error_type", "steps", "steps_failed",
            "steps_pending", "violations", "revision")  # fmt: skip
    return ExecutionSummary(
        **{name: row[name] for name in same}, missing_steps=row["missing"], start_unix_us=row["start_unix_us"] or None,
        end_unix_us=row["end_unix_us"] or None, steps_completed=sum(step["status"] == "completed" for step in steps),
    )  # fmt: skip


def _stored_step(row: dict[str, Any]) -> TraceStep:
    same = ("span", "step", "component", "status", "attempt", "duration_us", "error_type", "error_message", "cpu_us", "memory_bytes",
            "io_wait_us", "logs")  # fmt: skip
    return TraceStep(
        **{name: row[name] for name in same}, start_unix_us=row["start_unix_us"] or None, end_unix_us=row["end_unix_us"] or None,
        parents=[Parent(span=span, execution=execution, component=component) for span, execution, component in row["parents"]],
        consumed=_consumed(row["consumed_topic"], row["consumed_partition"], row["consumed_offset"], row["broker_us"]),
    )  # fmt: skip


def _live_step(x: Any) -> TraceStep:
    same = ("span", "step", "component", "status", "attempt", "duration_us", "error_type", "error_message", "cpu_us", "memory_bytes",
            "io_wait_us", "logs")  # fmt: skip
    return TraceStep(
        **{name: getattr(x, name) for name in same}, start_unix_us=x.start_us or None, end_unix_us=x.end_us or None,
        parents=[Parent(span=span, execution=execution, component=component) for span, execution, component in x.parents],
        consumed=_consumed(x.topic, x.topic_partition, x.topic_offset, x.broker_us),
    )  # fmt: skip


def _consumed(topic: str, partition: int, offset: int, broker_us: int) -> Consumed | None:
    return Consumed(topic=topic, partition=partition, offset=offset, broker_us=broker_us) if topic else None


_LIST = """
SELECT * FROM flow_executions
WHERE tenant = %(tenant)s AND started_at >= %(since)s AND started_at < %(until)s
    AND started_on >= (%(since)s AT TIME ZONE 'UTC')::date AND started_on <= (%(until)s AT TIME ZONE 'UTC')::date
    AND (%(chain)s = '' OR chain = %(chain)s) AND (%(user)s = '' OR user_id = %(user)s) AND (%(status)s = '' OR status = %(status)s)
    AND (%(after_us)s::bigint IS NULL
        OR (started_at, execution) < (to_timestamp(%(after_us)s::numeric / 1000000), %(after_id)s))
ORDER BY started_at DESC, execution DESC
LIMIT %(limit)s"""
_SHOW = "SELECT * FROM flow_executions WHERE tenant = %(tenant)s AND execution = %(execution)s ORDER BY revision DESC LIMIT 1"
_TYPICAL = "SELECT chain, mean_us FROM flow_metrics WHERE tenant = %(tenant)s AND kind = 'chain' AND chain = ANY(%(chains)s) AND completed > 0"
