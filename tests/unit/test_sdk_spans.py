"""The SDK's executions, steps and contexts: what they emit is what the contract wants, and parents are right."""

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowchain
from flowchain import Consumed
from schemas.events import CHAIN_EVENT

Events = list[dict[str, Any]]


class Emitted:
    """The events so far, each held to the contract."""

    def __init__(self) -> None:
        self.encoded: list[tuple[bytes, bytes]] = []

    def __call__(self, type_prefix: str = "") -> Events:
        publisher = flowchain._publisher
        assert publisher is not None and publisher.flush(5.0)
        for _, value in self.encoded:
            CHAIN_EVENT.validate_json(value)
        events = [orjson.loads(value) for _, value in self.encoded]
        return [event for event in events if event["type"].startswith(type_prefix)]


@pytest.fixture
def emitted() -> Iterator[Emitted]:
    kept = Emitted()
    flowchain.init(
        "shop", channel=lambda counts: flowchain.MemoryChannel(counts, kept.encoded), tenant="acme"
    )
    yield kept
    assert flowchain.shutdown(5.0)


def test_an_execution_with_a_step_emits_four_events(emitted: Emitted) -> None:
    with (
        flowchain.execution("order", user="u1", tier="pro", version="3") as execution,
        flowchain.step("validate"),
    ):
        pass
    types = [event["type"] for event in emitted()]
    assert types == ["execution.started", "step.started", "step.completed", "execution.completed"]
    for event in emitted():
        assert event["execution"] == execution.id and event["component"] == "shop"
        about = [event[key] for key in ("chain", "tenant", "user", "tier", "chain_version")]
        assert about == ["order", "acme", "u1", "pro", "3"]
    assert {key for key, _ in emitted.encoded} == {str(execution.id).encode()}


def test_a_failing_step_is_reported_and_its_error_goes_on(emitted: Emitted) -> None:
    with (
        pytest.raises(ValueError, match="no price"),
        flowchain.execution("order"),
        flowchain.step("validate"),
    ):
        raise ValueError("no price")
    step, execution = emitted()[-2:]
    assert (step["type"], step["error_type"], step["error_message"]) == (
        "step.failed",
        "ValueError",
        "no price",
    )
    assert (execution["type"], execution["error_type"]) == ("execution.failed", "ValueError")


def test_a_nested_step_has_the_enclosing_one_as_its_parent(emitted: Emitted) -> None:
    with flowchain.execution("order"), flowchain.step("outer", component="gate"), flowchain.step("inner"):
        pass
    outer, inner = emitted("step.started")
    assert "parents" not in outer
    assert inner["parents"] == [{"span": outer["span"], "component": "gate"}]
    assert flowchain.current() is None


def test_decorators_take_the_name_or_the_function_s(emitted: Emitted) -> None:
    @flowchain.step("named")
    def first(value: int) -> int:
        return second(value) + 1

    @flowchain.step
    def second(value: int) -> int:
        return value * 2

    @flowchain.execution("order")
    def run() -> int:
        return first(2) + first(3)

    assert run() == 12
    assert run() == 12
    named, plain, *_ = emitted("step.started")
    assert named["step"] == "named" and plain["step"].endswith("second")
    assert plain["parents"][0]["span"] == named["span"]
    spans = [event["span"] for event in emitted("step.started")]
    assert len(set(spans)) == len(spans) == 8
    assert len({event["execution"] for event in emitted()}) == 2


def test_asyncio_tasks_keep_their_own_contexts(emitted: Emitted) -> None:
    @flowchain.step("child")
    async def child() -> None:
        await asyncio.sleep(0)

    async def execution(chain: str) -> None:
        with flowchain.execution(chain), flowchain.step("parent"):
            await asyncio.gather(child(), child())

    async def main() -> None:
        await asyncio.gather(*(execution(f"chain{number}") for number in range(5)))

    asyncio.run(main())
    parents = {event["span"]: event for event in emitted("step.started") if event["step"] == "parent"}
    children = [event for event in emitted("step.started") if event["step"] == "child"]
    assert len(children) == 10
    for event in children:
        assert parents[event["parents"][0]["span"]]["execution"] == event["execution"]


def test_threads_begin_without_a_context_and_can_be_given_one(emitted: Emitted) -> None:
    found: list[flowchain.Context | None] = []

    def work() -> None:
        with flowchain.step("in_thread"):
            found.append(flowchain.current())

    with flowchain.execution("order"), flowchain.step("outer"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, work).result()
    assert found[0] is None
    assert [event["step"] for event in emitted("step.started")] == ["outer", "in_thread"]
    assert flowchain.stats().dropped == {"no_execution": 1}


def test_context_goes_over_headers_to_another_service(emitted: Emitted) -> None:
    with flowchain.execution("order", user="ü%1\n", tier="pro", open_ended=True), flowchain.step("send"):
        headers = flowchain.inject()
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    kafka_headers = [(key.title(), value.encode()) for key, value in headers.items()]
    with (
        flowchain.continued(kafka_headers),
        flowchain.step("receive", consumed=Consumed("orders", 3, 7, 1500)),
    ):
        flowchain.complete()
    sent, received = emitted("step.started")
    assert received["parents"] == [{"span": sent["span"], "component": "shop"}]
    assert received["user"] == "ü%1�" and received["execution"] == sent["execution"]
    assert headers["traceparent"] == f"00-{sent['execution']}-{sent['span']}-01"
    assert [event["type"] for event in emitted("execution")] == ["execution.started", "execution.completed"]
    consumed = emitted("step.completed")[1]["consumed"]
    assert consumed == {"topic": "orders", "partition": 3, "offset": 7, "broker_us": 1500}


