"""Sampling takes detail only: every event is sent, what failed or was slow is whole, and the pipeline sees no difference."""

import threading
from collections import defaultdict
from random import Random
from typing import Any

import orjson
import pytest
from health_world import Health
from hypothesis import given, settings
from hypothesis import strategies as st

import flowchain
from flowchain import Counts, Execution, Ids, Step, StepOptions
from flowchain import Tracker as Service
from flowchain.sampling import MAX_HELD, Sampler
from schemas.events import CHAIN_EVENT
from schemas.internal import Partial
from streams.events import Refused, decode_chunk
from streams.limits import Limits
from streams.rules import RuleBook
from streams.tracker import Tracker

T = 1_800_000_000_000_000
SLOW_MS = 300.0
Events = list[dict[str, Any]]


class SetClock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.us = T

    def now_us(self) -> int:
        return self.us

    elapsed_us = now_us


class Kept:
    """An outlet that keeps what it is given."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.events: Events = []

    def publish(self, key: bytes, value: bytes) -> None:
        CHAIN_EVENT.validate_json(value)
        self.events.append(orjson.loads(value))


def service(rate: float, slow_ms: float = SLOW_MS) -> tuple[Service, Kept, SetClock]:
    kept, clock = Kept(), SetClock()
    tracker = Service("shop", kept, clock, ids=Ids(clock, Random(7)))
    if rate < 1:
        tracker.sampler = Sampler(tracker.send, clock, rate, slow_ms)
    return tracker, kept, clock


DETAIL = {"size": 3}
runs = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([1, 40, 299, 300, 900]), st.booleans(), st.booleans()), max_size=4),
        st.integers(0, 400),
    ),
    max_size=12,
)
"""Executions, each with the ms after it, of steps: (name, ms, has detail, fails)."""


def play(rate: float, plan: list[Any]) -> Events:
    """Return what a service reports of a plan; like the publisher's thread, it looks for slow ones in between."""
    tracker, kept, clock = service(rate)
    for steps, pause_ms in plan:
        try:
            with Execution(tracker, "order", {}):
                for name, ms, detailed, fails in steps:
                    with Step(tracker, name, StepOptions(attributes=DETAIL if detailed else None)):
                        clock.us += ms * 1000
                        if tracker.sampler is not None:
                            tracker.sampler.release_slow()
                        if fails:
                            raise ValueError("no")
        except ValueError:
            pass
        clock.us += pause_ms * 1000
    if tracker.sampler is not None:
        tracker.sampler.release_all()
    assert kept.counts.snapshot()[1] == {}
    return kept.events


def bare(events: Events) -> Events:
    return sorted(({k: v for k, v in event.items() if k != "attributes"} for event in events), key=orjson.dumps)


def by_execution(events: Events) -> dict[str, Events]:
    found: dict[str, Events] = defaultdict(list)
    for event in events:
        found[event["execution"]].append(event)
    return found


def windows(events: Events) -> list[dict[str, Any]]:
    """Return the health windows of events, by the pipeline; all but where on the log they come from."""
    limits = Limits()
    tracker, health = Tracker("events", 0, RuleBook([]), limits), Health(limits)
    end = {"type": "clock.tick", "time_unix_us": T + 3_600_000_000}
    values = [orjson.dumps(event) for event in [*events, end]]
    decoded = decode_chunk(values).events
    assert not any(isinstance(event, Refused) for event in decoded)
    assert not tracker.apply(decoded, list(range(len(values))), [event.time_unix_us for event in decoded])  # type: ignore[union-attr]
    closed = health.apply(Partial("events", 0, tracker.watermark_us, len(values) - 1, tracker.take().slices))
    found = [window.model_dump(exclude={"sources", "watermark_unix_us"}) for window in closed.windows]
    return sorted(found, key=orjson.dumps)


@settings(max_examples=150, deadline=None)
@given(runs, st.sampled_from([0.0, 0.3]))
def test_nothing_but_detail_of_what_went_well_is_left_out(plan: list[Any], rate: float) -> None:
    everything, sampled = play(1.0, plan), play(rate, plan)
    assert bare(sampled) == bare(everything)
    whole = by_execution(everything)
    for execution, events in by_execution(sampled).items():
        assert [event["type"] for event in events] == [event["type"] for event in whole[execution]], "order"
        failed = any(event["type"].endswith("failed") for event in events)
        slow = any(event.get("duration_us", 0) >= SLOW_MS * 1000 for event in events)
        if failed or slow:
            assert events == whole[execution]


