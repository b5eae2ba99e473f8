"""Alerts: what pages a person, what people did about it, and what nobody is to be paged for."""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
import psycopg
from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from connectors.http import times
from connectors.http.idempotency import once
from connectors.http.paging import Page, Paged
from connectors.http.parameters import IdInPath
from connectors.http.problems import COMMON, not_found
from connectors.http.scope import Actor, Fingerprint, IdempotencyKey, Reader
from schemas.analysis import Alert, Severity
from schemas.base import WITHOUT_CONTROLS, OptionalName

router = APIRouter(prefix="/v1", tags=["alerts"], responses=COMMON)
Note = Annotated[str, Field(max_length=2048, pattern=r"^[^\x00]*$")]
Connection = psycopg.Connection[dict[str, Any]]


class Done(BaseModel):
    """What somebody did about an alert."""

    action: Literal["acknowledge", "unacknowledge", "feedback"]
    verdict: Literal["right", "wrong", "noise"] | None
    note: str
    actor: str
    at_unix_us: int


class AlertState(BaseModel):
    """An alert and what people did about it."""

    alert: Alert
    acknowledged_by: str | None
    silenced: bool = Field(description="a silence in force matches it")
    actions: list[Done] = Field(description="the latest first")


class NoteIn(BaseModel):
    """A remark."""

    model_config = ConfigDict(extra="forbid")
    note: Note = ""


class Feedback(NoteIn):
    """Whether an alert was right, which the scoring of detectors and causes uses."""

    verdict: Literal["right", "wrong", "noise"]


class SilenceIn(BaseModel):
    """What nobody is to be paged for; what is left out is any."""

    model_config = ConfigDict(extra="forbid")
    chain: OptionalName = ""
    component: OptionalName = Field("", description="the likely cause")
    severity: Literal["", "info", "warning", "critical"] = ""
    starts_at: times.Moment | None = Field(None, description="now where left out")
    ends_at: times.Moment
    reason: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]

    @model_validator(mode="after")
    def _ends_later(self) -> "SilenceIn":
        if self.ends_at <= (self.starts_at or datetime.now(UTC)):
            raise ValueError("ends_at: it is not after the beginning")
        return self


class Silence(BaseModel):
    """A silence."""

    id: str
    chain: str
    component: str
    severity: str
    starts_unix_us: int
    ends_unix_us: int
    reason: str
    created_by: str
    in_force: bool


@router.get("/alerts", summary="List alerts")
def list_alerts(
    scope: Reader, page: Paged, stretch: times.Week, status: Annotated[Literal["opened", "updated", "resolved", "retracted"] | None, Query()] = None,
    severity: Annotated[Severity | None, Query()] = None,
    component: Annotated[str, Query(max_length=128, pattern=WITHOUT_CONTROLS, description="the likely cause")] = "",
    over: Annotated[bool | None, Query(description="only those that are over, or only those that are not")] = None,
) -> Page[AlertState]:  # fmt: skip
    """Return the newest revision of alerts, the latest first."""
    rows = scope.rows(
        _LIST, tenant=scope.tenant, since=stretch.since, until=stretch.until, status=status or "", severity=severity or "", over=over,
        component=component, id="", **page.behind(), limit=page.limit + 1,
    )  # fmt: skip
    return page.page(rows, lambda row: (times.unix_us(row["opened_at"]), row["id"]), _state)


@router.get("/alerts/{alert}", summary="Show an alert")
def show_alert(scope: Reader, alert: IdInPath) -> AlertState:
    """Return the newest revision of an alert and everything that people did about it."""
    with scope.database() as connection:
        return _find(connection, scope.tenant, alert)


@router.post("/alerts/{alert}/acknowledge", summary="Take an alert on", response_model=AlertState)
def acknowledge(scope: Actor, alert: IdInPath, fingerprint: Fingerprint, body: NoteIn | None = None, idempotency_key: IdempotencyKey = None) -> Response:
    """Note that somebody looks after an alert."""
    note = body.note if body else ""
    return once(scope, idempotency_key, fingerprint, lambda c: _act(c, scope.tenant, alert, "acknowledge", None, note, scope.principal.id))


@router.delete("/alerts/{alert}/acknowledge", summary="Give an alert back", response_model=AlertState)
def unacknowledge(scope: Actor, alert: IdInPath, fingerprint: Fingerprint, idempotency_key: IdempotencyKey = None) -> Response:
    """Note that nobody looks after an alert any more."""
    return once(scope, idempotency_key, fingerprint, lambda c: _act(c, scope.tenant, alert, "unacknowledge", None, "", scope.principal.id))


@router.post("/alerts/{alert}/feedback", summary="Judge an alert", response_model=AlertState)
def judge(scope: Actor, alert: IdInPath, body: Feedback, fingerprint: Fingerprint, idempotency_key: IdempotencyKey = None) -> Response:
    """Note whether an alert and its cause were right."""
    return once(
        scope, idempotency_key, fingerprint, lambda c: _act(c, scope.tenant, alert, "feedback", body.verdict, body.note, scope.principal.id)
    )


@router.get("/silences", summary="List silences")
def list_silences(scope: Reader, page: Paged, ended: Annotated[bool, Query(description="also those that are over")] = False) -> Page[Silence]:
    """Return silences by their end, the last one first."""
    rows = scope.rows(
        _SILENCES, tenant=scope.tenant, ended=ended, **page.behind(), limit=page.limit + 1
    )
    return page.page(rows, lambda row: (times.unix_us(row["ends_at"]), row["id"]), _silence)


