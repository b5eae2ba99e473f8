"""What is done to every request whatever it asks: bounded bodies, entity tags, a line in the log and figures."""

import time
from hashlib import blake2b

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.http.problems import answer
from connectors.telemetry import HTTP_REQUESTS, HTTP_SECONDS

log = structlog.get_logger("http")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
TAGGED_BYTES = 4 << 20
"""Larger answers get no entity tag: they would have to be held in memory."""


class BodyLimit:
    """Refuses bodies that are too large: by their declared length at once, else when they grow beyond it."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limit:
            await self._refuse(scope, receive, send)
            return
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLarge:
            if not started:
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(413, f"at most {self._limit:,} bytes are taken", {"Connection": "close"})(scope, receive, send)


class _TooLarge(Exception):
    """More was sent than is taken."""


class EntityTags:
    """Gives the JSON of a GET its entity tag, and answers 304 to those who have it already."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        wanted = Headers(scope=scope).get("if-none-match")
        held: list[Message] = []

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_tagged(message):
                held.append(message)
            elif not held:
                await send(message)
            else:
                held.append(message)
                if not message.get("more_body"):
                    await _send_tagged(held, wanted, send)

        await self._app(scope, receive, hold)


def _is_tagged(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    is_json = headers.get("content-type", "").startswith("application/json")
    return bool(start["status"] == 200 and is_json and int(headers.get("content-length", TAGGED_BYTES)) < TAGGED_BYTES)


async def _send_tagged(held: list[Message], wanted: str | None, send: Send) -> None:
    start, *parts = held
    body = b"".join(part.get("body", b"") for part in parts)
    headers = MutableHeaders(raw=start["headers"])
    tag = headers.get("etag") or f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
    headers["etag"] = tag
    if wanted is not None and (wanted.strip() == "*" or _weak(tag) in map(_weak, wanted.split(","))):
        del headers["content-length"]
        start["status"], body = 304, b""
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _weak(tag: str) -> str:
    return tag.strip().removeprefix("W/")


class AccessLog:
    """Counts and times every request, by route and never by path: ids are no label."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            took_s = time.perf_counter() - began
            method = scope["method"] if scope["method"] in METHODS else "other"
            HTTP_REQUESTS.labels(method, route, str(status)).inc()
            HTTP_SECONDS.labels(method, route).observe(took_s)
            who = scope.get("state", {}).get("principal")
            log.debug("answered", method=scope["method"], path=scope["path"], status=status, seconds=round(took_s, 4), principal=who)
