"""What every operation begins with: who asks, for which tenant, whether they may, and the services to answer with."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

import psycopg
from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from connectors.database import EVERY_TENANT
from connectors.http.principal import Principal, Right
from connectors.http.problems import Refused
from connectors.http.services import Services
from connectors.http.tokens import CHALLENGE
from schemas.base import WITHOUT_CONTROLS

bearer = HTTPBearer(auto_error=False, description="an API key, or a token of the OpenID provider")
header = APIKeyHeader(name="X-API-Key", auto_error=False, description="an API key")
Asked = Annotated[
    str | None,
    Query(alias="tenant", min_length=1, max_length=128, pattern=WITHOUT_CONTROLS, description="whose; needed with a key that is for every tenant"),
]


# What does not wait is `async`: FastAPI would run it on a thread otherwise, and a hop costs more than the work.


async def services(request: Request) -> Services:
    """Return what the application was started with."""
    found: Services = request.app.state.services
    return found


def principal(
    request: Request,
    token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
    key: Annotated[str | None, Security(header)],
    found: Annotated[Services, Depends(services)],
) -> Principal:
    """Return who asks; raises Refused: 401 without a valid key or token, 429 when they ask too often."""
    text = token.credentials if token else key
    if text is None:
        raise Refused(401, "a key is needed: Authorization: Bearer <key>", headers=CHALLENGE)
    who = found.tokens.principal(text)
    found.limits.take(who)
    request.state.principal = who.id
    return who


Who = Annotated[Principal, Depends(principal)]


@dataclass(frozen=True)
class Scope:
    """One request of a principal for a tenant."""

    services: Services
    principal: Principal
    tenant: str

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """Open a transaction that sees this tenant only."""
        with self.services.database.session(self.tenant, self.principal.id) as connection:
            yield connection

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Return what PostgreSQL has for this tenant."""
        with self.database() as connection:
            return connection.execute(query, values).fetchall()

    def select(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Return what one of the queries of `schemas/clickhouse/queries` gives for this tenant."""
        return self.services.clickhouse.select(query, {**values, "tenant": self.tenant})


def _tenant(who: Principal, asked: str | None, or_all: bool) -> str:
    if asked is not None and not who.reaches(asked):
        raise Refused(403, "that tenant is not yours")
    tenant = asked or who.tenant
    if tenant == EVERY_TENANT and not or_all:
        raise Refused(400, "name the tenant: your key is for all of them (?tenant=…)")
    return tenant


def allowed(right: Right, *, or_all: bool = False) -> Callable[..., Awaitable[Scope]]:
    """Return the dependency of operations on one tenant's things; `or_all`: on everybody's, with a key of every tenant that names none."""

    async def scope(who: Who, found: Annotated[Services, Depends(services)], tenant: Asked = None) -> Scope:
        if not who.may(right):
            raise Refused(403, f"the role {who.role} may not {right}")
        return Scope(found, who, _tenant(who, tenant, or_all))

    return scope


def everywhere(right: Right) -> Callable[..., Awaitable[Scope]]:
    """Return the dependency of operations on the whole installation: for principals of every tenant only."""

    async def scope(who: Who, found: Annotated[Services, Depends(services)]) -> Scope:
        if who.tenant != EVERY_TENANT:
            raise Refused(403, "that is for keys of every tenant")
        if not who.may(right):
            raise Refused(403, f"the role {who.role} may not {right}")
        return Scope(found, who, EVERY_TENANT)

    return scope


Reader = Annotated[Scope, Depends(allowed("read"))]
Actor = Annotated[Scope, Depends(allowed("act"))]
Definer = Annotated[Scope, Depends(allowed("define"))]
Emitter = Annotated[Scope, Depends(allowed("emit"))]
Administrator = Annotated[Scope, Depends(allowed("administer"))]
Auditor = Annotated[Scope, Depends(allowed("administer", or_all=True))]
Overseer = Annotated[Scope, Depends(everywhere("read"))]
Operator = Annotated[Scope, Depends(everywhere("act"))]
Owner = Annotated[Scope, Depends(everywhere("administer"))]


async def _fingerprint(request: Request) -> bytes:
    return sha256(b"\n".join((request.method.encode(), f"{request.url.path}?{request.url.query}".encode(), await request.body()))).digest()


Fingerprint = Annotated[bytes, Depends(_fingerprint)]
IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=128, pattern=WITHOUT_CONTROLS, description="the same key again gives the same answer, and nothing is done twice")
]
