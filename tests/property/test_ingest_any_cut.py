"""The outcome of ingest is a function of the log: however it is cut into chunks and transactions, and wherever a worker
was killed and another one went on."""

from typing import Any

import msgspec
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_world import LIMITS, MS, Record, T, World, logs, run

from schemas.internal import Delta, Execution
from streams.booking import Book, Chain

CUTS = st.lists(st.integers(0, 25), max_size=6)


def outcome(world: World) -> dict[str, Any]:
    fields = Execution.__struct_fields__
    booked = Delta.__struct_fields__
    return {
        "violations": world.violations,
        "refused": world.refused,
        "finished": {key: {name: getattr(x, name) for name in fields} for key, x in world.finished().items()},
        "deltas": {key: {name: getattr(x, name) for name in booked} for key, x in world.deltas.items()},
        "edges": world.edges,
        "state": (world.tracker.watermark_us, world.tracker.next_offset, world.tracker.open_executions),
    }


@settings(max_examples=80, deadline=None)
@given(logs(), CUTS, CUTS)
def test_any_cut_into_chunks_and_transactions_gives_the_same(log: list[Record], cuts: list[int], takes: list[int]) -> None:
    assert outcome(run(log, cuts, takes)) == outcome(run(log))


@settings(max_examples=80, deadline=None)
@given(logs(), CUTS, CUTS)
def test_any_restart_gives_the_same(log: list[Record], takes: list[int], restarts: list[int]) -> None:
    assert outcome(run(log, (), takes, restarts)) == outcome(run(log))


@settings(max_examples=40, deadline=None)
@given(logs(), st.integers(1, 3), st.integers(1, 3))
def test_limits_hold_after_any_event(log: list[Record], max_open: int, max_steps: int) -> None:
    limits = msgspec.structs.replace(LIMITS, max_open=max_open, max_steps=max_steps, max_finished=2, max_series=3)
    world = World(limits)
    for record in log:
        world.apply([record])
        tracker = world.tracker
        finished = [x for x in tracker.executions if x.finished_us]
        assert tracker.open_executions == len(tracker.executions) - len(finished) <= max_open
        assert len(finished) <= 2
        assert len(tracker.series) <= 3
        assert all(len(x.steps) <= max_steps for x in tracker.executions)


@settings(max_examples=40, deadline=None)
@given(logs())
def test_every_event_is_booked_refused_a_duplicate_or_a_tick(log: list[Record]) -> None:
    world = World()
    world.apply(log)
    out = world.tracker.take()
    booked = sum(delta.events for piece in out.slices for delta in piece.deltas)
    others = out.counts.get("duplicates", 0) + out.counts.get("ticks", 0) + len(world.refused)
    assert booked + others == len(log)


@settings(max_examples=40, deadline=None)
@given(logs())
def test_open_steps_are_what_is_pending(log: list[Record]) -> None:
    world = World()
    for record in log:
        world.apply([record])
        for execution in world.tracker.executions:
            assert execution.pending == sum(step.status == "started" for step in execution.steps.values())
            assert execution.violations >= len(execution.missing)


def record(kind: str, ms: int, execution: str = "e", **more: Any) -> Record:
    return orjson.dumps({"type": kind, "chain": "free", "execution": execution, "time_unix_us": T + ms * MS, **more}), T + ms * MS


ENDS = record("execution.failed", 0, error_type="Boom")


def test_beginning_that_comes_after_the_end_is_published() -> None:
    log = [ENDS, record("execution.started", -20, component="A")]
    assert outcome(run(log, takes=[1])) == outcome(run(log))


def test_beginning_that_comes_after_the_end_is_a_duplicate_the_second_time_also_after_a_restart() -> None:
    begins = record("execution.started", -20)
    log = [ENDS, begins, begins]
    assert outcome(run(log, takes=[1], restarts=[2]))["deltas"] == outcome(run(log))["deltas"]


def test_duplicate_behind_the_end_does_not_change_what_was_published() -> None:
    log = [ENDS, ENDS]
    assert outcome(run(log, takes=[1])) == outcome(run(log))


def test_second_run_behind_the_end_is_published() -> None:
    first, second = (record("step.completed", -10, step="a", span="s", component="A", id=name) for name in "xy")
    log = [first, ENDS, second]
    assert outcome(run(log, takes=[2])) == outcome(run(log))


def test_log_statement_behind_the_end_is_published_always_or_never() -> None:
    step = record("step.completed", -10, step="a", span="s", component="A")
    line = record("log.observed", 0, component="A", level="error", template="x", span="s")
    log = [step, ENDS, line]
    assert outcome(run(log, takes=[2])) == outcome(run(log))


def test_execution_that_ends_comes_back_and_ends_in_one_transaction_is_published_twice() -> None:
    limits = msgspec.structs.replace(LIMITS, linger_us=0)
    log = [ENDS, record("execution.started", 1_000, "other"), record("execution.failed", 1_100, error_type="Boom")]
    assert outcome(run(log, takes=[1], limits=limits))["finished"] == outcome(run(log, limits=limits))["finished"]


def test_restart_remembers_a_finished_execution_as_long_as_the_worker_before_it() -> None:
    limits = msgspec.structs.replace(LIMITS, linger_us=500 * MS)
    log = [ENDS, record("execution.started", 600, "other"), ENDS]
    assert outcome(run(log, restarts=[2], limits=limits))["deltas"] == outcome(run(log, limits=limits))["deltas"]


def test_restart_remembers_a_finished_execution_no_longer_than_the_worker_before_it() -> None:
    limits = msgspec.structs.replace(LIMITS, linger_us=500 * MS)
    for until in range(690, 760, 5):
        log = [ENDS, record("execution.started", until, "other"), ENDS]
        assert outcome(run(log, restarts=[2], limits=limits))["deltas"] == outcome(run(log, limits=limits))["deltas"]


def test_execution_that_came_back_after_a_restart_is_not_forgotten_for_the_one_before_it() -> None:
    limits = msgspec.structs.replace(LIMITS, linger_us=500 * MS, max_finished=1, idle_us=100_000 * MS)
    log = [ENDS, record("clock.tick", 720), record("step.started", 721, step="a"), record("execution.failed", 730, "other", error_type="Boom")]
    found = run(log, takes=[1, 3], restarts=[3], limits=limits).tracker
    assert [x.execution for x in found.executions if not x.finished_us] == ["e"]
    assert found.open_executions == 1


def test_first_offset_of_a_delta_is_its_smallest() -> None:
    book = Book(1_000_000, 10, lambda tenant, time_us: None)
    chain = Chain("t", "c", ())
    book.at(chain, "", "", T, 9)
    assert book.at(chain, "", "", T, 5).first_offset == 5
