"""Errors as problem details (RFC 9457): what went wrong, where, and what to do about it."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import psycopg
import structlog
from clickhouse_driver.errors import Error as ClickHouseError  # type: ignore[import-untyped]
from confluent_kafka import KafkaException
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from psycopg_pool import PoolTimeout
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from connectors.clickhouse import is_transient
from connectors.credentials import CredentialError
from connectors.registry import RegistryRefused, RevisionConflict, UnknownFlow
from connectors.registry.limits import LimitRefused
from connectors.registry.tenants import UnknownTier

log = structlog.get_logger("http")
MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One field that is not as it must be."""

    field: str = Field(description="where: body, path, query or header, then the way to the field")
    reason: str


class Problem(BaseModel):
    """Why a request was not done."""

    type: str = Field("about:blank", description="a URI that names the kind of problem")
    title: str
    status: int
    detail: str = ""
    errors: list[FieldProblem] = Field(default_factory=list)


class Refused(Exception):
    """A request that is refused; becomes a problem body."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, errors: list[FieldProblem] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors or []


def not_found(what: str) -> Refused:
    """Return the refusal of something that is not there, or not there for this tenant: nobody can tell which."""
    return Refused(404, f"there is no {what}")


def answer(status: int, detail: str, headers: Mapping[str, str] | None = None, errors: list[FieldProblem] | None = None) -> Response:
    """Return a problem as a response."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or [])
    return JSONResponse(body.model_dump(), status, dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have every error of the application answered as a problem."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClickHouseError, _clickhouse)
    for kind in (psycopg.OperationalError, PoolTimeout, KafkaException, EOFError, ConnectionError):
        app.add_exception_handler(kind, _unavailable)
    app.add_exception_handler(psycopg.errors.InsufficientPrivilege, _forbidden)
    for refusal, status in _REFUSALS.items():
        app.add_exception_handler(refusal, _by_status(status))
    app.add_exception_handler(Exception, _unexpected)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answer(error.status, error.detail, error.headers, error.errors)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer(error.status_code, str(error.detail), error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [FieldProblem(field=".".join(map(str, e["loc"])), reason=_reason(e)) for e in error.errors()]
    return answer(422, "; ".join(f"{x.field}: {x.reason}" for x in found[:3]), errors=found)


def _reason(error: Mapping[str, Any]) -> str:
    """Return the reason without the value: what somebody sent may be a secret."""
    return str(error["msg"]).removeprefix("Value error, ")


async def _clickhouse(request: Request, error: Exception) -> Response:
    return await (_unavailable if is_transient(error) else _unexpected)(request, error)


async def _unavailable(request: Request, error: Exception) -> Response:
    log.warning("server behind the API does not answer", path=request.url.path, error=type(error).__name__, reason=str(error)[:200])
    return answer(503, "a server behind the API does not answer; try again", {"Retry-After": "2"})


async def _forbidden(request: Request, error: Exception) -> Response:
    log.warning("database refused", path=request.url.path, reason=str(error)[:200])
    return answer(403, "that belongs to another tenant")


_REFUSALS: dict[type[Exception], int] = {
    UnknownFlow: 404, RevisionConflict: 412, RegistryRefused: 422, LimitRefused: 403, UnknownTier: 422, CredentialError: 409,
}  # fmt: skip
"""What the registry refuses, in its own words."""


def _by_status(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(_: Request, error: Exception) -> Response:
        return answer(status, str(error))

    return handler


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("bug", path=request.url.path, exc_info=error)
    return answer(500, "something went wrong here; it was logged")


COMMON: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {}}}
    for status in (400, 401, 403, 404, 409, 412, 413, 422, 429, 503)
}
"""What every operation may answer beside its result."""
