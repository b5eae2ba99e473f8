"""API keys and OpenID tokens: how a principal is known."""

import threading
from typing import Any

import jwt
import structlog
from cachetools import TTLCache

from connectors.database import EVERY_TENANT, Database
from connectors.http.principal import Principal
from connectors.http.problems import Refused
from connectors.keys import PREFIX, ROLES, Role, key_hash
from connectors.settings import Settings

log = structlog.get_logger("http")
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "EdDSA")
"""Asymmetric ones only: with a shared secret whoever checks tokens could also make them."""
TRUSTED = 10_000
"""Keys that are remembered; of more, those used longest ago are looked up again."""
CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Tokens:
    """Tells who is behind a token."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._trusted: TTLCache[bytes, Principal] = TTLCache(TRUSTED, settings.api_key_trust_s)
        self._lock = threading.Lock()
        self._jwks = jwt.PyJWKClient(settings.oidc_jwks_url, cache_keys=True, timeout=5) if settings.oidc_jwks_url else None

    def principal(self, token: str) -> Principal:
        """Return who is behind a key or a token; raises Refused (401) when it is not valid."""
        if token.startswith(PREFIX):
            return self._by_key(token)
        if self._jwks is None:
            raise Refused(401, "the key is not valid", headers=CHALLENGE)
        return self._by_token(token, self._jwks)

    def forget(self) -> None:
        """Look every key up again: one may have been revoked, or its tenant have another tier."""
        with self._lock:
            self._trusted.clear()

    def _by_key(self, key: str) -> Principal:
        known_as = key_hash(key)
        with self._lock:
            known = self._trusted.get(known_as)
        if known is None:
            known = self._look_up(known_as)
            with self._lock:
                self._trusted[known_as] = known
        return known

    def _look_up(self, known_as: bytes) -> Principal:
        with self._database.session(EVERY_TENANT, "authentication") as connection:
            row = connection.execute(_KEY, [known_as]).fetchone()
            if row is not None and row["stale"]:
                connection.execute("UPDATE api_keys SET last_used_at = now() WHERE id = %s", [row["id"]])
        if row is None:
            raise Refused(401, "the key is not valid, has expired or was revoked", headers=CHALLENGE)
        return Principal(f"key:{row['id']}", row["tenant"], row["role"], row["requests_per_minute"])

    def _by_token(self, token: str, jwks: jwt.PyJWKClient) -> Principal:
        settings = self._settings
        try:
            signing = jwks.get_signing_key_from_jwt(token)
            claims = jwt.decode(
                token, signing.key, list(ALGORITHMS), issuer=settings.oidc_issuer, audience=settings.oidc_audience, leeway=30,
                options={"require": ["exp", "sub", "iss", "aud"]},
            )  # fmt: skip
        except jwt.PyJWKClientConnectionError as error:
            raise Refused(503, "the OpenID provider does not answer; try again", headers={"Retry-After": "5"}) from error
        except jwt.PyJWTError as error:
            log.info("token refused", reason=type(error).__name__)
            raise Refused(401, "the token is not valid", headers=CHALLENGE) from error
        tenant, role = claims.get(settings.oidc_tenant_claim), _role(claims.get(settings.oidc_role_claim))
        if not isinstance(tenant, str) or not tenant or role is None:
            raise Refused(403, f"the token names no tenant ({settings.oidc_tenant_claim}) or no role of ours ({settings.oidc_role_claim})")
        return Principal(f"oidc:{claims['sub']}", tenant, role, self._requests_per_minute(tenant))

    def _requests_per_minute(self, tenant: str) -> int | None:
        with self._database.session(EVERY_TENANT, "authentication") as connection:
            row = connection.execute(_TIER, [tenant]).fetchone()
        return row["requests_per_minute"] if row else None


def _role(claim: Any) -> Role | None:
    """Return the highest role among those that a claim names: a text or a list of them."""
    named = claim if isinstance(claim, list) else [claim]
    by_power: tuple[Role, ...] = ("admin", "operator", "service", "viewer")
    assert set(by_power) == set(ROLES)
    return next((role for role in by_power if role in named), None)


_KEY = """
SELECT k.id, k.tenant, k.role, t.requests_per_minute,
    k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute' AS stale
FROM api_keys k LEFT JOIN tenants USING (tenant) LEFT JOIN tiers t ON t.name = tenants.tier
WHERE k.hash = %s AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())"""
_TIER = "SELECT t.requests_per_minute FROM tenants JOIN tiers t ON t.name = tenants.tier WHERE tenant = %s"
