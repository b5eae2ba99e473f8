"""API keys: made, listed and revoked. A key itself is shown once and kept nowhere; its hash is."""

import secrets
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, get_args

import psycopg

Role = Literal["viewer", "operator", "admin", "service"]
ROLES: tuple[Role, ...] = get_args(Role)
Connection = psycopg.Connection[dict[str, Any]]
PREFIX = "fck_"
"""Begins every key, so that a leaked one is found by scanners."""


def key_hash(key: str) -> bytes:
    """Return what stands in the database for a key; 256 random bits need no slow hash."""
    return sha256(key.encode()).digest()


def create_key(
    connection: Connection, tenant: str, name: str, role: Role, actor: str, expires_at: datetime | None = None
) -> tuple[str, dict[str, Any]]:
    """Make a key of a tenant, or of every tenant ("*"); return it and its row."""
    ident, key = secrets.token_hex(8), PREFIX + secrets.token_urlsafe(32)
    row = connection.execute(_INSERT, [ident, tenant, name, role, key_hash(key), actor, expires_at]).fetchone()
    assert row is not None
    return key, row


def revoke_key(connection: Connection, tenant: str, ident: str) -> bool:
    """Make a key invalid from now on; return whether it was valid. With "*" a key of any tenant."""
    query = "UPDATE api_keys SET revoked_at = now() WHERE %s IN (tenant, '*') AND id = %s AND revoked_at IS NULL"
    return bool(connection.execute(query, [tenant, ident]).rowcount)


_INSERT = """
INSERT INTO api_keys (id, tenant, name, role, hash, created_by, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING *"""
