"""Tenants, tiers and usage, API keys, and the audit log."""

from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from connectors.http import times
from connectors.http.idempotency import once
from connectors.http.paging import Page, Paged
from connectors.http.problems import COMMON, not_found
from connectors.http.scope import Administrator, Auditor, Fingerprint, IdempotencyKey, Overseer, Owner, Reader
from connectors.keys import Role, create_key, revoke_key
from connectors.registry.tenants import put_tenant, remove_tenant
from schemas.base import WITHOUT_CONTROLS

router = APIRouter(prefix="/v1", tags=["tenants"], responses=COMMON)
Connection = psycopg.Connection[dict[str, Any]]
TenantName = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f*][^\x00-\x1f\x7f]*$")]
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
Text = Annotated[str, Field(min_length=1, max_length=128, pattern=WITHOUT_CONTROLS)]


class Tier(BaseModel):
    """What a subscription holds; null is no limit."""

    name: str
    max_chains: int | None
    max_executions_per_day: int | None
    retention_days: int
    requests_per_minute: int
    features: list[str]


class TenantIn(BaseModel):
    """What is said about a tenant."""

    model_config = ConfigDict(extra="forbid")
    display_name: Annotated[str, Field(max_length=256, pattern=WITHOUT_CONTROLS)] = ""
    tier: Text


class TenantOut(BaseModel):
    """A tenant."""

    tenant: str
    display_name: str
    tier: str
    created_unix_us: int
    updated_unix_us: int


class Usage(BaseModel):
    """What a tenant has used on a day, by tier of the executions."""

    tenant: str
    tier: str
    day: str
    executions: int
    completed: int
    failed: int
    chains: int
    users: int


class Me(BaseModel):
    """Who asks, as the API sees it."""

    principal: str
    tenant: str
    role: Role
    requests_per_minute: int | None
    tier: Tier | None
    chains_declared: int
    executions_today: int


class KeyIn(BaseModel):
    """What a key is for."""

    model_config = ConfigDict(extra="forbid")
    name: Text
    role: Role
    expires_at: times.Moment | None = None


class Key(BaseModel):
    """A key; itself it is not kept anywhere."""

    id: str
    tenant: str
    name: str
    role: Role
    created_by: str
    created_unix_us: int
    expires_unix_us: int | None
    last_used_unix_us: int | None
    revoked_unix_us: int | None


class NewKey(Key):
    """A key that was just made."""

    key: str = Field(description="shown this once")


class AuditEntry(BaseModel):
    """Something that was changed."""

    id: int
    tenant: str
    at_unix_us: int
    actor: str
    action: str
    object_type: str
    object_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@router.get("/me", summary="Who I am")
def show_me(scope: Reader) -> Me:
    """Return what the API knows of the one who asks, and how much of the tier is used."""
    rows = scope.rows(_ME, tenant=scope.tenant)
    tier = Tier(**{name: rows[0][name] for name in Tier.model_fields}) if rows[0]["name"] else None
    who = scope.principal
    used = {name: rows[0][name] for name in ("chains_declared", "executions_today")}
    return Me(principal=who.id, tenant=scope.tenant, role=who.role, requests_per_minute=who.requests_per_minute, tier=tier, **used)


@router.get("/tiers", summary="List tiers")
def list_tiers(scope: Overseer) -> list[Tier]:
    """Return all tiers and their limits."""
    return [Tier(**row) for row in scope.rows("SELECT * FROM tiers ORDER BY name")]


@router.get("/tenants", summary="List tenants")
def list_tenants(scope: Overseer, page: Paged) -> Page[TenantOut]:
    """Return tenants by name."""
    after = page.after(str)
    query = "SELECT * FROM tenants WHERE tenant > %(after)s ORDER BY tenant LIMIT %(limit)s"
    rows = scope.rows(query, after=after[0] if after else "", limit=page.limit + 1)
    return page.page(rows, lambda row: (row["tenant"],), _tenant)


@router.get("/tenants/{name}", summary="Show a tenant")
def show_tenant(scope: Overseer, name: TenantName) -> TenantOut:
    """Return a tenant."""
    rows = scope.rows("SELECT * FROM tenants WHERE tenant = %(name)s", name=name)
    if not rows:
        raise not_found(f"tenant {name}")
    return _tenant(rows[0])


@router.put("/tenants/{name}", summary="Add or change a tenant", response_model=TenantOut)
def change_tenant(scope: Owner, name: TenantName, body: TenantIn, fingerprint: Fingerprint, idempotency_key: IdempotencyKey = None) -> Response:
    """Put a tenant into a tier; the limits hold for running workers as soon as they have read it."""
    answer = once(
        scope, idempotency_key, fingerprint, lambda connection: _tenant(put_tenant(connection, name, body.display_name or name, body.tier))
    )
    scope.services.tokens.forget()
    scope.services.relay()
    return answer


@router.delete("/tenants/{name}", status_code=204, summary="Remove a tenant", response_class=Response)
def delete_tenant(scope: Owner, name: TenantName) -> None:
    """Forget a tenant's tier and revoke its keys; what was stored of it goes with its retention."""
    with scope.database() as connection:
        if not remove_tenant(connection, name):
            raise not_found(f"tenant {name}")
    scope.services.tokens.forget()
    scope.services.relay()


