"""Flows: what is declared, its revisions, whom it depends on, and how it does."""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Body, Header, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

from connectors.http import times
from connectors.http.bodies import DEFINITION_BODY, DEFINITIONS_BODY, ManyDefinitions, OneDefinition
from connectors.http.idempotency import once
from connectors.http.paging import Page, Paged
from connectors.http.parameters import Named, NameInPath
from connectors.http.problems import COMMON, FieldProblem, Refused, not_found
from connectors.http.routes.executions import ExecutionSummary, Status, list_executions
from connectors.http.routes.health import Metrics, metrics
from connectors.http.routes.tenants import AUDIT, AuditEntry, audit_entry
from connectors.http.scope import Administrator, Definer, Fingerprint, IdempotencyKey, Reader, Scope
from connectors.registry import Outcome
from connectors.registry.limits import check_limits
from schemas.base import WITHOUT_CONTROLS
from schemas.definitions import ChainDefinition, Kind
from streams.diagram import flow_diagram, mermaid, svg
from streams.flows.canonical import canonical, content_id
from streams.flows.dependencies import Drift
from streams.flows.diff import diff
from streams.flows.documents import ImportRefused
from streams.flows.kinds import export_flows, import_flows
from streams.rules import compile_definition

router = APIRouter(prefix="/v1", tags=["flows"], responses=COMMON)
Revision = Annotated[int, Path(ge=1, le=2**31 - 1)]
IfMatch = Annotated[str | None, Header(max_length=64, description="the revision that is to be replaced, as the ETag of the flow says it")]
Foreign = Literal["langgraph", "ai_brain", "chain_mapping", "custom"]


class FlowSummary(BaseModel):
    """One revision of a flow."""

    name: str
    common: bool = Field(description="every tenant's, not this one's own")
    revision: int
    id: str = Field(description="address of the content")
    kind: Kind
    version: str
    description: str
    steps: int
    effective_from_unix_us: int
    deleted: bool
    author: str
    created_unix_us: int


class Flow(FlowSummary):
    """One revision of a flow with its definition in canonical form."""

    definition: ChainDefinition


class FlowOutcome(BaseModel):
    """What became of a definition."""

    name: str
    outcome: Literal["created", "changed", "unchanged", "deleted"]
    revision: int
    id: str


class Outcomes(BaseModel):
    """What became of definitions that were applied together: all of them, or none."""

    flows: list[FlowOutcome]


class Validation(BaseModel):
    """What is said about a definition that is right."""

    name: str
    id: str
    canonical: ChainDefinition


class FieldChange(BaseModel):
    """One difference."""

    field: str
    old: Any
    new: Any
    breaking: bool = Field(description="an execution that kept to the old definition may violate the new one")


class FlowDependency(BaseModel):
    """One edge of the dependencies of a flow."""

    provenance: Literal["declared", "observed"]
    kind: Literal["requires", "step", "call", "flow", "topic"] = Field(description="requires: flow → flow; the others: component → component")
    source: str
    target: str
    topic: str
    events: int | None
    failed: int | None
    first_seen_unix_us: int | None
    last_seen_unix_us: int | None


class DriftEntry(BaseModel):
    """Where what is declared and what was observed differ."""

    what: Literal["undeclared", "never seen"]
    source: str
    target: str
    topic: str
    kind: str = Field(description="of an observed edge: call, flow or topic")
    events: int
    first_seen_unix_us: int | None
    last_seen_unix_us: int | None


class ChainStepUse(BaseModel):
    """A step that a component runs."""

    chain: str
    step: str
    revision: int
    expected_duration_us: int | None
    deadline_us: int | None
    optional: bool
    repeated: bool


@router.get("/flows", summary="List flows")
def list_flows(
    scope: Reader, page: Paged, kind: Annotated[Kind | None, Query()] = None, component: Annotated[Named, Query(description="only flows with a step of it")] = ""
) -> Page[FlowSummary]:
    """Return the revisions in force by name; a tenant's own flow goes before the common one of the same name."""
    after = page.after(str)
    rows = scope.rows(_LIST, tenant=scope.tenant, kind=kind or "", component=component, after=after[0] if after else "", limit=page.limit + 1)
    return page.page(rows, lambda row: (row["name"],), _summary)


@router.post("/flows", summary="Register flows", response_model=Outcomes, openapi_extra=DEFINITIONS_BODY)
def apply_flows(scope: Definer, body: ManyDefinitions, fingerprint: Fingerprint, idempotency_key: IdempotencyKey = None) -> Response:
    """Put definitions in force for this tenant, all of them or none. Applying the same content again changes nothing."""
    return _apply(scope, body, fingerprint, idempotency_key, None)


