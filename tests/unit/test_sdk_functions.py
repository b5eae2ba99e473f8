"""Steps around every kind of function: generators, coroutines, threads, pools, retries, cancelled tasks."""

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import orjson
import pytest
import tenacity

import flowchain
from schemas.events import CHAIN_EVENT

Reported = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def reported() -> Iterator[Reported]:
    """The steps reported so far, each event held to the contract."""
    kept: list[tuple[bytes, bytes]] = []
    flowchain.init("shop", channel=lambda counts: flowchain.MemoryChannel(counts, kept))

    def events() -> list[dict[str, Any]]:
        publisher = flowchain._publisher
        assert publisher is not None and publisher.flush(5.0)
        for _, value in kept:
            CHAIN_EVENT.validate_json(value)
        found = [orjson.loads(value) for _, value in kept]
        return [event for event in found if event["type"].startswith("step.")]

    yield events
    flowchain.shutdown(5.0)


def said(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"].removeprefix("step."), event["step"]) for event in events]


@flowchain.step("lines")
def lines(count: int) -> Iterator[int]:
    """Numbers."""
    for number in range(count):
        with flowchain.step("inside"):
            pass
        yield number


@flowchain.step("alines")
async def alines(count: int) -> AsyncIterator[int]:
    for number in range(count):
        with flowchain.step("inside"):
            await asyncio.sleep(0)
        yield number


def test_a_generator_s_step_lasts_until_it_is_exhausted(reported: Reported) -> None:
    assert inspect.isgeneratorfunction(lines) and lines.__doc__ == "Numbers."
    with flowchain.execution("order"):
        generator = lines(2)
        assert said(reported()) == []
        for _ in generator:
            with flowchain.step("outside"):
                pass
    events = reported()
    assert said(events) == [
        ("started", "lines"), ("started", "inside"), ("completed", "inside"), ("started", "outside"), ("completed", "outside"),
        ("started", "inside"), ("completed", "inside"), ("started", "outside"), ("completed", "outside"), ("completed", "lines"),
    ]  # fmt: skip
    span = events[0]["span"]
    assert all(event["parents"][0]["span"] == span for event in events if event["step"] == "inside")
    assert all("parents" not in event for event in events if event["step"] == "outside")


def test_a_generator_that_nobody_wants_any_more_is_completed(reported: Reported) -> None:
    with flowchain.execution("order"):
        for number in lines(5):
            if number == 1:
                break
        gc.collect()
    assert said(reported())[-1] == ("completed", "lines")


def test_a_generator_gives_takes_and_returns_as_it_did(reported: Reported) -> None:
    @flowchain.step
    def sums() -> Iterator[int]:
        total = 0
        while True:
            try:
                given = yield total
            except KeyError:
                given = 100
            if given is None:
                return total
            total += given

    with flowchain.execution("order"):
        generator: Any = sums()
        assert [next(generator), generator.send(2), generator.send(3), generator.throw(KeyError())] == [0, 2, 5, 105]
        with pytest.raises(StopIteration) as stop:
            generator.send(None)
    assert stop.value.value == 105
    assert len(reported()) == 2


def test_a_generator_that_breaks_is_reported(reported: Reported) -> None:
    @flowchain.step("broken")
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with flowchain.execution("order"), pytest.raises(ValueError, match="no more"):
        list(broken())
    end = reported()[-1]
    assert (end["type"], end["error_type"], end["error_category"]) == ("step.failed", "ValueError", "data")
    assert flowchain.current() is None


def test_two_generators_at_once_do_not_mix(reported: Reported) -> None:
    with flowchain.execution("order"):
        for _ in zip(lines(2), lines(2), strict=True):
            pass
    events = [event for event in reported() if event["type"] == "step.started"]
    outer = [event["span"] for event in events if event["step"] == "lines"]
    assert sorted(event["parents"][0]["span"] for event in events if event["step"] == "inside") == sorted(outer * 2)


def test_an_async_generator_s_step_lasts_until_it_is_exhausted_or_closed(reported: Reported) -> None:
    async def main() -> None:
        with flowchain.execution("order"):
            assert [number async for number in alines(2)] == [0, 1]
            generator: Any = alines(2)
            assert await anext(generator) == 0
            assert flowchain.current() is not None and flowchain.current().step is None  # type: ignore[union-attr]
            await generator.aclose()
            thrown: Any = alines(2)
            await anext(thrown)
            with pytest.raises(TimeoutError):
                await thrown.athrow(TimeoutError())

    assert inspect.isasyncgenfunction(alines)
    asyncio.run(main())
    assert [end for end in said(reported()) if end[1] == "alines"] == [
        ("started", "alines"), ("completed", "alines"), ("started", "alines"), ("completed", "alines"),
        ("started", "alines"), ("failed", "alines"),
    ]  # fmt: skip


def test_a_cancelled_task_is_an_outcome_of_its_own(reported: Reported) -> None:
    @flowchain.step("wait")
    async def wait() -> None:
        await asyncio.sleep(30)

    async def main() -> None:
        with flowchain.execution("order"):
            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    end = reported()[-1]
    assert (end["type"], end["error_type"], end["error_category"]) == ("step.failed", "CancelledError", "cancelled")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_is_reported_and_goes_on(reported: Reported, error: type[BaseException]) -> None:
    with pytest.raises(error), flowchain.execution("order"), flowchain.step("work"):
        raise error
    assert reported()[-1]["error_category"] == "cancelled"


def test_carry_takes_the_context_into_threads_and_pools(reported: Reported) -> None:
    @flowchain.step("work")
    def work(number: int) -> int:
        return number

    with flowchain.execution("order"), flowchain.step("outer"):
        thread = Thread(target=flowchain.carry(work), args=(1,))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(flowchain.carry(work), range(20))) == list(range(20))
    outer, *inner = [event for event in reported() if event["type"] == "step.started"]
    assert len(inner) == 21 and {event["parents"][0]["span"] for event in inner} == {outer["span"]}


def test_carry_takes_coroutines_to_another_loop(reported: Reported) -> None:
    @flowchain.step("work")
    async def work() -> None:
        await asyncio.sleep(0)

    with flowchain.execution("order"), flowchain.step("outer"):
        carried = flowchain.carry(work)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(carried())).result()
    outer, inner = [event for event in reported() if event["type"] == "step.started"]
    assert inner["parents"][0]["span"] == outer["span"]


def test_carry_outside_of_an_execution_changes_nothing() -> None:
    assert flowchain.carry(lambda x: x + 1)(1) == 2


def test_attempts_of_tenacity_are_numbered(reported: Reported) -> None:
    def attempt() -> int:
        return int(call.statistics["attempt_number"])

    tries: list[int] = []

    @tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
    @flowchain.step("call", attempt=attempt)
    def call() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise TimeoutError
        return "done"

    with flowchain.execution("order"):
        assert call() == "done"
    ends = [(event["type"], event.get("attempt", 1)) for event in reported() if event["type"] != "step.started"]
    assert ends == [("step.failed", 1), ("step.failed", 2), ("step.completed", 3)]