@router.get("/usage", summary="Usage by day and tier")
def show_usage(scope: Reader, stretch: times.Month) -> list[Usage]:
    """Return what the tenant has used, the latest day first."""
    query = "SELECT * FROM tenant_usage WHERE tenant = %(tenant)s AND day >= %(since)s::date AND day <= %(until)s::date ORDER BY day DESC, tier LIMIT 10000"
    rows = scope.rows(query, tenant=scope.tenant, since=stretch.since, until=stretch.until)
    return [Usage(**{**row, "day": row["day"].isoformat()}) for row in rows]


@router.get("/usage/by-tier", summary="Usage of all tenants by tier")
def usage_by_tier(scope: Overseer, stretch: times.Month) -> list[Usage]:
    """Return what all tenants have used, the latest day first; `tenant` is empty where several are put together."""
    rows = scope.rows(_BY_TIER, since=stretch.since, until=stretch.until)
    return [Usage(**{**row, "tenant": "", "day": row["day"].isoformat()}) for row in rows]


@router.get("/keys", summary="List API keys")
def list_keys(scope: Administrator, page: Paged, revoked: Annotated[bool, Query(description="also those that were revoked")] = False) -> Page[Key]:
    """Return the tenant's keys by id; no key itself."""
    after = page.after(str)
    query = "SELECT * FROM api_keys WHERE tenant = %(tenant)s AND (%(revoked)s OR revoked_at IS NULL) AND id > %(after)s ORDER BY id LIMIT %(limit)s"
    rows = scope.rows(query, tenant=scope.tenant, revoked=revoked, after=after[0] if after else "", limit=page.limit + 1)
    return page.page(rows, lambda row: (row["id"],), lambda row: Key(**key_facts(row)))


@router.post("/keys", status_code=201, summary="Make an API key", response_model=NewKey)
def make_key(scope: Administrator, body: KeyIn) -> NewKey:
    """Make a key of the tenant. It is shown in this answer only, so the answer is not kept for an idempotency key."""
    with scope.database() as connection:
        key, row = create_key(connection, scope.tenant, body.name, body.role, scope.principal.id, body.expires_at)
    return NewKey(**key_facts(row), key=key)


@router.delete("/keys/{key}", status_code=204, summary="Revoke an API key", response_class=Response)
def end_key(scope: Administrator, key: KeyId) -> None:
    """Make a key invalid from now on."""
    with scope.database() as connection:
        if not revoke_key(connection, scope.tenant, key):
            raise not_found(f"key {key} that is valid")
    scope.services.tokens.forget()


@router.get("/audit", summary="The audit log")
def list_audit(
    scope: Auditor, page: Paged, stretch: times.Month, object_type: Annotated[str, Query(max_length=64, pattern=WITHOUT_CONTROLS)] = "",
    object_id: Annotated[str, Query(max_length=256, pattern=WITHOUT_CONTROLS)] = "",
) -> Page[AuditEntry]:  # fmt: skip
    """Return what was changed by whom, the latest first; with a key of every tenant that names none, of all."""
    after = page.after(int)
    rows = scope.rows(
        AUDIT, tenant=scope.tenant, since=stretch.since, until=stretch.until, type=object_type, id=object_id, after=after[0] if after else None,
        limit=page.limit + 1,
    )  # fmt: skip
    return page.page(rows, lambda row: (row["id"],), audit_entry)


def audit_entry(row: dict[str, Any]) -> AuditEntry:
    """Return a row of audit_log."""
    return AuditEntry(**{name: row[name] for name in row if name != "at"}, at_unix_us=times.unix_us(row["at"]) or 0)


def key_facts(row: dict[str, Any]) -> dict[str, Any]:
    """Return what may be told of a row of api_keys."""
    same = {name: row[name] for name in ("id", "tenant", "name", "role", "created_by")}
    return same | {f"{name}_unix_us": times.unix_us(row[f"{name}_at"]) for name in ("created", "expires", "last_used", "revoked")}


def _tenant(row: dict[str, Any]) -> TenantOut:
    same = {name: row[name] for name in ("tenant", "display_name", "tier")}
    return TenantOut(**same, created_unix_us=times.unix_us(row["created_at"]) or 0, updated_unix_us=times.unix_us(row["updated_at"]) or 0)


_ME = """
SELECT t.*,
    (SELECT count(*) FROM flow_definitions_current d WHERE d.tenant = %(tenant)s) AS chains_declared,
    (SELECT coalesce(sum(u.executions), 0)::bigint FROM flow_usage_daily u
        WHERE u.tenant = %(tenant)s AND u.day = (now() AT TIME ZONE 'UTC')::date) AS executions_today
FROM (VALUES (%(tenant)s)) AS asked (tenant) LEFT JOIN tenants USING (tenant) LEFT JOIN tiers t ON t.name = tenants.tier"""
_BY_TIER = """
SELECT tier, day, sum(executions)::bigint AS executions, sum(completed)::bigint AS completed, sum(failed)::bigint AS failed,
    count(DISTINCT (tenant, chain)) AS chains, count(DISTINCT (tenant, user_id)) FILTER (WHERE user_id <> '') AS users
FROM flow_usage_daily WHERE day >= %(since)s::date AND day <= %(until)s::date
GROUP BY tier, day ORDER BY day DESC, tier LIMIT 10000"""
AUDIT = """
SELECT id, tenant, at, actor, action, object_type, object_id, before, after FROM audit_log
WHERE (%(tenant)s = '*' OR tenant = %(tenant)s) AND at >= %(since)s AND at < %(until)s
    AND (%(type)s = '' OR object_type = %(type)s) AND (%(id)s = '' OR object_id = %(id)s)
    AND (%(after)s::bigint IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s"""
