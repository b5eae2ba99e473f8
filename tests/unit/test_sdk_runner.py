"""ChainRunner: what runs after what, with what, how often and how long; and what of it is reported."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

import flowchain
from flowchain import ChainRunner, Retry, UserContext
from flowchain.chains import ChainRegistry
from schemas.definitions import ChainDefinition
from schemas.events import CHAIN_EVENT

LINE = {"name": "order", "version": "3", "steps": [{"name": "validate", "component": "gate"}, {"name": "charge", "component": "pay"}]}
DIAMOND = {
    "name": "report",
    "steps": [
        {"name": "load", "component": "db"},
        {"name": "left", "component": "cpu", "after": ["load"]},
        {"name": "right", "component": "cpu", "after": ["load"]},
        {"name": "join", "component": "cpu", "after": ["left", "right"]},
    ],
}
BRANCHES = {
    "name": "route",
    "steps": [{"name": name, "component": "c"} for name in ("ask", "big", "small", "after_small", "end")],
    "edges": [
        {"source": "ask", "target": "big", "condition": "n > 10"},
        {"source": "ask", "target": "small", "condition": "n <= 10"},
        {"source": "small", "target": "after_small"},
        {"source": "big", "target": "end"},
        {"source": "after_small", "target": "end"},
        {"source": "end", "target": "ask", "condition": "again", "loop": True},
    ],
}
CONDITIONS = {"n > 10": lambda n: n > 10, "n <= 10": lambda n: n <= 10}


Reported = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def reported() -> Iterator[Reported]:
    """What has been reported so far, each event held to the contract."""
    kept: list[tuple[bytes, bytes]] = []
    flowchain.init("shop", channel=lambda counts: flowchain.MemoryChannel(counts, kept))

    def events() -> list[dict[str, Any]]:
        publisher = flowchain._publisher
        assert publisher is not None and publisher.flush(5.0)
        for _, value in kept:
            CHAIN_EVENT.validate_json(value)
        return [orjson.loads(value) for _, value in kept]

    yield events
    flowchain.shutdown(5.0)


def test_output_feeds_the_next_input_and_everything_is_reported(reported: Reported) -> None:
    runner = ChainRunner(LINE, {"validate": lambda x: x + 1, "charge": lambda x: x * 10})
    user = UserContext("u1", "acme", "pro")
    execution = runner.run(4, user)
    assert execution.output == 50 and execution.is_successful() and execution.is_complete()
    assert execution.total_duration is not None and execution.total_duration >= 0
    assert (execution.chain_id, execution.user_context) == ("order", user)
    assert [(result.name, result.output_data) for result in execution.step_results] == [("validate", 5), ("charge", 50)]
    found = reported()
    assert [event["type"] for event in found] == [
        "execution.started", "step.started", "step.completed", "step.started", "step.completed", "execution.completed",
    ]  # fmt: skip
    for event in found:
        assert event["execution"] == execution.execution_id
        assert [event[key] for key in ("tenant", "user", "tier", "chain_version")] == ["acme", "u1", "pro", "3"]
    assert [event["component"] for event in found[1:5:2]] == ["gate", "pay"]
    assert found[3]["parents"] == [{"span": found[1]["span"], "component": "gate"}]


@pytest.mark.parametrize("is_async", [False, True])
def test_branches_run_side_by_side_and_are_joined(reported: Reported, is_async: bool) -> None:
    barrier = threading.Barrier(2, timeout=10)

    def branch(value: int) -> int:
        barrier.wait()
        return value + 1

    functions = {"load": lambda x: x, "left": branch, "right": branch, "join": lambda both: sorted(both.items())}
    runner = ChainRunner(DIAMOND, functions)
    execution = asyncio.run(runner.run_async(1)) if is_async else runner.run(1)
    assert execution.error is None and execution.output == [("left", 2), ("right", 2)]
    started = {event["step"]: event for event in reported() if event["type"] == "step.started"}
    assert {parent["span"] for parent in started["join"]["parents"]} == {started[name]["span"] for name in ("left", "right")}


@pytest.mark.parametrize(("given", "skipped"), [(20, ["small", "after_small"]), (5, ["big"])])
def test_conditions_choose_and_the_rest_is_skipped(given: int, skipped: list[str]) -> None:
    functions = {name: (lambda x: x) for name in ("ask", "big", "small", "after_small")}
    runner = ChainRunner(BRANCHES, functions | {"end": sorted}, conditions=CONDITIONS)
    execution = runner.run(given)
    assert execution.is_successful() and execution.skipped == skipped
    assert execution.output == (["big"] if given > 10 else ["after_small"])


def test_a_condition_that_raises_fails_the_run() -> None:
    functions: dict[str, Any] = {name: (lambda x: x) for name in ("ask", "big", "small", "after_small", "end")}
    execution = ChainRunner(BRANCHES, functions, conditions=CONDITIONS).run("no number")
    assert isinstance(execution.error, TypeError) and not execution.is_successful()


@pytest.mark.parametrize("is_async", [False, True])
def test_transient_errors_are_tried_again_and_others_are_not(reported: Reported, is_async: bool) -> None:
    tries: list[int] = []

    def flaky(value: int) -> int:
        tries.append(value)
        if len(tries) < 3:
            raise ConnectionError("away")
        return value

    def broken(value: int) -> int:
        raise ValueError("never right")

    runner = ChainRunner(LINE, {"validate": flaky, "charge": broken}, retry=Retry(5, backoff_s=0.001))
    execution = asyncio.run(runner.run_async(1)) if is_async else runner.run(1)
    assert [result.attempts for result in execution.step_results] == [3, 1]
    assert isinstance(execution.error, ValueError) and not execution.is_successful()
    assert execution.step_results[1].error_category == "data"
    ends = [event for event in reported() if event["type"] in ("step.failed", "step.completed", "execution.failed")]
    assert [(event["type"], event.get("attempt", 1), event.get("error_category")) for event in ends] == [
        ("step.failed", 1, "dependency"), ("step.failed", 2, "dependency"), ("step.completed", 3, None),
        ("step.failed", 1, "data"), ("execution.failed", 1, "data"),
    ]  # fmt: skip


def test_an_optional_step_may_fail_and_hands_on_what_it_was_given() -> None:
    steps = [{"name": "a", "component": "c", "optional": True}, {"name": "b", "component": "c"}]
    execution = ChainRunner({"name": "x", "steps": steps}, {"a": lambda _: 1 / 0, "b": lambda x: x + 1}).run(1)
    assert execution.is_successful() and execution.output == 2
    assert isinstance(execution.step_results[0].error, ZeroDivisionError)


def test_what_takes_too_long_is_given_up(reported: Reported) -> None:
    go_on = threading.Event()
    runner = ChainRunner(LINE, {"validate": lambda _: go_on.wait(20), "charge": lambda x: x}, timeout_s={"validate": 0.05})
    execution = runner.run()
    go_on.set()
    assert isinstance(execution.error, TimeoutError) and execution.step_results[0].error_category == "timeout"
    assert [event["type"] for event in reported()][-2:] == ["step.failed", "execution.failed"]


def test_a_coroutine_that_takes_too_long_is_cancelled(reported: Reported) -> None:
    cancelled: list[bool] = []

    async def slow(_: object) -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    steps = [{"name": "a", "component": "c", "deadline_ms": 50}]
    execution = asyncio.run(ChainRunner({"name": "x", "steps": steps}, {"a": slow}).run_async())
    assert cancelled and isinstance(execution.error, TimeoutError)
    assert [event["error_category"] for event in reported()[-2:]] == ["timeout", "timeout"]


def test_a_failed_branch_cancels_the_others(reported: Reported) -> None:
    async def slow(_: object) -> None:
        await asyncio.sleep(20)

    async def broken(_: object) -> None:
        await asyncio.sleep(0)
        raise KeyError("lost")

    functions: dict[str, Any] = {"load": lambda x: x, "left": slow, "right": broken, "join": lambda x: x}
    execution = asyncio.run(ChainRunner(DIAMOND, functions).run_async())
    assert isinstance(execution.error, KeyError)
    failed = {event["step"]: event["error_category"] for event in reported() if event["type"] == "step.failed"}
    assert failed == {"left": "cancelled", "right": "data"}


def test_a_cancelled_run_is_reported_as_cancelled(reported: Reported) -> None:
    async def main() -> None:
        steps = [{"name": "a", "component": "c"}]
        task = asyncio.create_task(ChainRunner({"name": "x", "steps": steps}, {"a": lambda _: time.sleep(0.2)}).run_async())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert {event["error_category"] for event in reported() if event["type"].endswith("failed")} == {"cancelled"}


def test_the_deadline_of_a_run_leaves_no_time_for_more() -> None:
    runner = ChainRunner(LINE, {"validate": lambda _: time.sleep(0.1), "charge": lambda x: x}, deadline_s=0.05)
    execution = runner.run()
    assert isinstance(execution.error, TimeoutError) and len(execution.step_results) == 1


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ({"name": "x", "steps": []}, "no steps"),
        ({"name": "x", "steps": [{"name": "a"}, {"name": "a"}]}, "two of one name"),
        ({"name": "x", "steps": [{"name": "a", "after": ["b"]}]}, "does not have: b"),
        ({"name": "x", "steps": [{"name": "a", "after": ["b"]}, {"name": "b", "after": ["a"]}]}, "form a cycle"),
        ({"steps": [{"name": "a"}]}, "KeyError: 'name'"),
        ({"name": "x", "steps": [{"name": "b"}]}, "no functions of steps: b"),
        (BRANCHES, "no functions of steps: after_small"),
    ],
    ids=["empty", "twice", "unknown", "cycle", "nameless", "function", "functions"],
)
def test_what_does_not_fit_is_said_at_once(definition: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ChainRunner(definition, {"a": lambda x: x})


def test_plain_run_says_that_coroutines_want_the_other_one() -> None:
    async def step(value: object) -> object:
        return value

    runner = ChainRunner({"name": "x", "steps": [{"name": "a"}]}, {"a": step})
    with pytest.raises(TypeError, match="run_async: a"):
        runner.run()
    assert asyncio.run(runner.run_async(3)).output == 3


def test_definitions_of_the_contract_and_files_are_taken(tmp_path: Path) -> None:
    for definition in (LINE, DIAMOND, BRANCHES):
        document = ChainDefinition.model_validate_json(json.dumps(definition)).model_dump(mode="json")
        path = tmp_path / "chain.json"
        path.write_text(json.dumps(document))
        functions = dict.fromkeys([step["name"] for step in document["steps"]], lambda x: x)
        runner = ChainRunner(path, functions, conditions=CONDITIONS)
        assert runner.plan == ChainRunner(definition, functions, conditions=CONDITIONS).plan._replace(
            version=document["version"]
        )


def test_chains_run_for_users_and_tenants_stay_apart() -> None:
    registry = ChainRegistry()
    own = {**LINE, "tenant": "acme"}
    registry.register_chain(LINE, {"validate": lambda x: x, "charge": lambda x: ("all", x)}, workflow="Order to cash")
    registry.register_chain(own, {"validate": lambda x: x, "charge": lambda x: ("acme", x)})
    registry.register_chain({**LINE, "name": "secret", "tenant": "acme"}, {"validate": str, "charge": str})
    acme, other = UserContext("u1", "acme"), UserContext("u2", "other")
    assert registry.execute_chain("order", 1).output == ("all", 1)
    assert registry.execute_chain("order", 1, acme).output == ("acme", 1)
    assert asyncio.run(registry.execute_user_chain("order", other, 2)).output == ("all", 2)
    execution = asyncio.run(registry.execute_business_workflow("Order to cash", acme, 3))
    assert execution.output == ("acme", 3) and execution.user_context == acme
    for call in (lambda: registry.execute_chain("secret", 1, other), lambda: registry.execute_chain("none", 1)):
        with pytest.raises(LookupError):
            call()
    with pytest.raises(LookupError, match="workflow"):
        asyncio.run(registry.execute_business_workflow("none", acme))
