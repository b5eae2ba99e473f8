"""The same write sent twice is done once: the first answer is kept with what it did, in one transaction."""

from collections.abc import Callable
from typing import Any

import psycopg
from fastapi.responses import Response
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from connectors.http.problems import Refused
from connectors.http.scope import Scope

Act = Callable[[psycopg.Connection[dict[str, Any]]], BaseModel | None]
REPLAYED = "Idempotency-Replayed"


def once(scope: Scope, key: str | None, fingerprint: bytes, act: Act, *, status: int = 200) -> Response:
    """Do a write inside a transaction of the scope and answer with what it returns (None: 204).

    With a key that was used before the answer of then comes again; raises Refused (422) when it was another request's.
    A write that failed is not remembered.
    """
    with scope.database() as connection:
        if key is not None and (before := _before(connection, scope, key, fingerprint)):
            return before
        result = act(connection)
        response = Response(status_code=204) if result is None else Response(result.model_dump_json(), status, media_type="application/json")
        if key is not None:
            held = {name: value for name, value in response.headers.items() if name not in ("content-length", "content-type")}
            row = [scope.tenant, scope.principal.id, key, fingerprint, response.status_code, Jsonb(held), bytes(response.body)]
            connection.execute(_KEEP, row)
    return response


def _before(connection: psycopg.Connection[dict[str, Any]], scope: Scope, key: str, fingerprint: bytes) -> Response | None:
    # Whoever comes with the same key meanwhile waits here until the first one has answered.
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{scope.tenant}/{scope.principal.id}/{key}"])
    row = connection.execute(_FIND, [scope.tenant, scope.principal.id, key]).fetchone()
    if row is None:
        return None
    if row["request_hash"] != fingerprint:
        raise Refused(422, "header.idempotency-key: it was used for another request")
    media_type = "application/json" if row["body"] else None
    return Response(bytes(row["body"]), row["status"], {**row["headers"], REPLAYED: "true"}, media_type)


_FIND = "SELECT request_hash, status, headers, body FROM idempotency_keys WHERE tenant = %s AND actor = %s AND key = %s"
_KEEP = (
    "INSERT INTO idempotency_keys (tenant, actor, key, request_hash, status, headers, body) VALUES (%s, %s, %s, %s, %s, %s, %s)"
)
