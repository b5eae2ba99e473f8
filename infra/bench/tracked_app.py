"""The applications that `flowchain bench middleware` sends requests to, as they are and inside the middleware."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowchain.integrations.asgi import FlowMiddleware

App = Callable[[Any, Any, Any], Awaitable[None]]
PATH = "/orders/7"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"{}"}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answer as shortly as ASGI allows."""
    await send(START)
    await send(BODY)


async def _order(request: Request) -> Response:
    return Response(b"{}")


async def _order_of_fastapi(order_id: int) -> dict[str, int]:
    return {}


def fastapi() -> FastAPI:
    """Return an application of one route."""
    app = FastAPI()
    app.get("/orders/{order_id}")(_order_of_fastapi)
    return app


def starlette() -> Starlette:
    """Return an application of one route."""
    return Starlette(routes=[Route("/orders/{order_id:int}", _order)])


APPS: dict[str, Callable[[], App]] = {"bare": lambda: bare, "starlette": starlette, "fastapi": fastapi}


def tracked(name: str) -> App:
    """Return an application inside the middleware, where instrumentation puts it."""
    if name == "bare":
        return FlowMiddleware(bare, lambda scope: "/orders/{order_id}")
    app: Any = APPS[name]()
    app.middleware_stack = FlowMiddleware(app.build_middleware_stack())
    return app  # type: ignore[no-any-return]
