"""ASGI: a middleware for any application, and how FastAPI, Starlette and Django get it by themselves."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from flowchain.context import READ
from flowchain.integrations.guarding import attempt, wrap
from flowchain.integrations.work import Work, request_name, serve

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Route = Callable[[Scope], str | None]
"""Returns the template of the route that a request will take, e.g. `/orders/{id}`."""

MAX_PATHS = 4096
_MARK = "flowchain"
_WANTED = frozenset(name.encode() for name in READ)


class FlowMiddleware:
    """Makes each request a step. It ends with the last byte of the response, or with the error that came out."""

    def __init__(self, app: App, route: Route | None = None) -> None:
        self.app = app
        self._route = route or _starlette_route
        self._templates: dict[tuple[str, str, str], str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or _MARK in scope:
            return await self.app(scope, receive, send)
        work = attempt(self._begin, scope)
        if work is None:
            return await self.app(scope, receive, send)

        async def tell(message: Message) -> None:
            await send(message)
            attempt(_note, work, message)

        try:
            await self.app(scope, receive, tell)
        except BaseException as error:
            attempt(work.end, error)
            raise
        finally:
            attempt(_finish, work)

    def _begin(self, scope: Scope) -> Work | None:
        scope[_MARK] = True  # an application inside this one is part of the same request
        headers = [pair for pair in scope["headers"] if pair[0] in _WANTED]
        return serve(headers, self._name(scope))

    def _name(self, scope: Scope) -> str:
        method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
        key = (method, scope.get("root_path", ""), scope["path"])
        known = self._templates.get(key)
        if known is None:
            known = request_name(method, attempt(self._route, scope))
            if len(self._templates) >= MAX_PATHS:
                self._templates.clear()
            self._templates[key] = known
        return known


def _note(work: Work, message: Message) -> None:
    kind = message["type"]
    if kind == "http.response.start":
        work.status = message["status"]
    elif kind == "http.response.body" and not message.get("more_body") and work.status < 500:
        work.end()  # what runs after the response (background tasks) is not waited for; of a 500 the error is still to come


def _finish(work: Work) -> None:
    work.end()
    work.leave()


def _starlette_route(scope: Scope) -> str | None:
    """Return the template by asking the routes of the application that is about to be run."""
    routes = getattr(scope.get("app"), "routes", None)
    return _template(routes, scope) if routes is not None else None


def _template(routes: Iterable[Any], scope: Scope) -> str | None:
    """Return the template of the route that takes the request, else of the first that takes its path by another method."""
    partial = None
    for route in _each(routes):
        match, child = route.matches(scope)
        if match.value and (match.value == 2 or partial is None):  # none, partial, full
            path = str(getattr(route, "path", ""))
            inner = getattr(route, "routes", None)
            found = path if not inner else path + (_template(inner, {**scope, **child}) or "")
            if match.value == 2:
                return found
            partial = found
    return partial


def _each(routes: Iterable[Any]) -> Iterator[Any]:
    for route in routes:
        if hasattr(route, "effective_route_contexts"):  # a router that FastAPI includes when it is first asked
            yield from (context.starlette_route or context for context in route.effective_route_contexts())
        else:
            yield route


def wrap_starlette(module: Any) -> None:
    """Have every Starlette, or FastAPI, application run inside the middleware."""
    for name in ("Starlette", "FastAPI"):
        if hasattr(module, name):
            wrap(getattr(module, name), "build_middleware_stack", _around_stack)


def _around_stack(original: Callable[..., App]) -> Callable[..., App]:
    def build_middleware_stack(application: Any) -> App:
        return FlowMiddleware(original(application))

    return build_middleware_stack


def wrap_django(module: Any) -> None:
    """Have Django's ASGI handler run inside the middleware."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        async def call(handler: Any, scope: Scope, receive: Receive, send: Send) -> None:
            app = FlowMiddleware(lambda *ways: original(handler, *ways), _django_route)
            await app(scope, receive, send)

        return call

    wrap(module.ASGIHandler, "__call__", around)


def _django_route(scope: Scope) -> str | None:
    from django.urls import Resolver404, resolve  # the host has imported it

    try:
        return f"/{resolve(scope['path']).route.lstrip('^')}"
    except Resolver404:
        return None
