"""Two independent computations of the same log agree: the pipeline's tracker, and the oracle of `flowchain verify`."""

from collections.abc import Sequence
from typing import Any

import ingest_world
import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_world import DEFINITION, LIMITS, MS, Record, T, World, arrays, logs, run

from infra.verification.edges import EdgeWindows
from infra.verification.oracle import Oracle
from infra.verification.windows import Book, Totals, is_empty
from schemas.definitions import ChainDefinition, ChainStep
from schemas.internal import Delta, Execution
from schemas.violations import Violation
from streams.events import decode_chunk
from streams.limits import Limits
from streams.rules import RuleBook

COMPARED = [name for name in Totals.__struct_fields__ if name in Delta.__struct_fields__]


def truth(log: Sequence[Record], limits: Limits = LIMITS) -> tuple[Oracle, Book, EdgeWindows]:
    book, edges = Book(limits), EdgeWindows()
    oracle = Oracle("events", 0, RuleBook(ingest_world.DEFINITIONS), limits, book, edges, len(log))
    decoded = decode_chunk([value for value, _ in log])
    records = decoded.spread([(offset, at_us) for offset, (_, at_us) in enumerate(log)])
    for (offset, at_us), event in zip(records, decoded.events, strict=True):
        oracle.apply(offset, at_us, event)
    oracle.end()
    return oracle, book, edges


def told(found: Violation) -> bytes:
    return found.model_copy(update={"detail": ""}).encode()


def of_oracle(oracle: Oracle, book: Book, edges: EdgeWindows) -> dict[str, Any]:
    executions = (msgspec.msgpack.decode(x.record, type=Execution) for x in oracle.finished.values())
    return {
        "dead": sorted(oracle.dead.items()),
        "finished": {(x.tenant, x.execution, x.first_offset, x.ordinal): x for x in executions},
        "violations": {told(found) for _, found in oracle.violations},
        "windows": {
            key: {name: getattr(totals, name) for name in COMPARED} for key, totals in book.windows.items() if not is_empty(totals)
        },
        "edges": {
            tuple(map(str, (*edge, start_us))): (x.count, x.failed, x.latency_sum_us, x.latency_max_us)
            for (edge, start_us), x in edges.items()
        },
        "open": sorted((x.tenant, x.execution) for x in oracle.open),
    }


def of_world(world: World) -> dict[str, Any]:
    booked = {key: {name: getattr(delta, name) for name in COMPARED} for key, delta in world.deltas.items()}
    return {
        "dead": world.refused,
        "finished": world.finished(),
        "violations": {told(Violation.decode(found)) for found in world.violations},
        "windows": {key: delta for key, delta in booked.items() if not is_empty(Totals(**delta))},
        "edges": {key: (x.count, x.failed, x.latency_sum_us, x.latency_max_us) for key, x in world.edges.items()},
        "open": sorted((x.tenant, x.execution) for x in world.tracker.executions if not x.finished_us),
    }


@settings(max_examples=100, deadline=None)
@given(logs(size=40))
def test_the_oracle_agrees_with_the_tracker(log: list[Record]) -> None:
    assert of_oracle(*truth(log)) == of_world(run(log))


@settings(max_examples=100, deadline=None)
@given(logs(size=40), st.sampled_from([50, 400, 1_500]), st.sampled_from([300, 900]))
def test_they_agree_about_versions_that_overlap(log: list[Record], second_ms: int, third_ms: int) -> None:
    """Executions are held to the version in force at their start, which may be heard of only after their first step."""
    stricter = ChainDefinition(
        name="abc", version="2", effective_from_unix_us=T + second_ms * MS,
        steps=(ChainStep(name="a", component="A", expected_duration_ms=5, deadline_ms=100), ChainStep(name="d", component="D", deadline_ms=200)),
    )  # fmt: skip
    own = ChainDefinition(
        name="abc", tenant="default", effective_from_unix_us=T + third_ms * MS, steps=(ChainStep(name="a", component="A", deadline_ms=250),)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_world, "DEFINITIONS", [DEFINITION, stricter, own])
        assert of_oracle(*truth(log)) == of_world(run(log))


@settings(max_examples=100, deadline=None)
@given(arrays(size=40))
def test_they_agree_about_arrays(pair: tuple[list[Record], list[Record]]) -> None:
    assert of_oracle(*truth(pair[0])) == of_world(run(pair[0]))


def test_they_agree_about_an_execution_whose_last_deadline_is_over_before_its_end_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of whoever began it was behind, so a step was missed at once; the other came, and then its end."""
    steps = (ChainStep(name="a", component="A", deadline_ms=400), ChainStep(name="b", component="B", deadline_ms=300, after=()))
    monkeypatch.setattr(ingest_world, "DEFINITIONS", [ChainDefinition(name="abc", steps=steps)])
    times = {"execution.started": 450, "step.started": 1_005, "step.completed": 1_010, "execution.completed": 1_030}
    events = [{"type": "clock.tick", "time_unix_us": T + 1_000 * MS}]
    for kind, at in times.items():
        step = {"step": "a", "component": "A"} if kind.startswith("step") else {}
        events.append({"type": kind, "chain": "abc", "execution": "e", "time_unix_us": T + at * MS, **step})
    events += [{**events[3], "step": "b", "time_unix_us": T + 1_020 * MS}, {"type": "clock.tick", "time_unix_us": T + 2_000 * MS}]
    for order in ((0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 5, 4, 6), (0, 1, 2, 3, 5, 6, 4)):
        log = [(orjson.dumps(events[number]), T + 2_000 * MS) for number in order]
        found = of_oracle(*truth(log))
        assert found == of_world(run(log))
        assert all(x.missing == ["b"] for x in found["finished"].values())


@settings(max_examples=60, deadline=None)
@given(logs(), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_they_agree_where_limits_are_reached(log: list[Record], max_open: int, max_finished: int, max_steps: int) -> None:
    limits = msgspec.structs.replace(LIMITS, max_open=max_open, max_finished=max_finished, max_steps=max_steps)
    assert of_oracle(*truth(log, limits)) == of_world(run(log, limits=limits))
