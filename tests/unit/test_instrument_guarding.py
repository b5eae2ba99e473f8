"""Whatever fails inside an integration, the host's requests and calls run as before; it is counted and said once."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import grpc
import httpx
import pytest
from test_instrument_asgi import call
from test_instrument_asgi import shop as asgi_shop
from test_instrument_grpc import ask
from test_instrument_grpc import serving as grpc_serving
from test_instrument_http import get_aiohttp, get_httpx, get_httpx_async, get_requests, serving
from test_instrument_http import shop as wsgi_shop

import flowchain
from flowchain import integrations
from flowchain.integrations import options
from flowchain.integrations.work import Work

MODULES = [
    importlib.import_module(f"flowchain.integrations.{found.name}")
    for found in pkgutil.iter_modules(integrations.__path__)
    if found.name not in ("command", "starting")
]
THE_HOST_S_CALL = ("wrap", "around", "attempt", "tracker", "install", "_aio_client", "_aio_single", "_aio_stream", "_channel",
                   "_consumer", "_delivered", "_delivery", "_found_by_others", "_iterate", "_keywords", "_produce", "_producer",
                   "_reporter", "_sensor", "_single", "_stream", "_watched", "_wrapper", "_around", "_wrap")  # fmt: skip
"""What wraps, or calls what was wrapped: there is nothing of ours in it that may fail."""


def inner(module: ModuleType) -> list[str]:
    return [
        name
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not any(name == host or name.startswith(host + "_") for host in THE_HOST_S_CALL)
    ]


FUNCTIONS = [(module, name) for module in MODULES for name in inner(module)]
METHODS = [(Work, name) for name in ("__init__", "begin", "end", "fail", "_end", "leave")]


@pytest.fixture(autouse=True)
def reporting_of_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    flowchain.instrument()
    flowchain.init("shop", channel=lambda counts: flowchain.MemoryChannel(counts, []))
    monkeypatch.setattr(options, "current", options.Options(client_steps=True))
    yield
    monkeypatch.undo()
    flowchain.shutdown(5.0)


def failing(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("ours")


def break_everywhere(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> None:
    """Replace a function under every name that a module of ours has it by."""
    for module in MODULES:
        for name, value in list(vars(module).items()):
            if value is function:
                monkeypatch.setattr(module, name, failing)


def run_the_host() -> None:
    app = asgi_shop()
    assert call(app, "GET", "/orders/7").json() == {"id": 7}
    assert call(app, "GET", "/stream").content == b"xxx"
    assert call(app, "GET", "/busy").status_code == 503
    with serving(wsgi_shop()) as url, flowchain.execution("order"), flowchain.step("call"):
        for get in (get_requests, get_httpx, get_httpx_async, get_aiohttp):
            assert get(url + "/orders/7") == (200, "7")
        assert httpx.get(url + "/stream", verify=False).text == "xxx"
        assert httpx.get(url + "/broken", verify=False).status_code == 500
    with grpc_serving() as target, grpc.insecure_channel(target) as channel, flowchain.execution("order"):
        assert ask(channel, "unary_unary", b"x") == b"x"
        assert ask(channel, "stream_stream", b"x") == b"xx"


@pytest.mark.parametrize(("module", "name"), FUNCTIONS, ids=[f"{m.__name__.split('.')[-1]}.{name}" for m, name in FUNCTIONS])
def test_a_function_that_fails_hurts_nobody(module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_everywhere(monkeypatch, getattr(module, name))
    run_the_host()


@pytest.mark.parametrize(("owner", "name"), METHODS, ids=[name for _, name in METHODS])
def test_a_method_that_fails_hurts_nobody(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, failing)
    run_the_host()


def test_when_everything_fails_it_is_counted_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module, name in FUNCTIONS:
        break_everywhere(monkeypatch, getattr(module, name))
    run_the_host()
    assert flowchain.stats().dropped["integration_error"] > 5
    assert caplog.text.count("integration_error") == 1 and "ours" in caplog.text
