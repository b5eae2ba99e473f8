"""Incidents: what belongs together, what caused it, who is hurt, and what was done about it."""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel

from connectors.http import times
from connectors.http.paging import Page, Paged
from connectors.http.parameters import IdInPath
from connectors.http.problems import not_found
from connectors.http.scope import Reader
from schemas.analysis import Incident, Severity
from schemas.base import WITHOUT_CONTROLS

router = APIRouter(prefix="/v1/incidents", tags=["incidents"])


class Act(BaseModel):
    """One state of a recovery action."""

    id: str
    revision: int
    command: str
    component: str
    strategy: str
    status: str
    time_unix_us: int
    breaker: str
    detail: str


@router.get("", summary="List incidents")
def list_incidents(
    scope: Reader, page: Paged, stretch: times.Week, status: Annotated[Literal["open", "resolved"] | None, Query()] = None,
    severity: Annotated[Severity | None, Query()] = None,
    component: Annotated[str, Query(max_length=128, pattern=WITHOUT_CONTROLS, description="the likely cause")] = "",
) -> Page[Incident]:  # fmt: skip
    """Return incidents with suspects and blast radius, the latest first."""
    rows = scope.rows(
        _LIST, tenant=scope.tenant, since=stretch.since, until=stretch.until, status=status or "", severity=severity or "",
        component=component, **page.behind(), limit=page.limit + 1,
    )  # fmt: skip
    return page.page(rows, lambda row: (times.unix_us(row["opened_at"]), row["id"]), _incident)


@router.get("/{incident}", summary="Show an incident")
def show_incident(scope: Reader, incident: IdInPath) -> Incident:
    """Return the newest revision of an incident, with suspects, blast radius and evidence."""
    rows = scope.rows("SELECT * FROM flow_incidents WHERE tenant = %(tenant)s AND id = %(id)s", tenant=scope.tenant, id=incident)
    if not rows:
        raise not_found(f"incident {incident}")
    return _incident(rows[0])


@router.get("/{incident}/recovery", summary="Show what was done about an incident")
def show_recovery(scope: Reader, incident: IdInPath) -> list[Act]:
    """Return every state of every recovery action, as they came."""
    return [Act(**row) for row in scope.select("recovery", incident=incident)]


def _incident(row: dict[str, Any]) -> Incident:
    found: Incident = Incident.decode(orjson.dumps(row["document"]))
    return found


_LIST = """
SELECT id, opened_at, document FROM flow_incidents
WHERE tenant = %(tenant)s AND opened_at >= %(since)s AND opened_at < %(until)s
    AND (%(status)s = '' OR status = %(status)s) AND (%(severity)s = '' OR severity = %(severity)s)
    AND (%(component)s = '' OR cause = %(component)s)
    AND (%(after_us)s::bigint IS NULL OR (opened_at, id) < (to_timestamp(%(after_us)s::numeric / 1000000), %(after_id)s))
ORDER BY opened_at DESC, id DESC LIMIT %(limit)s"""