def test_a_batch_step_has_a_parent_in_each_execution_it_joins(emitted: Emitted) -> None:
    contexts = []
    for _ in range(3):
        with flowchain.execution("order"), flowchain.step("produce"):
            contexts.append(flowchain.extract(flowchain.inject()))
    with flowchain.execution("report"), flowchain.step("join", parents=contexts):
        pass
    *produced, joined = emitted("step.started")
    expected = [{"span": e["span"], "component": "shop", "execution": e["execution"]} for e in produced]
    assert joined["parents"] == expected


def test_a_batch_step_without_an_execution_belongs_to_its_first_parent_s(emitted: Emitted) -> None:
    contexts = []
    for _ in range(2):
        with flowchain.execution("order"), flowchain.step("produce"):
            contexts.append(flowchain.current())
    with flowchain.step("join", parents=[None, *contexts]):
        pass
    first, second, joined = emitted("step.started")
    assert joined["execution"] == first["execution"]
    assert joined["parents"] == [
        {"span": first["span"], "component": "shop"},
        {"span": second["span"], "component": "shop", "execution": second["execution"]},
    ]


def test_more_parents_than_the_contract_allows_are_cut(emitted: Emitted) -> None:
    contexts = []
    for _ in range(300):
        with flowchain.execution("order"), flowchain.step("produce"):
            contexts.append(flowchain.current())
    with flowchain.step("join", parents=contexts):
        pass
    assert len(emitted("step.started")[-1]["parents"]) == 256


def test_retries_carry_their_attempt(emitted: Emitted) -> None:
    with flowchain.execution("order"):
        for attempt in (1, 2):
            try:
                with flowchain.step("call", attempt=attempt):
                    if attempt == 1:
                        raise TimeoutError
            except TimeoutError:
                continue
    assert [event.get("attempt", 1) for event in emitted("step.")] == [1, 1, 2, 2]
    assert [event["type"] for event in emitted("step.")][1::2] == ["step.failed", "step.completed"]


def test_logs_and_samples(emitted: Emitted) -> None:
    flowchain.log("WARNING", "shop.main:7")
    with flowchain.execution("order"), flowchain.step("validate"):
        flowchain.log("odd", "shop.main:8")
    flowchain.sample(cpu_ratio=0.5, memory_bytes=1 << 30, instance="shop-1")
    alone, inside = emitted("log.observed")
    assert alone["level"] == "warn" and "execution" not in alone
    assert inside["level"] == "info" and inside["step"] == "validate"
    assert emitted("resource.sampled")[0]["cpu_ratio"] == 0.5
    assert emitted.encoded[-1][0] == b"shop"


def test_resources_can_be_set_before_the_step_ends(emitted: Emitted) -> None:
    with flowchain.execution("order"), flowchain.step("validate") as step:
        step.resources = {"cpu_us": 12}
    assert emitted("step.completed")[0]["resources"] == {"cpu_us": 12}


@given(
    st.text(),
    st.text(),
    st.dictionaries(st.text(), st.one_of(st.none(), st.floats(), st.integers(), st.text())),
)
def test_whatever_the_host_says_is_valid_or_counted(
    name: str, message: str, attributes: dict[str, object]
) -> None:
    kept: list[tuple[bytes, bytes]] = []
    flowchain.init("shop", channel=lambda counts: flowchain.MemoryChannel(counts, kept))
    with (  # noqa: PT012 - the log line and the error are one scene
        pytest.raises(RuntimeError),
        flowchain.execution(name, user=name, tenant=name, attributes=attributes),
        flowchain.step(name, component=name, attributes=attributes),
    ):
        flowchain.log(name, message)
        raise RuntimeError(message)
    publisher = flowchain._publisher
    assert publisher is not None and publisher.flush(5.0)
    for _, value in kept:
        CHAIN_EVENT.validate_json(value)
    assert len(kept) + flowchain.stats().lost == 5
    flowchain.shutdown(5.0)


@given(st.dictionaries(st.text(max_size=30), st.one_of(st.text(), st.binary()), max_size=12))
def test_headers_of_any_kind_are_read_without_an_error(headers: dict[str, str | bytes]) -> None:
    prefixed = {f"flowchain-{key}": value for key, value in headers.items()}
    assert flowchain.extract({**headers, **prefixed, "flowchain-chain": "c", "flowchain-execution": "e"})
    assert flowchain.extract(headers) is None or "flowchain-chain" in headers


def test_before_init_everything_runs_and_nothing_is_sent() -> None:
    with flowchain.execution("order"), flowchain.step("validate"):
        flowchain.log("info", "x")
        flowchain.sample(cpu_ratio=1.0)
    assert flowchain.stats() == flowchain.Stats()
