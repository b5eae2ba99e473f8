"""Events by HTTP and WebSocket, for services that reach the API and not Kafka: plain JSON, and CloudEvents."""

import asyncio
from typing import Annotated, Any

from confluent_kafka import KafkaException
from fastapi import APIRouter, Query, Request, WebSocket, WebSocketException
from pydantic import BaseModel, Field
from starlette.websockets import WebSocketDisconnect

from connectors.database import EVERY_TENANT
from connectors.http.problems import MEDIA_TYPE, Problem, Refused
from connectors.http.scope import Emitter
from connectors.http.services import Services
from connectors.http.sockets import POLICY, TRY_LATER, principal_of, tenant_of, token_of
from connectors.intake.inflating import TooLong, inflate
from connectors.intake.posted import TAKEN, Unreadable, events_of, judge, read_body
from connectors.telemetry import INTAKE_EVENTS
from schemas.topics import EVENTS

router = APIRouter(prefix="/v1/events", tags=["events"])
INVALID = 1007
_ANY = {"description": "events as schemas/generated/flowchain.events.v1.schema.json has them, each judged by itself"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            TAKEN[0]: {"schema": {"type": ["object", "array"], **_ANY}}, TAKEN[1]: {"schema": {"type": "object", "description": "a CloudEvent 1.0"}},
            TAKEN[2]: {"schema": {"type": "array", "description": "CloudEvents 1.0"}},
        },
    }
}  # fmt: skip


class RefusedEvent(BaseModel):
    """An event that was not taken."""

    index: int = Field(description="which of those sent, from 0")
    field: str = Field(description="empty: the event as a whole")
    reason: str


class Taken(BaseModel):
    """What became of the events of a request."""

    accepted: int = Field(description="that the brokers have acknowledged")
    refused: list[RefusedEvent]


@router.post("", summary="Send events", status_code=202, openapi_extra=_BODY,
             responses={415: {"model": Problem, "description": "Unsupported Media Type", "content": {MEDIA_TYPE: {}}}})  # fmt: skip
async def send_events(request: Request, scope: Emitter) -> Taken:
    """Put events on the events topic: one or an array of them, or CloudEvents (binary, structured, batch). Answered when the brokers have them.

    The body may be gzip. An event without a tenant gets the key's. A request that is sent again changes nothing: an event's `span` and `id` tell it from others.
    """
    content_type = request.headers.get("content-type", "")
    is_binary = "ce-specversion" in request.headers
    if not is_binary and content_type.partition(";")[0].strip().lower() not in TAKEN:
        raise Refused(415, f"the content type is {', '.join(TAKEN)}")
    try:
        values = read_body(content_type, list(request.headers.items()), await _body(request, scope.services.settings.api_body_bytes))
    except Unreadable as error:
        raise Refused(400, str(error)) from error
    return await _take(scope.services, values, scope.tenant, "http")


async def _body(request: Request, most_bytes: int) -> bytes:
    """Return the body, decompressed."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "identity"):
        raise Refused(415, "the content encoding is gzip or none")
    body = await request.body()
    try:
        return inflate(body, most_bytes) if encoding == "gzip" else body
    except ValueError as error:
        raise Refused(413 if isinstance(error, TooLong) else 400, str(error)) from error


@router.websocket("/ws")
async def send_messages(websocket: WebSocket, tenant: Annotated[str | None, Query(max_length=128)] = None) -> None:
    """Take a JSON array of events per message, and answer each in order as POST does.

    Closed with 1013 when the brokers are away or there were too many messages: what was not answered is to be sent again later.
    """
    services: Services = websocket.app.state.services
    token, subprotocol = token_of(websocket)
    who = await principal_of(services, token)
    of = tenant_of(who, tenant)
    if not who.may("emit") or of == EVERY_TENANT:
        raise WebSocketException(POLICY, "name the tenant: your key is for all of them" if of == EVERY_TENANT else f"the role {who.role} may not emit")
    await websocket.accept(subprotocol)
    try:
        while True:
            values = events_of(await _message(websocket))
            await principal_of(services, token)
            await websocket.send_text((await _take(services, values, of, "websocket")).model_dump_json())
    except WebSocketDisconnect:
        return
    except Unreadable as error:
        await websocket.close(INVALID, str(error)[:100])
    except KafkaException:
        await websocket.close(TRY_LATER, "Kafka does not answer; try again")


async def _message(websocket: WebSocket) -> str | bytes:
    received = await websocket.receive()
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received.get("code", 1000))
    text: str | bytes | None = received.get("text")
    return text if text is not None else received["bytes"]


async def _take(services: Services, values: list[Any], tenant: str, way: str) -> Taken:
    """Return what became of events, once the brokers have them; raises KafkaException when they do not answer."""
    judged = await asyncio.to_thread(judge, values, tenant, services.settings.topic(EVENTS.name))
    await asyncio.wrap_future(services.events.send(judged.records))
    INTAKE_EVENTS.labels(way, "accepted").inc(len(judged.records))
    INTAKE_EVENTS.labels(way, "refused").inc(len(judged.refused))
    return Taken(accepted=len(judged.records), refused=[RefusedEvent(index=x.index, field=x.field, reason=x.reason) for x in judged.refused])