@router.post("/definitions/validate", summary="Check a definition", openapi_extra=DEFINITION_BODY)
def validate_flow(scope: Reader, body: OneDefinition) -> Validation:
    """Return a definition's canonical form and the id it would have; nothing is registered."""
    return Validation(name=body.name, id=content_id(body), canonical=canonical(body))


@router.post("/definitions/import/{kind}", summary="Translate a foreign definition")
def translate_flow(
    scope: Reader, kind: Foreign, body: Annotated[dict[str, Any], Body()], name: Annotated[str, Query(min_length=1, max_length=128, pattern=WITHOUT_CONTROLS)] = "imported"
) -> list[ChainDefinition]:
    """Return the definitions that a LangGraph, AI Brain, chain mapping or generic graph document stands for; nothing is registered."""
    try:
        return [canonical(found) for found in import_flows(kind, body, name)]
    except ImportRefused as error:
        raise Refused(422, str(error), errors=[FieldProblem(field="body", reason=str(error))]) from error
    except ValidationError as error:
        found = [FieldProblem(field=".".join(map(str, ("body", *e["loc"]))), reason=str(e["msg"])) for e in error.errors()]
        raise Refused(422, "; ".join(f"{x.field}: {x.reason}" for x in found[:3]), errors=found) from error


@router.get("/components/{component}/flows", summary="Which flows use a component")
def flows_of_component(scope: Reader, component: NameInPath) -> list[ChainStepUse]:
    """Return the declared steps that a component runs, of flows in force."""
    rows = scope.rows(_BY_COMPONENT, tenant=scope.tenant, component=component)
    return [ChainStepUse(**row) for row in rows]


@router.get("/flows/{flow}", summary="Show a flow")
def show_flow(scope: Reader, flow: NameInPath, response: Response) -> Flow:
    """Return the revision in force; its ETag is what `If-Match` wants."""
    row = _current(scope, flow)
    response.headers["ETag"] = etag(row["revision"])
    return _flow(row)


@router.put("/flows/{flow}", summary="Register a flow", response_model=Outcomes, openapi_extra=DEFINITION_BODY)
def put_flow(
    scope: Definer, flow: NameInPath, body: OneDefinition, fingerprint: Fingerprint, if_match: IfMatch = None, idempotency_key: IdempotencyKey = None
) -> Response:
    """Put a definition in force; with `If-Match` only in place of that revision (else 412)."""
    if body.name != flow:
        raise Refused(422, "body.name: it is not the name in the path", errors=[FieldProblem(field="body.name", reason="it is not the name in the path")])
    return _apply(scope, [body], fingerprint, idempotency_key, _expected(if_match))


@router.delete("/flows/{flow}", summary="Delete a flow", response_model=Outcomes)
def delete_flow(scope: Definer, flow: NameInPath, fingerprint: Fingerprint, if_match: IfMatch = None, idempotency_key: IdempotencyKey = None) -> Response:
    """Take the tenant's own flow out of force; its history stays."""
    expected = _expected(if_match)
    found = once(scope, idempotency_key, fingerprint, lambda _: Outcomes(flows=[_outcome(scope.services.registry.delete(flow, scope.tenant, scope.principal.id, expected=expected))]))
    scope.services.relay()
    return found


@router.get("/flows/{flow}/revisions", summary="The history of a flow")
def list_revisions(scope: Reader, flow: NameInPath, page: Paged) -> Page[FlowSummary]:
    """Return all revisions of a flow, the latest first."""
    after = page.after(int)
    owner = _current(scope, flow, deleted=True)["tenant"]
    rows = scope.rows(_HISTORY, owner=owner, flow=flow, after=after[0] if after else None, limit=page.limit + 1)
    return page.page(rows, lambda row: (row["revision"],), _summary)


@router.get("/flows/{flow}/revisions/{revision}", summary="Show a revision of a flow")
def show_revision(scope: Reader, flow: NameInPath, revision: Revision) -> Flow:
    """Return one revision of a flow."""
    return _flow(_revision(scope, flow, revision))


@router.get("/flows/{flow}/diff", summary="What changed between two revisions")
def show_diff(scope: Reader, flow: NameInPath, old: Annotated[int, Query(ge=1, le=2**31 - 1)], new: Annotated[int, Query(ge=1, le=2**31 - 1)]) -> list[FieldChange]:
    """Return the differences from one revision to another, field by field."""
    before, after = (_definition(_revision(scope, flow, number)) for number in (old, new))
    return [FieldChange(field=x.field, old=x.old, new=x.new, breaking=x.breaking) for x in diff(before, after)]


