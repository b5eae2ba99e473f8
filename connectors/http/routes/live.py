"""What happens, as it happens: by WebSocket (several streams) or as server-sent events (one stream)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import orjson
from confluent_kafka import KafkaException
from fastapi import APIRouter, Header, Path, Query, WebSocket, WebSocketException
from fastapi.responses import StreamingResponse
from starlette.websockets import WebSocketDisconnect, WebSocketState

from connectors.database import EVERY_TENANT
from connectors.http.live.feed import catch_up
from connectors.http.live.frames import STREAMS, Facts, Frame, position_of
from connectors.http.live.hub import Gap, Subscription
from connectors.http.parameters import Named
from connectors.http.problems import FieldProblem, Refused
from connectors.http.scope import Reader
from connectors.http.services import Services
from connectors.http.sockets import POLICY, TRY_LATER, principal_of, tenant_of, token_of

router = APIRouter(prefix="/v1/live", tags=["live"])
StreamName = Literal["alerts", "incidents", "anomalies", "violations", "health", "dependencies", "executions", "flows", "slos", "limits"]
RECHECK_S = 30.0
"""How often it is looked whether a client's key is still valid."""
QUIET_S = 15.0
"""A comment is sent after so long without an event, so that proxies keep the connection."""
LOG_RINGS = 10
"""So many times what a ring holds is read from the log for a client that comes back."""
SSE_S = 300.0
"""Server-sent events end after so long, so that the key is looked at again: clients come back by themselves."""


@dataclass(frozen=True)
class Filter:
    """What of a stream a client wants; what is empty is any."""

    tenant: str
    chain: str = ""
    component: str = ""
    severity: str = ""
    user: str = ""

    def matches(self, facts: Facts) -> bool:
        """Whether a record is wanted, and the client's to see: a flow of nobody in particular is everybody's."""
        return (
            (self.tenant in (facts.tenant, EVERY_TENANT) or not facts.tenant)
            and (not self.chain or self.chain in facts.chains)
            and (not self.component or self.component in facts.components)
            and (not self.severity or self.severity == facts.severity)
            and (not self.user or self.user == facts.user)
        )


@router.get("/{stream}", summary="Follow a stream as server-sent events", response_class=StreamingResponse,
            responses={200: {"content": {"text/event-stream": {}}, "description": "events until the client ends it"}})  # fmt: skip
