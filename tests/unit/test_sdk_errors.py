"""What kind of trouble an exception is: of the standard library, of libraries by name, of the host, by causes and in groups."""

import asyncio
import concurrent.futures
import errno
import json
import queue
import socket
import sqlite3
import subprocess
import urllib.error
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import confluent_kafka
import grpc
import httpx
import msgspec
import psycopg
import pydantic
import pytest
import requests

import flowchain
from flowchain.classify import CATEGORIES, category_of


def named(module: str, name: str, base: type[Exception] = Exception) -> Exception:
    """An error of a library that is not here."""
    return type(name, (base,), {"__module__": module})("x")


def raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def chained() -> None:
    try:
        raise httpx.ReadTimeout("slow")
    except httpx.ReadTimeout as error:
        raise RuntimeError("no price") from error


def hidden() -> None:
    try:
        raise httpx.ReadTimeout("slow")
    except httpx.ReadTimeout:
        raise RuntimeError("no price") from None


class Rpc(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def http(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://x")
    return httpx.HTTPStatusError("x", request=request, response=httpx.Response(status, request=request))


def kafka(code: int) -> confluent_kafka.KafkaException:
    return confluent_kafka.KafkaException(confluent_kafka.KafkaError(code))


class Model(pydantic.BaseModel):
    n: int


KNOWN: dict[str, tuple[BaseException, str]] = {
    "ValueError": (ValueError(), "data"),
    "KeyError": (KeyError(), "data"),
    "JSON": (raised(lambda: json.loads("{")), "data"),
    "TypeError": (TypeError(), "bug"),
    "ModuleNotFoundError": (ModuleNotFoundError(), "bug"),
    "TimeoutError": (TimeoutError(), "timeout"),
    "ConnectionRefusedError": (ConnectionRefusedError(), "dependency"),
    "no such host": (socket.gaierror(-2, "x"), "dependency"),
    "disk full": (OSError(errno.ENOSPC, "x"), "capacity"),
    "PermissionError": (PermissionError(), "permission"),
    "MemoryError": (MemoryError(), "capacity"),
    "queue.Full": (queue.Full(), "capacity"),
    "asyncio cancelled": (asyncio.CancelledError(), "cancelled"),
    "future cancelled": (concurrent.futures.CancelledError(), "cancelled"),
    "Ctrl-C": (KeyboardInterrupt(), "cancelled"),
    "exit": (SystemExit(1), "cancelled"),
    "broken pool": (concurrent.futures.BrokenExecutor(), "capacity"),
    "subprocess timeout": (subprocess.TimeoutExpired("x", 1), "timeout"),
    "subprocess": (subprocess.CalledProcessError(1, "x"), "dependency"),
    "sqlite constraint": (sqlite3.IntegrityError(), "data"),
    "sqlite": (sqlite3.OperationalError(), "dependency"),
    "urllib status": (urllib.error.HTTPError("x", 503, "x", {}, None), "capacity"),  # type: ignore[arg-type]
    "RuntimeError": (RuntimeError(), "unknown"),
    "Exception": (Exception(), "unknown"),
    "httpx timeout": (httpx.ConnectTimeout("x"), "timeout"),
    "httpx pool": (httpx.PoolTimeout("x"), "capacity"),
    "httpx connect": (httpx.ConnectError("x"), "dependency"),
    "httpx 404": (http(404), "data"),
    "httpx 403": (http(403), "permission"),
    "httpx 429": (http(429), "capacity"),
    "httpx 500": (http(500), "dependency"),
    "httpx 504": (http(504), "timeout"),
    "requests timeout": (requests.ReadTimeout(), "timeout"),
    "requests connect": (requests.ConnectionError(), "dependency"),
    "aiohttp": (aiohttp.ServerDisconnectedError(), "dependency"),
    "aiohttp timeout": (aiohttp.ServerTimeoutError(), "timeout"),
    "kafka timeout": (kafka(confluent_kafka.KafkaError._TIMED_OUT), "timeout"),
    "kafka queue": (kafka(confluent_kafka.KafkaError._QUEUE_FULL), "capacity"),
    "kafka transport": (kafka(confluent_kafka.KafkaError._TRANSPORT), "dependency"),
    "grpc deadline": (Rpc(grpc.StatusCode.DEADLINE_EXCEEDED), "timeout"),
    "grpc argument": (Rpc(grpc.StatusCode.INVALID_ARGUMENT), "data"),
    "grpc away": (Rpc(grpc.StatusCode.UNAVAILABLE), "dependency"),
    "psycopg unique": (psycopg.errors.UniqueViolation(), "data"),
    "psycopg statement timeout": (psycopg.errors.QueryCanceled(), "timeout"),
    "psycopg too many": (psycopg.errors.TooManyConnections(), "capacity"),
    "psycopg syntax": (psycopg.errors.SyntaxError(), "bug"),
    "psycopg connect": (psycopg.OperationalError(), "dependency"),
    "pydantic": (raised(lambda: Model(n="x")), "data"),  # type: ignore[arg-type]
    "msgspec": (msgspec.ValidationError(), "data"),
    "torch memory": (named("torch", "OutOfMemoryError", RuntimeError), "capacity"),
    "torch": (named("torch.jit", "Error", RuntimeError), "model"),
    "sklearn": (named("sklearn.exceptions", "NotFittedError", ValueError), "model"),
    "openai": (named("openai", "RateLimitError"), "capacity"),
    "of the host": (named("shop", "PaymentRefused"), "unknown"),
    "of the host, a ValueError": (named("shop", "WrongPrice", ValueError), "data"),
    "caused": (raised(chained), "timeout"),
    "cause hidden": (raised(hidden), "unknown"),
    "group": (ExceptionGroup("x", [ValueError(), TimeoutError(), TimeoutError(), Exception()]), "timeout"),
    "group in a group": (ExceptionGroup("x", [ExceptionGroup("y", [MemoryError()])]), "capacity"),
    "group of nothing known": (ExceptionGroup("x", [Exception()]), "unknown"),
}


@pytest.mark.parametrize(("error", "category"), KNOWN.values(), ids=KNOWN)
def test_known(error: BaseException, category: str) -> None:
    assert category_of(error) == category and category in CATEGORIES


def test_the_host_s_word_goes_before() -> None:
    class Stock(ValueError):
        pass

    class Backordered(Stock):
        pass

    class Weather(Exception):
        flowchain_category = "weather"

    assert category_of(Backordered()) == "data"
    flowchain.classify(Stock, "capacity")
    assert category_of(Backordered()) == category_of(Stock()) == "capacity"
    assert category_of(Weather()) == "weather"
    error = ValueError()
    error.flowchain_category = "model"  # type: ignore[attr-defined]
    assert category_of(error) == "model"


def test_a_chain_of_causes_that_never_ends_is_left() -> None:
    first, second = RuntimeError(), RuntimeError()
    first.__cause__, second.__cause__ = second, first
    assert category_of(first) == "unknown"


def test_an_error_made_of_anything_is_classified_or_unknown() -> None:
    class Odd(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError("no response")

    kept: list[tuple[bytes, bytes]] = []
    flowchain.init("shop", channel=lambda counts: flowchain.MemoryChannel(counts, kept))
    with pytest.raises(Odd), flowchain.execution("order"):
        raise Odd
    flowchain.shutdown(5.0)
    assert b'"error_category":"unknown"' in kept[-1][1]
    for odd in (SimpleNamespace(status_code="x"), SimpleNamespace(status_code=999), {"Error": None}, None):
        error = Exception(odd)
        error.response = odd  # type: ignore[attr-defined]
        assert category_of(error) == "unknown"
