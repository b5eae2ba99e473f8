"""HTTP clients and WSGI: real requests over loopback between instrumented servers and clients in one process."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import aiohttp
import httpx
import pytest
import requests
from flask import Flask, Response, abort
from instrument_world import Reported, reporting

import flowchain
from flowchain.context import Context, Flow, to_headers
from flowchain.integrations import options
from flowchain.integrations.wsgi import FlowMiddleware

FLOW = Flow("order", "e1", "acme", "u1")
CALLER = Context(FLOW, FLOW.fields(), "00f067aa0ba902b7", "gate")


@pytest.fixture(autouse=True, scope="module")
def instrumented() -> None:
    flowchain.instrument()


@pytest.fixture
def reported() -> Iterator[Reported]:
    with reporting("shop") as found:
        yield found


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(app: Any) -> Iterator[str]:
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def shop() -> Flask:
    app = Flask("shop")

    @app.get("/orders/<int:order_id>")
    def order(order_id: int) -> str:
        with flowchain.step("load"):
            return str(order_id)

    @app.get("/stream")
    def stream() -> Response:
        def parts() -> Iterator[str]:
            for number in range(3):
                with flowchain.step(f"part{number}"):
                    yield "x"

        return Response(parts())

    @app.get("/broken")
    def broken() -> str:
        raise KeyError("stock")

    @app.get("/busy")
    def busy() -> str:
        abort(503)

    return app


def get_requests(url: str) -> tuple[int, str]:
    response = requests.get(url, timeout=5)
    return response.status_code, response.text


def get_httpx(url: str) -> tuple[int, str]:
    response = httpx.get(url, verify=False)
    return response.status_code, response.text


def get_httpx_async(url: str) -> tuple[int, str]:
    async def run() -> tuple[int, str]:
        async with httpx.AsyncClient(verify=False) as client:
            response = await client.get(url)
            return response.status_code, response.text

    return asyncio.run(run())


def get_aiohttp(url: str) -> tuple[int, str]:
    async def run() -> tuple[int, str]:
        async with aiohttp.ClientSession() as client, client.get(url, headers={"x": "y"}) as response:
            return response.status, await response.text()

    return asyncio.run(run())


CLIENTS = [get_requests, get_httpx, get_httpx_async, get_aiohttp]
Get = Callable[[str], tuple[int, str]]


@pytest.mark.parametrize("get", CLIENTS)
def test_a_call_carries_the_flow_to_the_other_service(reported: Reported, get: Get) -> None:
    with serving(shop()) as url, flowchain.execution("order"), flowchain.step("call"):
        assert get(url + "/orders/7") == (200, "7")
    calling, served, load = reported("step.started")
    assert served["step"] == "GET /orders/<int:order_id>" and served["execution"] == calling["execution"]
    assert served["parents"] == [{"span": calling["span"], "component": "shop"}]
    assert load["parents"][0]["span"] == served["span"]


@pytest.mark.parametrize("get", CLIENTS)
def test_a_call_can_be_a_step_of_its_own(reported: Reported, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "current", options.Options(client_steps=True))
    with serving(shop()) as url, flowchain.execution("order"):
        assert get(url + "/busy")[0] == 503
        with pytest.raises((OSError, httpx.ConnectError)):
            get("http://127.0.0.1:9/")
    calling, served, refused = reported("step.started")
    assert calling["step"] == refused["step"] == "GET 127.0.0.1"
    assert served["parents"][0]["span"] == calling["span"]
    failed = [event["error_type"] for event in reported("step.failed")]  # the server's may be told after the client's
    assert failed.count("http_503") == 2 and len(failed) == 3


@pytest.mark.parametrize("get", CLIENTS)
def test_outside_a_flow_a_call_carries_nothing(reported: Reported, get: Get) -> None:
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.extend(name for name in environ if "FLOWCHAIN" in name or "TRACEPARENT" in name)
        start_response("200 OK", [])
        return [b""]

    with serving(app) as url:
        assert get(url)[0] == 200
    assert seen == [] and reported() == []


@pytest.mark.parametrize(
    ("path", "status", "step", "error"),
    [
        ("/broken", 500, "GET /broken", "KeyError"),
        ("/busy", 503, "GET /busy", "http_503"),
        ("/nowhere", 404, "GET (no route)", None),
    ],
)
def test_errors_of_flask_and_5xx_fail_the_step(
    reported: Reported, path: str, status: int, step: str, error: str | None
) -> None:
    with serving(shop()) as url:
        assert httpx.get(url + path, headers=to_headers(CALLER)).status_code == status
    (ended,) = [event for event in reported() if event["type"] in ("step.completed", "step.failed")]
    assert (ended["step"], ended.get("error_type")) == (step, error)


def test_a_stream_is_over_when_it_is_closed(reported: Reported) -> None:
    with serving(shop()) as url:
        assert httpx.get(url + "/stream", headers=to_headers(CALLER)).text == "xxx"
    request, *parts = reported("step.started")
    assert {event["parents"][0]["span"] for event in parts} == {request["span"]} and len(parts) == 3
    assert reported("step.completed")[-1]["step"] == "GET /stream"


def test_a_body_s_own_close_is_called_and_its_error_goes_through(reported: Reported) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"

        def close(self) -> None:
            raise OSError("not closed")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return Body()

    body = FlowMiddleware(app)({"REQUEST_METHOD": "GET"}, lambda status, headers: None)
    assert list(body) == [b"x"]
    with pytest.raises(OSError, match="not closed"):
        body.close()  # type: ignore[attr-defined]
    assert reported("step.failed")[0]["error_type"] == "OSError" and flowchain.current() is None


def test_an_error_before_the_response_goes_through(reported: Reported) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        FlowMiddleware(app)({"REQUEST_METHOD": "GET"}, lambda status, headers: None)
    assert reported("execution.failed")[0]["error_type"] == "ValueError" and flowchain.current() is None


def test_the_host_s_own_baggage_and_trace_stay(reported: Reported) -> None:
    seen: dict[str, str] = {}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update({name: value for name, value in environ.items() if name.startswith("HTTP_")})
        start_response("200 OK", [])
        return [b""]

    own = f"00-{'1' * 32}-{'2' * 16}-01"
    with serving(app) as url, flowchain.execution("order"), flowchain.step("call"):
        httpx.get(url, headers={"traceparent": own, "baggage": "a=b"})
        assert seen["HTTP_TRACEPARENT"] == own and "HTTP_TRACESTATE" not in seen
        assert seen["HTTP_BAGGAGE"].startswith("flowchain-chain=order,") and seen["HTTP_BAGGAGE"].endswith(",a=b")
        requests.get(url, headers=flowchain.inject(), timeout=5)
        assert seen["HTTP_TRACEPARENT"] == flowchain.inject()["traceparent"]
        assert seen["HTTP_BAGGAGE"] == flowchain.inject()["baggage"]