async def follow(
    scope: Reader, stream: Annotated[StreamName, Path()], chain: Named = "", component: Named = "", user: Named = "",
    severity: Annotated[Literal["", "info", "warning", "critical"], Query()] = "",
    last_event_id: Annotated[str | None, Header(max_length=4096, description="go on behind this event")] = None,
) -> StreamingResponse:  # fmt: skip
    """Send each record of a stream as an event; `id` is what `Last-Event-ID` wants. An event `gap` says that some are not sent."""
    wanted = Filter(scope.tenant, chain, component, severity, user)
    after = _positions([last_event_id] if last_event_id else [], [stream])
    if scope.services.hub.clients >= scope.services.settings.live_connections:
        raise Refused(503, "too many clients follow live streams here", headers={"Retry-After": "5"})
    return StreamingResponse(_events(scope.services, stream, wanted, after), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(services: Services, stream: str, wanted: Filter, after: dict[str, dict[int, int]]) -> AsyncIterator[str]:
    services.hub.clients += 1
    try:
        with Subscription(services.hub, [stream], wanted.matches) as subscription:
            for item in await resumed(services, subscription, wanted, after):
                yield _event(item)
            ends = asyncio.get_running_loop().time() + SSE_S
            while asyncio.get_running_loop().time() < ends:
                try:
                    async with asyncio.timeout(QUIET_S):
                        found = await subscription.next()
                except TimeoutError:
                    yield ": quiet\n\n"
                    continue
                yield "".join(map(_event, found))
    finally:
        services.hub.clients -= 1


def _event(item: Frame | Gap) -> str:
    return item.event if isinstance(item, Frame) else f"event: gap\ndata: {{\"stream\":\"{item.stream}\"}}\n\n"


@router.websocket("")
async def follow_all(
    websocket: WebSocket, streams: Annotated[str, Query(max_length=256)] = "alerts", tenant: Annotated[str | None, Query(max_length=128)] = None,
    chain: Named = "", component: Named = "", user: Named = "", severity: Annotated[str, Query(max_length=16)] = "",
    after: Annotated[list[str] | None, Query(max_length=16)] = None,
) -> None:  # fmt: skip
    """Send {"stream", "id", "data"} per record and {"stream", "gap": true} where some are not sent; `after` is an id to go on behind."""
    services: Services = websocket.app.state.services
    token, subprotocol = token_of(websocket)
    who = await principal_of(services, token)
    wanted = Filter(tenant_of(who, tenant), chain, component, severity, user)
    names = list(dict.fromkeys(streams.split(",")))
    try:
        positions = _positions(after or [], names)
    except Refused as refused:
        raise WebSocketException(POLICY, refused.detail) from refused
    if services.hub.clients >= services.settings.live_connections:
        raise WebSocketException(TRY_LATER, "too many clients follow live streams here")
    await websocket.accept(subprotocol)
    services.hub.clients += 1
    try:
        await _serve(websocket, services, names, wanted, positions, token)
    finally:
        services.hub.clients -= 1


async def _serve(
    websocket: WebSocket, services: Services, names: list[str], wanted: Filter, after: dict[str, dict[int, int]], token: str
) -> None:
    """Send until the client is gone, or its key is not valid any more."""

    async def send() -> None:
        with Subscription(services.hub, names, wanted.matches) as subscription:
            for item in await resumed(services, subscription, wanted, after):
                await websocket.send_text(_text(item))
            while True:
                for item in await subscription.next():
                    await websocket.send_text(_text(item))

    async def listen() -> None:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass

    async def recheck() -> None:
        while True:
            await asyncio.sleep(RECHECK_S)
            await asyncio.to_thread(services.tokens.principal, token)

    tasks = [asyncio.create_task(work()) for work in (send, listen, recheck)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        error = next((task.exception() for task in done if task.exception() is not None), None)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(error, Refused) and websocket.client_state is WebSocketState.CONNECTED:
        await websocket.close(POLICY if error.status == 401 else TRY_LATER, error.detail)
    elif error is not None and not isinstance(error, (WebSocketDisconnect, RuntimeError)):
        raise error


def _text(item: Frame | Gap) -> str:
    return item.text if isinstance(item, Frame) else orjson.dumps({"stream": item.stream, "gap": True}).decode()


async def resumed(services: Services, subscription: Subscription, wanted: Filter, after: dict[str, dict[int, int]]) -> list[Frame | Gap]:
    """Have a subscription go on behind positions; return what is on the log between them and what the rings hold.

    At most ten times what a ring holds is read from the log; of more, and of what was deleted, only the gap is told.
    """
    items: list[Frame | Gap] = []
    for name, position in after.items():
        ring = services.hub.rings[name]
        if not ring.reaches(position):
            floor = dict(ring.floor)
            items += await asyncio.to_thread(_missed, services, name, wanted.matches, position, floor)
            position = {partition: max(offset - 1, position.get(partition, -1)) for partition, offset in floor.items()}
        subscription.resume(name, position)
    return items


def _missed(services: Services, name: str, matches: Callable[[Facts], bool], after: dict[int, int], before: dict[int, int]) -> Iterable[Frame | Gap]:
    missing = sum(max(0, stop - after.get(partition, -1) - 1) for partition, stop in before.items())
    if missing > LOG_RINGS * services.settings.live_frames:
        return [Gap(name)]
    try:
        return [frame for frame in catch_up(services.settings, STREAMS[name], after, before) if matches(frame.facts)]
    except KafkaException:  # retention has deleted what is behind the position
        return [Gap(name)]


def _positions(ids: Iterable[str], names: Iterable[str]) -> dict[str, dict[int, int]]:
    """Return {stream: position} of ids; raises Refused for what is no id of one of the streams."""
    names = set(names)
    if unknown := names - STREAMS.keys():
        raise Refused(422, f"query.streams: there is no {', '.join(sorted(unknown))}; there are {', '.join(STREAMS)}")
    try:
        found = dict(map(position_of, ids))
    except ValueError as error:
        raise Refused(422, str(error), errors=[FieldProblem(field="header.last-event-id", reason="not an id of ours")]) from error
    if strange := found.keys() - names:
        raise Refused(422, f"an id of {', '.join(sorted(strange))} cannot be gone on behind here")
    return found
