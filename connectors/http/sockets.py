"""Who is behind a WebSocket, and for which tenant: what `scope` is for requests."""

import asyncio

from fastapi import WebSocket, WebSocketException

from connectors.http.principal import Principal
from connectors.http.problems import Refused
from connectors.http.services import Services

POLICY, TRY_LATER = 1008, 1013
SUBPROTOCOL = "flowchain.bearer."
"""A browser cannot set headers of a WebSocket: it offers this and its key as a subprotocol beside `flowchain`."""


def token_of(websocket: WebSocket) -> tuple[str, str | None]:
    """Return the client's token and the subprotocol to agree on; raises WebSocketException without one."""
    scheme, _, token = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip(), None
    if key := websocket.headers.get("x-api-key"):
        return key, None
    offered = [name.strip() for name in websocket.headers.get("sec-websocket-protocol", "").split(",")]
    given = next((name.removeprefix(SUBPROTOCOL) for name in offered if name.startswith(SUBPROTOCOL)), None)
    if given is None:
        raise WebSocketException(POLICY, "a key is needed: Authorization: Bearer <key>")
    return given, "flowchain" if "flowchain" in offered else None


async def principal_of(services: Services, token: str) -> Principal:
    """Return who is behind a token; raises WebSocketException when it is not valid, or they ask too often."""
    try:
        who = await asyncio.to_thread(services.tokens.principal, token)
        services.limits.take(who)
    except Refused as refused:
        raise WebSocketException(POLICY if refused.status in (401, 403) else TRY_LATER, refused.detail) from refused
    return who


def tenant_of(who: Principal, asked: str | None) -> str:
    """Return the tenant that is asked for, else the principal's; raises WebSocketException for another's."""
    if asked is not None and not who.reaches(asked):
        raise WebSocketException(POLICY, "that tenant is not yours")
    return asked or who.tenant
