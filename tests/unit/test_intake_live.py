"""Spans as they come: what a chain is named after, when its execution ends, and that a restart in between changes nothing."""

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.spans.live import GAP, LiveTrace, LiveTraces, Produced
from connectors.spans.model import KafkaRecord, Options, ParentRef, Span
from schemas.events import CHAIN_EVENT

SECOND = 1_000_000
HOLD, LINGER = 5 * SECOND, 30 * SECOND
T0 = 1_790_000_000 * SECOND
TRACE = "ab" * 16


def live(max_traces: int = 100, produced: Produced | None = None) -> tuple[LiveTraces, list[str]]:
    told: list[str] = []
    return LiveTraces(Options(), HOLD, LINGER, max_traces, produced or Produced(100), told.append), told


def span(name: str, start: int, end: int, parent: str = "", *, trace: str = TRACE, service: str = "shop", **more: Any) -> Span:
    """Return a span named like its id, between two milliseconds."""
    at = T0 * 1000
    return Span(trace, name, service, name, at + start * 1_000_000, at + end * 1_000_000, (ParentRef(parent),) if parent else (), **more)


def told_of(events: list[Any]) -> list[str]:
    """Return "<type> <step>" of events, each held against the contract."""
    for event in events:
        CHAIN_EVENT.validate_json(event.value)
    bodies = [orjson.loads(event.value) for event in events]
    return [f"{body['type']} {body.get('step', '')}".strip() for body in bodies]


def bodies_of(events: list[Any]) -> list[dict[str, Any]]:
    return [orjson.loads(event.value) for event in events]


def test_spans_wait_for_their_root_and_are_told_in_the_order_they_ended() -> None:
    traces, told = live()
    assert traces.take([span("late", 2, 4, "root")], T0) == []
    assert traces.take([span("early", 1, 2, "root")], T0 + 1) == []
    events = traces.take([span("root", 0, 5)], T0 + 2)
    assert told_of(events) == ["execution.started", "step.completed early", "step.completed late", "step.completed root", "execution.completed"]
    assert {body["chain"] for body in bodies_of(events)} == {"shop root"}
    assert told == ["root"]
    assert told_of(traces.take([span("after", 3, 6, "root")], T0 + 3)) == ["step.completed after"]
    assert traces.due(T0 + LINGER + 3) == [] and not traces.traces


def test_a_chain_without_a_root_is_named_after_its_entry_and_ends_when_it_was_silent() -> None:
    traces, told = live()
    traces.take([span("inner", 2, 3, "entry"), span("entry", 1, 4, "elsewhere")], T0)
    assert traces.due(T0 + HOLD - 1) == []
    events = traces.due(T0 + HOLD)
    assert told_of(events) == ["execution.started", "step.completed inner", "step.completed entry"]
    assert bodies_of(events)[0]["attributes"] == {GAP: "entry"} and told == ["entry"]
    assert bodies_of(traces.take([span("more", 2, 9, "entry")], T0 + HOLD))[0]["chain"] == "shop entry"
    end = traces.due(T0 + HOLD + LINGER)
    assert told_of(end) == ["execution.completed"] and bodies_of(end)[0]["time_unix_us"] == T0 + 9_000


def test_a_root_that_comes_too_late_ends_the_execution_under_the_name_it_has() -> None:
    traces, _ = live()
    traces.take([span("entry", 1, 4, "root")], T0)
    traces.due(T0 + HOLD)
    events = traces.take([span("root", 0, 9_000)], T0 + 9 * SECOND)
    assert told_of(events) == ["step.completed root", "execution.completed"]
    assert {body["chain"] for body in bodies_of(events)} == {"shop entry"}
    assert traces.due(T0 + 100 * SECOND) == []


def test_a_span_that_names_its_chain_needs_no_root() -> None:
    traces, told = live()
    assert told_of(traces.take([span("a", 1, 2, "root", chain="orders")], T0)) == ["execution.started", "step.completed a"]
    end = bodies_of(traces.take([span("root", 0, 3)], T0))
    assert [body["chain"] for body in end] == ["orders", "orders"] and told == ["span"]