@router.get("/flows/{flow}/dependencies", summary="Whom a flow depends on")
def list_dependencies(scope: Reader, flow: NameInPath, provenance: Annotated[Literal["declared", "observed"] | None, Query()] = None) -> list[FlowDependency]:
    """Return what is declared and what was observed, each with its provenance."""
    owner = _current(scope, flow)["tenant"]
    rows = scope.rows(_DEPENDENCIES, tenant=scope.tenant, owner=owner, flow=flow, provenance=provenance or "")
    return [
        FlowDependency(
            **{name: row[name] for name in ("provenance", "kind", "source", "target", "topic", "events", "failed")},
            first_seen_unix_us=times.unix_us(row["first_seen_at"]), last_seen_unix_us=times.unix_us(row["last_seen_at"]),
        )
        for row in rows
    ]  # fmt: skip


@router.get("/flows/{flow}/drift", summary="Where a flow is not as it is declared")
def show_drift(scope: Reader, flow: NameInPath) -> list[DriftEntry]:
    """Return declared dependencies that were never observed, and observed ones that are not declared."""
    _current(scope, flow)
    return [_drift(difference) for _, difference in scope.services.registry.drift(scope.tenant, flow)]


@router.get("/flows/{flow}/diagram", summary="Draw a flow", response_model=None,
            responses={200: {"content": {"application/json": {}, "text/vnd.mermaid": {}, "image/svg+xml": {}}}})  # fmt: skip
def draw_flow(scope: Reader, flow: NameInPath, form: Annotated[Literal["json", "mermaid", "svg"], Query(alias="format")] = "json") -> Response:
    """Return the steps with the health of each now: as nodes and edges, as Mermaid text or as a picture."""
    rules = compile_definition(_definition(_current(scope, flow)))
    rows = scope.rows("SELECT step, error_ratio, completed + failed AS ended, violations FROM flow_metrics WHERE tenant = %(tenant)s AND kind = 'step' AND chain = %(flow)s", tenant=scope.tenant, flow=flow)
    drawn = flow_diagram(rules, {row["step"]: _health(row) for row in rows})
    if form == "mermaid":
        return Response(mermaid(drawn), media_type="text/vnd.mermaid")
    if form == "svg":
        return Response(svg(drawn), media_type="image/svg+xml")
    return Response(drawn.encode(), media_type="application/json")


@router.get("/flows/{flow}/export/{kind}", summary="Write a flow in a foreign format")
def export_flow(scope: Reader, flow: NameInPath, kind: Foreign) -> dict[str, Any]:
    """Return a flow as a LangGraph, AI Brain, chain mapping or generic graph document; 422 where the format cannot hold it."""
    try:
        found: dict[str, Any] = export_flows(kind, [_definition(_current(scope, flow))])[0]
    except ValueError as error:
        raise Refused(422, str(error)) from error
    return found


@router.get("/flows/{flow}/executions", summary="A flow's executions")
def flow_executions(scope: Reader, flow: NameInPath, page: Paged, stretch: times.Day, status: Annotated[Status | None, Query()] = None) -> Page[ExecutionSummary]:
    """Return the flow's executions that have ended, the newest first."""
    return list_executions(scope, page, stretch, chain=flow, status=status)


@router.get("/flows/{flow}/metrics", summary="A flow's newest windows")
def flow_metrics(scope: Reader, flow: NameInPath) -> list[Metrics]:
    """Return the newest window of the flow and of each of its steps."""
    query = "SELECT * FROM flow_metrics WHERE tenant = %(tenant)s AND chain = %(flow)s ORDER BY kind, step, component LIMIT 5000"
    return [metrics(row) for row in scope.rows(query, tenant=scope.tenant, flow=flow)]


@router.get("/flows/{flow}/audit", summary="Who changed a flow")
def flow_audit(scope: Administrator, flow: NameInPath, page: Paged, stretch: times.Month) -> Page[AuditEntry]:
    """Return what was done to a flow, the latest first."""
    after = page.after(int)
    rows = scope.rows(
        AUDIT, tenant=scope.tenant, since=stretch.since, until=stretch.until, type="flow", id=flow, after=after[0] if after else None,
        limit=page.limit + 1,
    )  # fmt: skip
    return page.page(rows, lambda row: (row["id"],), audit_entry)


def etag(revision: int) -> str:
    """Return the entity tag of a revision."""
    return f'"{revision}"'