@router.post("/silences", status_code=201, summary="Silence alerts", response_model=Silence)
def create_silence(scope: Actor, body: SilenceIn, fingerprint: Fingerprint, idempotency_key: IdempotencyKey = None) -> Response:
    """Have nobody paged for what matches, for a while."""

    def create(connection: Connection) -> Silence:
        row = connection.execute(
            _SILENCE, [secrets.token_hex(8), scope.tenant, body.chain, body.component, body.severity, body.starts_at, body.ends_at, body.reason, scope.principal.id]
        ).fetchone()
        assert row is not None
        return _silence(row)

    return once(scope, idempotency_key, fingerprint, create, status=201)


@router.delete("/silences/{silence}", status_code=204, summary="End a silence", response_class=Response)
def end_silence(scope: Actor, silence: IdInPath) -> None:
    """End a silence now; one that has not begun is removed."""
    with scope.database() as connection:
        ended = "UPDATE silences SET ends_at = now() WHERE tenant = %s AND id = %s AND starts_at < now() AND ends_at > now()"
        removed = "DELETE FROM silences WHERE tenant = %s AND id = %s AND starts_at >= now()"
        if not any(connection.execute(query, [scope.tenant, silence]).rowcount for query in (ended, removed)):
            raise not_found(f"silence {silence} that is not over")


def _act(c: Connection, tenant: str, alert: str, action: str, verdict: str | None, note: str, actor: str) -> AlertState:
    _find(c, tenant, alert)
    row = [tenant, alert, action, verdict, note, actor]
    c.execute("INSERT INTO alert_actions (tenant, alert, action, verdict, note, actor) VALUES (%s, %s, %s, %s, %s, %s)", row)
    return _find(c, tenant, alert)


def _find(connection: Connection, tenant: str, alert: str) -> AlertState:
    values = {"tenant": tenant, "since": None, "until": None, "status": "", "severity": "", "over": None, "component": "", "id": alert,
              "after_us": None, "after_id": "", "limit": 1}  # fmt: skip
    row = connection.execute(_LIST, values).fetchone()
    if row is None:
        raise not_found(f"alert {alert}")
    return _state(row)


def _state(row: dict[str, Any]) -> AlertState:
    done = [
        Done(**{k: x[k] for k in ("action", "verdict", "note", "actor")}, at_unix_us=round(x["at_us"]))
        for x in row["actions"] or ()
    ]  # fmt: skip
    taken = next((x for x in done if x.action != "feedback"), None)
    by = taken.actor if taken is not None and taken.action == "acknowledge" else None
    return AlertState(alert=Alert.decode(orjson.dumps(row["document"])), acknowledged_by=by, silenced=row["silenced"], actions=done)


def _silence(row: dict[str, Any]) -> Silence:
    same = {name: row[name] for name in ("id", "chain", "component", "severity", "reason", "created_by", "in_force")}
    return Silence(**same, starts_unix_us=times.unix_us(row["starts_at"]) or 0, ends_unix_us=times.unix_us(row["ends_at"]) or 0)


_LIST = """
SELECT a.id, a.opened_at, a.document,
    (SELECT json_agg(json_build_object('action', d.action, 'verdict', d.verdict, 'note', d.note, 'actor', d.actor,
            'at_us', extract(epoch FROM d.at) * 1000000) ORDER BY d.id DESC)
        FROM (SELECT * FROM alert_actions x WHERE x.tenant = a.tenant AND x.alert = a.id ORDER BY x.id DESC LIMIT 100) d) AS actions,
    EXISTS (SELECT FROM silences s WHERE s.tenant = a.tenant AND s.starts_at <= now() AND s.ends_at > now()
        AND s.severity IN ('', a.severity) AND s.component IN ('', a.cause)
        AND (s.chain = '' OR a.document -> 'affected_chains' ? s.chain)) AS silenced
FROM flow_alerts a
WHERE a.tenant = %(tenant)s AND (%(id)s = '' OR a.id = %(id)s)
    AND (%(since)s::timestamptz IS NULL OR a.opened_at >= %(since)s) AND (%(until)s::timestamptz IS NULL OR a.opened_at < %(until)s)
    AND (%(status)s = '' OR a.status = %(status)s) AND (%(severity)s = '' OR a.severity = %(severity)s)
    AND (%(component)s = '' OR a.cause = %(component)s)
    AND (%(over)s::boolean IS NULL OR (a.status IN ('resolved', 'retracted')) = %(over)s)
    AND (%(after_us)s::bigint IS NULL OR (a.opened_at, a.id) < (to_timestamp(%(after_us)s::numeric / 1000000), %(after_id)s))
ORDER BY a.opened_at DESC, a.id DESC LIMIT %(limit)s"""
_SILENCES = """
SELECT *, starts_at <= now() AND ends_at > now() AS in_force FROM silences
WHERE tenant = %(tenant)s AND (%(ended)s OR ends_at > now())
    AND (%(after_us)s::bigint IS NULL OR (ends_at, id) < (to_timestamp(%(after_us)s::numeric / 1000000), %(after_id)s))
ORDER BY ends_at DESC, id DESC LIMIT %(limit)s"""
_SILENCE = """
INSERT INTO silences (id, tenant, chain, component, severity, starts_at, ends_at, reason, created_by)
VALUES (%s, %s, %s, %s, %s, coalesce(%s, now()), %s, %s, %s)
RETURNING *, starts_at <= now() AS in_force"""
