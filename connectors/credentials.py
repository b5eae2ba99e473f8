"""Credentials of flows, encrypted with keys that are in the settings and never in the database.

A credential is encrypted together with whose it is, so that one row's ciphertext put into another's place is refused.
Values are SecretStr wherever they are in the clear: neither `repr` nor a log shows them.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import psycopg
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from psycopg.rows import DictRow
from pydantic import SecretStr

Session = psycopg.Connection[DictRow]
MAX_CHARACTERS = 65_536


class CredentialError(Exception):
    """What is wrong with a credential or the keys, in one sentence without any of their values."""


class Vault:
    """Encrypts and decrypts with the keys of the setting credential_keys."""

    def __init__(self, keys: SecretStr | None) -> None:
        """Take the keys; raises CredentialError when there is none or one is not a Fernet key."""
        given = [key.strip() for key in keys.get_secret_value().split(",") if key.strip()] if keys else []
        if not given:
            raise CredentialError("credentials cannot be stored or read without FLOWCHAIN_CREDENTIAL_KEYS (Fernet keys, the first one encrypts)")
        self.key_id = key_id(given[0])
        """Which key encrypts."""
        try:
            self._fernet = MultiFernet([Fernet(key) for key in given])
        except ValueError:
            raise CredentialError("FLOWCHAIN_CREDENTIAL_KEYS: a Fernet key is 32 bytes in URL-safe base64") from None

    def encrypt(self, tenant: str, flow: str, name: str, value: SecretStr) -> bytes:
        """Return the ciphertext of a value."""
        return self._fernet.encrypt(json.dumps([tenant, flow, name, value.get_secret_value()]).encode())

    def decrypt(self, row: Mapping[str, Any]) -> SecretStr:
        """Return the value of a row (tenant, flow, name, ciphertext, key_id); raises CredentialError."""
        try:
            *whose, value = json.loads(self._fernet.decrypt(bytes(row["ciphertext"])))
        except InvalidToken:
            raise CredentialError(f"{_title(row)} is not encrypted with a key of FLOWCHAIN_CREDENTIAL_KEYS (its key is {row['key_id']})") from None
        if whose != [row["tenant"], row["flow"], row["name"]]:
            raise CredentialError(f"{_title(row)} holds the ciphertext of another credential")
        return SecretStr(value)


def key_id(key: str) -> str:
    """Return the name of a key: the first digits of its hash, which say nothing of the key."""
    return sha256(key.encode()).hexdigest()[:12]


def store_credential(
    session: Session, vault: Vault, tenant: str, flow: str, name: str, value: SecretStr, *, actor: str, description: str | None = None,
    expires_at: datetime | None = None,
) -> None:  # fmt: skip
    """Store a credential, or a new value of it; a description that is left out stays. Raises CredentialError."""
    if not 0 < len(value.get_secret_value()) <= MAX_CHARACTERS:
        raise CredentialError(f"the value of a credential has 1 to {MAX_CHARACTERS:,} characters")
    session.execute(
        "INSERT INTO flow_credentials AS held (tenant, flow, name, ciphertext, key_id, description, created_by, expires_at)"
        " VALUES (%(tenant)s, %(flow)s, %(name)s, %(ciphertext)s, %(key_id)s, coalesce(%(description)s, ''), %(actor)s, %(expires_at)s)"
        " ON CONFLICT (tenant, flow, name) DO UPDATE SET ciphertext = excluded.ciphertext, key_id = excluded.key_id,"
        " description = coalesce(%(description)s, held.description), expires_at = excluded.expires_at, rotated_at = NULL",
        {
            "tenant": tenant, "flow": flow, "name": name, "ciphertext": vault.encrypt(tenant, flow, name, value), "key_id": vault.key_id,
            "description": description, "actor": actor, "expires_at": expires_at,
        },
    )  # fmt: skip


def read_credential(session: Session, vault: Vault, tenant: str, flow: str, name: str) -> SecretStr:
    """Return the value of a credential, for whoever uses it; raises CredentialError."""
    query = "SELECT tenant, flow, name, ciphertext, key_id FROM flow_credentials WHERE (tenant, flow, name) = (%s, %s, %s)"
    row = session.execute(query, [tenant, flow, name]).fetchone()
    if row is None:
        raise CredentialError(f"{tenant} has no credential {name} of {flow}")
    return vault.decrypt(row)


def list_credentials(session: Session, flow: str | None = None) -> list[DictRow]:
    """Return what is known of the credentials that the session sees, without values."""
    return session.execute(
        "SELECT tenant, flow, name, key_id, description, created_by, created_at, updated_at, rotated_at, expires_at"
        " FROM flow_credentials WHERE %(flow)s::text IS NULL OR flow = %(flow)s ORDER BY tenant, flow, name", {"flow": flow},
    ).fetchall()  # fmt: skip


def delete_credential(session: Session, tenant: str, flow: str, name: str) -> bool:
    """Remove a credential; return whether there was one."""
    query = "DELETE FROM flow_credentials WHERE (tenant, flow, name) = (%s, %s, %s)"
    return session.execute(query, [tenant, flow, name]).rowcount > 0


def rotate_credentials(session: Session, vault: Vault) -> int:
    """Encrypt anew what the session sees under an older key; return how many. All or, with a CredentialError, none."""
    query = "SELECT tenant, flow, name, ciphertext, key_id FROM flow_credentials WHERE key_id <> %s ORDER BY 1, 2, 3 FOR UPDATE"
    rows = session.execute(query, [vault.key_id]).fetchall()
    for row in rows:
        whose = (row["tenant"], row["flow"], row["name"])
        session.execute(
            "UPDATE flow_credentials SET ciphertext = %s, key_id = %s, rotated_at = now() WHERE (tenant, flow, name) = (%s, %s, %s)",
            [vault.encrypt(*whose, vault.decrypt(row)), vault.key_id, *whose],
        )
    return len(rows)


def _title(row: Mapping[str, Any]) -> str:
    return f"the credential {row['name']} of {row['tenant']}'s {row['flow']}"