def _expected(if_match: str | None) -> int | None:
    """Return the revision that an If-Match names; 0 = there must be none yet."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdecimal() or int(text) >= 2**31:
        raise Refused(412, "that is no entity tag of a flow")
    return int(text)


def _apply(scope: Scope, definitions: list[ChainDefinition], fingerprint: bytes, key: str | None, expected: int | None) -> Response:
    if strange := [found.name for found in definitions if found.tenant not in (None, scope.tenant)]:
        raise Refused(403, f"{', '.join(strange)}: another tenant's")
    def put(connection: Any) -> Outcomes:
        check_limits(connection, scope.tenant, definitions)
        wanted = None if expected is None else {found.name: expected for found in definitions}
        return Outcomes(flows=[_outcome(x) for x in scope.services.registry.apply(definitions, scope.tenant, scope.principal.id, expected=wanted)])

    found = once(scope, key, fingerprint, put)
    scope.services.relay()
    return found


def _outcome(x: Outcome) -> FlowOutcome:
    return FlowOutcome(name=x.name, outcome=x.status, revision=x.revision, id=x.id)


def _drift(x: Drift) -> DriftEntry:
    return DriftEntry(
        what=x.what, source=x.source, target=x.target, topic=x.topic, kind=x.kind, events=x.events,
        first_seen_unix_us=x.first_unix_us or None, last_seen_unix_us=x.last_unix_us or None,
    )  # fmt: skip


def _current(scope: Scope, flow: str, *, deleted: bool = False) -> dict[str, Any]:
    rows = scope.rows(_SHOW, tenant=scope.tenant, flow=flow, deleted=deleted)
    if not rows:
        raise not_found(f"flow {flow}")
    return rows[0]


def _revision(scope: Scope, flow: str, number: int) -> dict[str, Any]:
    owner = _current(scope, flow, deleted=True)["tenant"]
    rows = scope.rows("SELECT * FROM flow_definitions WHERE tenant = %(owner)s AND name = %(flow)s AND revision = %(number)s", owner=owner, flow=flow, number=number)
    if not rows:
        raise not_found(f"revision {number} of flow {flow}")
    return rows[0]


def _definition(row: dict[str, Any]) -> ChainDefinition:
    found: ChainDefinition = ChainDefinition.decode(orjson.dumps(row["definition"]))
    return found


def _summary(row: dict[str, Any]) -> FlowSummary:
    return FlowSummary(**_facts(row))


def _flow(row: dict[str, Any]) -> Flow:
    return Flow(**_facts(row), definition=_definition(row))


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    same = {name: row[name] for name in ("name", "revision", "id", "kind", "version", "description", "steps", "deleted", "author")}
    return same | {
        "common": row["tenant"] == "", "effective_from_unix_us": times.unix_us(row["effective_from"]), "created_unix_us": times.unix_us(row["created_at"]),
    }  # fmt: skip


def _health(row: dict[str, Any]) -> str:
    """Return the state of a step by its newest window, with the thresholds that the view flow_health has for chains."""
    if not row["ended"]:
        return "unknown"
    if row["error_ratio"] >= 0.5:
        return "failing"
    return "degraded" if row["error_ratio"] > 0.05 or row["violations"] else "healthy"


_LIST = """
SELECT * FROM (
    SELECT DISTINCT ON (name) * FROM flow_definitions_current d
    WHERE d.tenant IN (%(tenant)s, '') AND (%(kind)s = '' OR d.kind = %(kind)s) AND d.name > %(after)s
        AND (%(component)s = '' OR EXISTS (SELECT FROM flow_chains c
            WHERE c.tenant = d.tenant AND c.chain = d.name AND c.revision = d.revision AND c.component = %(component)s))
    ORDER BY name, tenant DESC
) AS own_first ORDER BY name LIMIT %(limit)s"""
_SHOW = """
SELECT * FROM (SELECT DISTINCT ON (tenant) * FROM flow_definitions WHERE tenant IN (%(tenant)s, '') AND name = %(flow)s
    ORDER BY tenant, revision DESC) AS newest
WHERE %(deleted)s OR NOT deleted ORDER BY tenant DESC LIMIT 1"""
_HISTORY = """
SELECT * FROM flow_definitions WHERE tenant = %(owner)s AND name = %(flow)s AND (%(after)s::integer IS NULL OR revision < %(after)s)
ORDER BY revision DESC LIMIT %(limit)s"""
_DEPENDENCIES = """
SELECT * FROM flow_dependencies
WHERE (tenant = %(tenant)s AND provenance = 'observed' OR tenant = %(owner)s AND provenance = 'declared')
    AND (flow = %(flow)s OR kind = 'requires' AND source = %(flow)s) AND (%(provenance)s = '' OR provenance = %(provenance)s)
ORDER BY provenance, kind, source, target, topic LIMIT 5000"""
_BY_COMPONENT = """
SELECT c.chain, c.step, c.revision, c.expected_duration_us, c.deadline_us, c.optional, c.repeated
FROM flow_chains c JOIN flow_definitions_current d ON (d.tenant, d.name, d.revision) = (c.tenant, c.chain, c.revision)
WHERE c.tenant IN (%(tenant)s, '') AND c.component = %(component)s ORDER BY c.chain, c.position LIMIT 5000"""
