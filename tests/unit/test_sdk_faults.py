"""Whatever inside the SDK raises, the host's code runs as if the SDK were not there."""

import asyncio
import importlib
import inspect
import logging
import pkgutil
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import pytest

import flowchain
from flowchain.metrics import FlowMetricsCollector

NOT_INSIDE = {
    # The host asks these to run its code, and is told of its own mistakes.
    "flowchain.runner", "flowchain.engines", "flowchain.plan", "flowchain.chains", "flowchain.results",
    "flowchain.integrations", "flowchain.instrument",
}  # fmt: skip
BOUNDARY = {
    # What the host's code calls itself, or stands in: each catches what is raised beneath.
    "flowchain.classify.classify",
    "flowchain.decorating._Lasting.__enter__", "flowchain.decorating._Lasting.__exit__", "flowchain.decorating._Lasting.__init__",
    "flowchain.decorating._Running.__enter__", "flowchain.decorating._Running.__exit__", "flowchain.decorating._Running.__init__",
    "flowchain.spans.Scope.__enter__", "flowchain.spans.Scope.__exit__", "flowchain.spans.Scope.__call__",
    "flowchain.spans.Scope._of_call", "flowchain.spans.Scope.pause", "flowchain.spans.Execution.id",
    "flowchain.publisher.Publisher._run_guarded",
    "flowchain.tracker.Tracker.guard",
}  # fmt: skip


class InjectedError(Exception):
    """Something inside the SDK is broken."""


def modules() -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(flowchain.__path__, "flowchain."):
        if not any(info.name == name or info.name.startswith(name + ".") for name in NOT_INSIDE):
            yield importlib.import_module(info.name)


def callables() -> dict[str, tuple[Any, str]]:
    """Return {qualified name: (owner, attribute)} of every function and method that the SDK has inside."""
    found: dict[str, tuple[Any, str]] = {}
    for module in modules():
        for name, item in vars(module).items():
            if getattr(item, "__module__", None) != module.__name__:
                continue
            if isinstance(item, FunctionType):
                found[f"{module.__name__}.{name}"] = (module, name)
            elif inspect.isclass(item) and not getattr(item, "_is_protocol", False):
                for attribute, member in vars(item).items():
                    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                    if isinstance(function, FunctionType) and function.__code__.co_filename == module.__file__:
                        found[f"{module.__name__}.{name}.{attribute}"] = (item, attribute)
    return {name: found[name] for name in sorted(found) if name not in BOUNDARY}


INSIDE = callables()


def broken(*args: Any, **kwargs: Any) -> Any:
    raise InjectedError("inside")


def break_it(monkeypatch: pytest.MonkeyPatch, owner: Any, attribute: str) -> None:
    """Make a callable raise, also where other modules have it under their own names."""
    original = vars(owner)[attribute]
    replaced: Any = property(broken) if isinstance(original, property) else broken
    monkeypatch.setattr(owner, attribute, classmethod(broken) if isinstance(original, classmethod) else replaced)
    if isinstance(owner, ModuleType):
        for module in (flowchain, *modules()):
            for name, item in list(vars(module).items()):
                if item is original and not (module is flowchain and name in flowchain.__all__):
                    monkeypatch.setattr(module, name, broken)


class Refused(Exception):
    """The host's own."""


class Message:
    topic: Callable[[], str] = staticmethod(lambda: "orders")
    partition: Callable[[], int] = staticmethod(lambda: 1)
    offset: Callable[[], int] = staticmethod(lambda: 2)
    timestamp: Callable[[], tuple[int, int]] = staticmethod(lambda: (1, 1_000))


class NoMetrics:
    """Metrics that go nowhere."""

    def step(self, *_: object) -> None:
        pass

    chain = success = step


def host() -> list[Any]:
    """Run a service with everything that the SDK has for it; return what it did."""
    did: list[Any] = []

    @flowchain.step
    def plain(value: int) -> int:
        return value + 1

    @flowchain.step("numbers", attributes={"n": 1})
    def numbers() -> Iterator[int]:
        yield from (1, 2)

    @flowchain.step("anumbers")
    async def anumbers() -> AsyncIterator[int]:
        yield 3

    @flowchain.step("wait", component="other", attempt=2)
    async def wait() -> list[int]:
        await asyncio.sleep(0)
        return [number async for number in anumbers()]

    with flowchain.execution("order", user="u", tier="pro", version="1", attributes={"a": 1}) as execution:
        did.append(plain(1))
        did.extend(numbers())
        did.extend(asyncio.run(wait()))
        headers = flowchain.inject()
        with flowchain.step("read", consumed=flowchain.consumed(Message()), resources={"cpu_us": 1}) as step:
            step.resources = {"cpu_us": 2}
            flowchain.log("info", "main:1")
            flowchain.sample(cpu_ratio=0.5)
        with ThreadPoolExecutor(1) as pool:
            did.append(pool.submit(flowchain.carry(plain), 7).result())
        did.append(isinstance(execution.id, str | None))
    for ending in (flowchain.complete, lambda: flowchain.fail("Late", "too late", "timeout")):
        with flowchain.continued(headers), flowchain.step("join", parents=[flowchain.extract(headers), flowchain.current()]):
            ending()
    for _ in range(3):
        try:
            with flowchain.execution("order"), flowchain.step("refuse", attributes={"b": object()}):
                raise Refused("no")
        except Refused:
            did.append("refused")
    flowchain.stats()
    flowchain.shutdown(0.5)
    return did


EXPECTED = [2, 1, 2, 3, 8, True, "refused", "refused", "refused"]


def begin(**more: Any) -> None:
    def memory(counts: flowchain.Counts) -> flowchain.Channel:
        return flowchain.MemoryChannel(counts, [])

    flowchain.init("shop", channel=[memory, "log"], sample_rate=0.5, **more)
    flowchain._tracker.metrics = FlowMetricsCollector(NoMetrics())


def test_the_host_does_this() -> None:
    assert len(INSIDE) > 120
    begin()
    assert host() == EXPECTED


@pytest.mark.parametrize("name", INSIDE)
def test_a_fault_inside_never_reaches_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowchain.publisher, "_ANEW_S", 0.01)
    owner, attribute = INSIDE[name]
    with monkeypatch.context() as patch:
        begin()
        publisher = flowchain._publisher
        break_it(patch, owner, attribute)
        assert host() == EXPECTED
    assert publisher is not None
    publisher.close(0.5)


@pytest.mark.parametrize("name", INSIDE)
def test_a_fault_at_the_beginning_never_reaches_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowchain.publisher, "_ANEW_S", 0.01)
    owner, attribute = INSIDE[name]
    with monkeypatch.context() as patch:
        break_it(patch, owner, attribute)
        flowchain.init("shop", channel=["log", lambda counts: flowchain.MemoryChannel(counts, [])], sample_rate=0.5)
        publisher = flowchain._publisher
        assert host() == EXPECTED
    if publisher is not None:
        publisher.close(0.5)


def test_a_broken_log_never_reaches_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise OSError("no space left")

    handler = Full()
    logging.getLogger("flowchain").addHandler(handler)
    try:
        flowchain.init("shop", channel="nowhere")
        flowchain.init("shop", channel=lambda counts: SimpleNamespace())
        assert host() == EXPECTED
    finally:
        logging.getLogger("flowchain").removeHandler(handler)
