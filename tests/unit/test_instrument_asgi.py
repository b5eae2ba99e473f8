"""Requests as steps: names, ends, errors, streams and websockets, of real FastAPI applications called in this process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from instrument_world import Reported, reporting

import flowchain
from flowchain.context import Context, Flow, to_headers
from flowchain.integrations import options
from flowchain.integrations.asgi import FlowMiddleware
from flowchain.integrations.work import MAX_NAMES, bounded, request_name

FLOW = Flow("order", "e1", "acme", "u1")
CALLER = Context(FLOW, FLOW.fields(), "00f067aa0ba902b7", "gate")


@pytest.fixture
def reported() -> Iterator[Reported]:
    with reporting("shop") as found:
        yield found


def shop() -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/v1")
    inner = FastAPI()

    @app.get("/orders/{order_id}")
    async def order(order_id: int, background: BackgroundTasks) -> dict[str, Any]:
        with flowchain.step("load"):
            background.add_task(asyncio.sleep, 0)
            return {"id": order_id}

    @router.post("/orders")
    def post() -> dict[str, str]:
        with flowchain.step("save"):
            return {}

    @inner.get("/deep/{thing}")
    async def deep(thing: str) -> str:
        return thing

    @app.get("/broken")
    async def broken() -> None:
        raise KeyError("stock")

    @app.get("/busy")
    async def busy() -> None:
        raise HTTPException(503)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(3):
                with flowchain.step(f"part{number}"):
                    yield b"x"

        return StreamingResponse(parts())

    @app.websocket("/live/{room}")
    async def live(socket: WebSocket, room: str) -> None:
        await socket.accept()
        with flowchain.step("talk"):
            await socket.send_text(room)
        await socket.close()

    app.include_router(router)
    app.mount("/inner", inner)
    app.add_middleware(FlowMiddleware)
    return app


def call(app: Any, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(run())


def test_a_request_with_a_flow_is_a_step_of_it_and_the_parent_of_what_runs_inside(reported: Reported) -> None:
    assert call(shop(), "GET", "/orders/7", to_headers(CALLER)).json() == {"id": 7}
    request, load = reported("step.started")
    assert request["step"] == "GET /orders/{order_id}" and request["execution"] == "e1" and request["user"] == "u1"
    assert request["parents"] == [{"span": CALLER.span, "component": "gate"}]
    assert load["parents"] == [{"span": request["span"], "component": "shop"}]
    assert {event["step"] for event in reported("step.completed")} == {request["step"], "load"}
    assert reported("execution") == [] and flowchain.current() is None


def test_a_request_without_a_flow_begins_an_execution_named_after_its_route(reported: Reported) -> None:
    call(shop(), "POST", "/v1/orders")
    types = [event["type"] for event in reported()]
    assert types == ["execution.started", "step.started", "step.started", "step.completed", "step.completed", "execution.completed"]
    assert {event["chain"] for event in reported()} == {"POST /v1/orders"}
    request, save = reported("step.started")
    assert "parents" not in request and save["parents"][0]["span"] == request["span"]


def test_the_chain_that_a_request_begins_can_be_named_or_none(reported: Reported, monkeypatch: pytest.MonkeyPatch) -> None:
    chains = {"POST /v1/orders": "order_to_cash", "GET /inner/deep/{thing}": ""}
    monkeypatch.setattr(options, "current", options.Options(chains=chains))
    call(shop(), "POST", "/v1/orders")
    call(shop(), "GET", "/inner/deep/9")
    assert [event["chain"] for event in reported("execution.started")] == ["order_to_cash"]
    monkeypatch.setattr(options, "current", options.Options(begin=False))
    call(shop(), "GET", "/busy")
    assert len(reported("execution.started")) == 1
    call(shop(), "GET", "/inner/deep/9", to_headers(CALLER))
    assert reported("step.started")[-1]["step"] == "GET /inner/deep/{thing}"


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/broken", 500, ("KeyError", "data")),
        ("/busy", 503, ("http_503", "capacity")),
        ("/orders/x", 422, (None, None)),
        ("/nowhere", 404, (None, None)),
    ],
)
def test_errors_and_5xx_fail_the_step_and_4xx_do_not(
    reported: Reported, path: str, status: int, expected: tuple[str | None, str | None]
) -> None:
    assert call(shop(), "GET", path, to_headers(CALLER)).status_code == status
    (ended,) = [event for event in reported() if event["type"] in ("step.completed", "step.failed")]
    assert (ended.get("error_type"), ended.get("error_category")) == expected
    if status == 404:
        assert ended["step"] == "GET (no route)"


def test_a_stream_is_over_with_its_last_part(reported: Reported) -> None:
    assert call(shop(), "GET", "/stream", to_headers(CALLER)).content == b"xxx"
    request, *parts = reported("step.started")
    assert [event["step"] for event in parts] == ["part0", "part1", "part2"]
    assert {event["parents"][0]["span"] for event in parts} == {request["span"]}
    assert reported("step.completed")[-1]["step"] == "GET /stream"


def test_a_websocket_is_a_step(reported: Reported) -> None:
    with TestClient(shop()) as client, client.websocket_connect("/live/7", headers=to_headers(CALLER)) as socket:
        assert socket.receive_text() == "7"
    request, talk = reported("step.started")
    assert request["step"] == "WEBSOCKET /live/{room}" and talk["parents"][0]["span"] == request["span"]
    assert {event["step"] for event in reported("step.completed")} == {request["step"], "talk"}


def test_a_bare_application_has_no_routes_and_its_errors_go_through(reported: Reported) -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(scope["path"])

    scope = {"type": "http", "method": "BREW", "path": "/a/1", "headers": []}
    with pytest.raises(ValueError, match="/a/1"):
        asyncio.run(FlowMiddleware(bare)(scope, None, None))  # type: ignore[arg-type]
    assert [event["type"] for event in reported("execution")] == ["execution.started", "execution.failed"]
    assert reported("step.failed")[0]["step"] == "OTHER (no route)"


def test_requests_at_once_keep_apart(reported: Reported) -> None:
    app = shop()

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            await asyncio.gather(*(client.get(f"/orders/{number}") for number in range(20)))

    asyncio.run(run())
    requests = {event["span"]: event for event in reported("step.started") if event["step"].startswith("GET")}
    loads = reported("step.started", "load")
    assert len(requests) == len(loads) == 20
    assert all(requests[event["parents"][0]["span"]]["execution"] == event["execution"] for event in loads)


def test_names_of_steps_are_bounded() -> None:
    names = {bounded(f"GET /{number}") for number in range(MAX_NAMES + 50)}
    assert len(names) <= MAX_NAMES + 1 and "(other)" in names
    bounded_names_are_reset()
    assert request_name("GET", "/orders/{id}") == "GET /orders/{id}"


def bounded_names_are_reset() -> None:
    from flowchain.integrations import work

    work._names.clear()