@settings(max_examples=60, deadline=None)
@given(runs)
def test_health_windows_are_the_same_with_and_without_sampling(plan: list[Any]) -> None:
    everything = windows(play(1.0, plan))
    assert windows(play(0.0, plan)) == everything
    assert bool(everything) == bool(plan)


def test_detail_that_is_kept_says_for_how_many_it_stands() -> None:
    events = play(0.25, [([("a", 1, True, False)], 1)] * 400)
    rates = [event["attributes"] for event in events if event["type"] == "step.completed" and "attributes" in event]
    assert 60 < len(rates) < 140
    assert all(attributes == {"size": 3, "sampledrate": 4} for attributes in rates)
    failed = play(0.25, [([("a", 1, True, True)], 1)] * 50)
    assert {tuple(event["attributes"]) for event in failed if event["type"] == "step.failed"} == {("size",)}


def test_every_service_chooses_the_same_executions() -> None:
    chosen = []
    for _ in range(2):
        tracker, kept, _ = service(0.5)
        for number in range(100):
            with Execution(tracker, "order", {"execution": f"e{number}"}, attributes=DETAIL):
                pass
        chosen.append({event["execution"] for event in kept.events if "attributes" in event})
    assert chosen[0] == chosen[1] and 20 < len(chosen[0]) < 80


def test_what_is_held_goes_out_once_its_execution_is_slow() -> None:
    tracker, kept, clock = service(0.0)
    assert tracker.sampler is not None
    with Execution(tracker, "order", {}, attributes=DETAIL):
        clock.us += int(SLOW_MS * 1000) - 1
        tracker.sampler.release_slow()
        assert kept.events == []
        clock.us += 1
        tracker.sampler.release_slow()
        assert kept.events[0]["attributes"] == DETAIL
        with Step(tracker, "a", StepOptions(attributes=DETAIL)):
            pass
        assert [event["attributes"] for event in kept.events] == [DETAIL] * 3


def test_a_thread_that_still_works_on_an_execution_keeps_it_open() -> None:
    tracker, kept, _ = service(0.0)
    go_on = threading.Event()

    def work() -> None:
        with flowchain.spans.Carried(tracker, context):
            go_on.wait(10)
            with Step(tracker, "late"):
                raise ValueError("no")

    def run() -> None:
        with pytest.raises(ValueError):
            work()

    with Execution(tracker, "order", {}) as execution, Step(tracker, "begun", StepOptions(attributes=DETAIL)):
        context = execution.context
        thread = threading.Thread(target=run)
        thread.start()
        while tracker.sampler is not None and tracker.sampler._open[str(execution.id)].scopes < 2:
            pass
    go_on.set()
    thread.join()
    begun = [event for event in kept.events if event.get("step") == "begun"]
    assert [event["attributes"] for event in begun] == [DETAIL] * 2


def test_what_cannot_be_held_keeps_its_detail() -> None:
    tracker, kept, _ = service(0.0)
    with Execution(tracker, "order", {}):
        for _ in range(MAX_HELD):
            with Step(tracker, "a", StepOptions(attributes=DETAIL)):
                pass
    detailed = sum("attributes" in event for event in kept.events)
    assert len(kept.events) == 2 * MAX_HELD + 2 and detailed == 2 * MAX_HELD


def test_forgotten_executions_leave_nothing_behind() -> None:
    tracker, _, clock = service(0.0)
    for number in range(100):
        tracker.emit("k", {"type": "step.completed", "execution": f"e{number}", "attributes": {}, "chain": "c", "step": "s", "time_unix_us": 1})
    clock.us += 1_000_000
    sampler = tracker.sampler
    assert sampler is not None
    sampler.release_slow()
    assert not sampler._open and sampler._held == 0


def test_init_samples_and_shutdown_lets_everything_go() -> None:
    kept: list[tuple[bytes, bytes]] = []
    flowchain.init("shop", channel=lambda counts: flowchain.MemoryChannel(counts, kept), sample_rate=0.0, slow_ms=1000)
    with flowchain.execution("order"), flowchain.step("a", attributes=DETAIL):
        pass
    with flowchain.execution("order"):
        with flowchain.step("a", attributes=DETAIL):
            pass
        assert flowchain.shutdown(5.0)
    found = [orjson.loads(value) for _, value in kept]
    assert [event["type"] for event in found].count("step.completed") == 2
    assert [event.get("attributes") for event in found if event["type"] == "step.completed"] == [None, DETAIL]
