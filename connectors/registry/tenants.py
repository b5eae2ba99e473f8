"""Tenants in the registry: stored, and published for the workers in the same transaction."""

from typing import Any

import psycopg

from schemas.tenants import Tenant, TierLimits
from schemas.topics import TENANTS

Connection = psycopg.Connection[dict[str, Any]]


class UnknownTier(Exception):
    """There is no tier of that name."""


def put_tenant(connection: Connection, tenant: str, display_name: str, tier: str) -> dict[str, Any]:
    """Put a tenant into a tier and return its row; raises UnknownTier. The session must be one of every tenant."""
    found = connection.execute("SELECT * FROM tiers WHERE name = %s", [tier]).fetchone()
    if found is None:
        raise UnknownTier(f"there is no tier {tier!r}")
    row = connection.execute(_PUT, [tenant, display_name, tier]).fetchone()
    assert row is not None
    _publish(connection, tenant, record(row, found).encode())
    return row


def remove_tenant(connection: Connection, tenant: str) -> bool:
    """Forget a tenant and revoke its keys; return whether it was there."""
    gone = connection.execute("DELETE FROM tenants WHERE tenant = %s", [tenant]).rowcount
    if gone:
        connection.execute("UPDATE api_keys SET revoked_at = now() WHERE tenant = %s AND revoked_at IS NULL", [tenant])
        _publish(connection, tenant, None)
    return bool(gone)


def record(tenant: dict[str, Any], tier: dict[str, Any]) -> Tenant:
    """Return what the workers are told of a tenant."""
    names = ("max_chains", "max_executions_per_day", "retention_days", "requests_per_minute")
    limits = TierLimits(**{name: tier[name] for name in names}, features=tuple(tier["features"]))
    return Tenant(tenant=tenant["tenant"], tier=tenant["tier"], display_name=tenant["display_name"], limits=limits)


def _publish(connection: Connection, tenant: str, value: bytes | None) -> None:
    row = [tenant, TENANTS.name, tenant.encode(), value]
    connection.execute("INSERT INTO registry_outbox (tenant, topic, key, value) VALUES (%s, %s, %s, %s)", row)


_PUT = """
INSERT INTO tenants (tenant, display_name, tier) VALUES (%s, %s, %s)
ON CONFLICT (tenant) DO UPDATE SET display_name = excluded.display_name, tier = excluded.tier
RETURNING *"""
