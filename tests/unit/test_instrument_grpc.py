"""gRPC over loopback: unary and streams, sync and asyncio, each side carries and continues the flow."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from instrument_world import Reported, reporting

import flowchain

KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


@pytest.fixture(autouse=True, scope="module")
def instrumented() -> None:
    flowchain.instrument()


@pytest.fixture
def reported() -> Iterator[Reported]:
    with reporting("shop") as found:
        yield found


def answer(value: bytes, call: Any) -> bytes:
    with flowchain.step("inside"):
        if value == b"bug":
            raise KeyError("stock")
    if value == b"absent":
        call.set_code(grpc.StatusCode.NOT_FOUND)
    if value == b"away":
        call.set_code(grpc.StatusCode.UNAVAILABLE)
        call.set_details("of stock")
    return value


def joined(values: Iterator[bytes], call: Any) -> bytes:
    return answer(b"".join(values), call)


def parts(value: bytes, call: Any) -> Iterator[bytes]:
    yield answer(value, call)
    yield value


async def aio_answer(value: bytes, call: Any) -> bytes:
    return answer(value, call)


async def aio_joined(values: AsyncIterator[bytes], call: Any) -> bytes:
    return answer(b"".join([value async for value in values]), call)


async def aio_parts(value: bytes, call: Any) -> AsyncIterator[bytes]:
    yield answer(value, call)
    yield value


async def aio_both(values: AsyncIterator[bytes], call: Any) -> AsyncIterator[bytes]:
    async for part in aio_parts(b"".join([value async for value in values]), call):
        yield part


SYNC = {
    "unary_unary": answer, "unary_stream": parts, "stream_unary": joined,
    "stream_stream": lambda values, call: parts(b"".join(values), call),
}  # fmt: skip
AIO = {"unary_unary": aio_answer, "unary_stream": aio_parts, "stream_unary": aio_joined, "stream_stream": aio_both}


def handlers(behaviours: dict[str, Any]) -> list[Any]:
    methods = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(behaviour) for kind, behaviour in behaviours.items()}
    return [grpc.method_handlers_generic_handler("shop.Orders", methods)]


@contextmanager
def serving() -> Iterator[str]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers(SYNC))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(1).wait()


def ask(channel: Any, kind: str, value: bytes) -> bytes:
    response = getattr(channel, kind)(f"/shop.Orders/{kind}")(iter([value]) if kind.startswith("stream") else value)
    return b"".join(response) if kind.endswith("stream") else response


async def ask_aio(channel: Any, kind: str, value: bytes) -> bytes:
    response = getattr(channel, kind)(f"/shop.Orders/{kind}")(iter([value]) if kind.startswith("stream") else value)
    return b"".join([part async for part in response]) if kind.endswith("stream") else await response


def holds(reported: Reported, kind: str) -> None:
    calling, served, inside = reported("step.started")
    assert served["step"] == f"shop.Orders/{kind}" and served["execution"] == calling["execution"]
    assert served["parents"] == [{"span": calling["span"], "component": "shop"}]
    assert inside["parents"][0]["span"] == served["span"]
    assert len(reported("step.completed")) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_and_its_service_are_one_thread(reported: Reported, kind: str) -> None:
    with serving() as target, grpc.insecure_channel(target) as channel, flowchain.execution("order"), flowchain.step("call"):
        assert ask(channel, kind, b"x") == (b"xx" if kind.endswith("stream") else b"x")
    holds(reported, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_so_are_they_with_asyncio(reported: Reported, kind: str) -> None:
    async def run() -> bytes:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(handlers(AIO))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with flowchain.execution("order"), flowchain.step("call"):
                found = await ask_aio(channel, kind, b"x")
        await server.stop(1)
        return found

    assert asyncio.run(run()) == (b"xx" if kind.endswith("stream") else b"x")
    holds(reported, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("value", "error"), [(b"bug", "KeyError"), (b"absent", None), (b"away", "grpc_unavailable")])
def test_what_is_the_server_s_fault_fails_the_step(reported: Reported, kind: str, value: bytes, error: str | None) -> None:
    with serving() as target, grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError):
        ask(channel, kind, value)
    ended = [e for e in reported("", f"shop.Orders/{kind}") if e["type"] in ("step.completed", "step.failed")]
    assert [event.get("error_type") for event in ended] == [error]
    if value == b"away":
        assert (ended[0]["error_category"], ended[0]["error_message"]) == ("capacity", "of stock")
    assert flowchain.current() is None