def test_an_execution_of_the_sdk_gets_steps_and_neither_begins_nor_ends_here() -> None:
    traces, _ = live()
    events = traces.take([span("a", 1, 2, "sdk-span", chain="orders", execution="order-17", tenant="acme")], T0)
    assert told_of(events) == ["step.completed a"]
    assert [(event.key, bodies_of([event])[0]["execution"], bodies_of([event])[0]["tenant"]) for event in events] == [("order-17", "order-17", "acme")]
    assert traces.due(T0 + LINGER) == []


def test_a_trace_that_the_sdk_has_begun_waits_for_a_root_and_neither_begins_nor_ends_here() -> None:
    traces, _ = live()
    assert traces.take([span("a", 1, 2, "sdk-span", joins=True)], T0) == []
    assert told_of(traces.due(T0 + HOLD)) == ["step.completed a"]
    assert traces.due(T0 + HOLD + LINGER) == []


@pytest.mark.parametrize(("kind", "status"), [("consumer", "failed"), ("client", "completed")])
def test_a_failed_consumer_fails_the_execution_and_a_failed_call_that_was_handled_does_not(kind: Any, status: str) -> None:
    traces, _ = live()
    traces.take([span("bad", 1, 2, "root", kind=kind, failed=True, error_type="Boom")], T0)
    end = bodies_of(traces.take([span("root", 0, 3)], T0))[-1]
    assert end["type"] == f"execution.{status}" and end.get("error_type") == ("Boom" if status == "failed" else None)


def test_a_link_into_another_trace_names_its_component_and_the_time_in_the_broker_where_it_was_seen() -> None:
    produced = Produced(1)
    traces, _ = live(produced=produced)
    other = "cd" * 16
    traces.take([span("publish", 0, 1, "x", trace=other, service="shop", kind="producer")], T0)
    batch = span("batch", 11, 12, service="baker", kind="consumer", consumed=KafkaRecord("orders", 3, 42))
    batch.parents = (ParentRef("publish", other), ParentRef("unknown", other))
    step = bodies_of(traces.take([batch], T0))[1]
    assert step["parents"] == [{"span": "publish", "execution": other, "component": "shop"}, {"span": "unknown", "execution": other}]
    assert step["consumed"] == {"topic": "orders", "partition": 3, "offset": 42, "broker_us": 10_000}


def test_of_too_many_traces_the_one_silent_for_longest_is_told_and_forgotten() -> None:
    traces, told = live(max_traces=2)
    traces.take([span("a", 1, 2, "x", trace="1" * 32)], T0)
    traces.take([span("b", 1, 2, "x", trace="2" * 32)], T0)
    traces.take([span("a2", 1, 2, "x", trace="1" * 32)], T0)
    events = traces.take([span("c", 1, 2, "x", trace="3" * 32)], T0)
    assert told_of(events) == ["execution.started", "step.completed b", "execution.completed"]
    assert "limit" in told and set(traces.traces) == {"1" * 32, "3" * 32}


chunks = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 8)), max_size=25)


@given(chunks, st.integers(0, 25))
def test_a_restart_at_any_moment_changes_nothing(plan: list[tuple[int, int, int]], restart_at: int) -> None:
    """Spans of three traces, the first of each its root; what is remembered goes through its saved form."""

    def run(restarts: bool) -> list[str]:
        traces, _ = live()
        events: list[Any] = []
        now = T0
        for number, (trace, which, pause_s) in enumerate(plan):
            now += pause_s * SECOND
            if restarts and number == restart_at:
                saved = msgspec.json.encode(dict(traces.traces))
                traces, _ = live(produced=traces.produced)
                traces.restore(msgspec.json.decode(saved, type=dict[str, LiveTrace]).items())
            events += traces.due(now)
            events += traces.take([span(f"s{which}", which, which + 2, "s0" if which else "", trace=f"{trace + 1}" * 32)], now)
        told = sorted(events + traces.due(now + 10 * LINGER), key=lambda event: event.key)  # in the order of each execution
        return [f"{event.key} {event.value!r}" for event in told]

    assert run(restarts=True) == run(restarts=False)
