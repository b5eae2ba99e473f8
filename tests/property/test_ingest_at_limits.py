"""Where limits are reached, the outcome is still a function of the log: of no cut, of no restart, and the oracle agrees."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_world import KINDS, LIMITS, MS, Record, logs, run
from test_ingest_any_cut import outcome, record
from test_oracle_agrees import of_oracle, of_world, truth

from streams.limits import Limits

ANY = (*KINDS, "log.observed")
CUTS = st.lists(st.integers(0, 30), max_size=6)


@st.composite
def tight(draw: st.DrawFn) -> Limits:
    """Limits so low that a short log reaches all of them."""
    few = st.integers(1, 4)
    return msgspec.structs.replace(
        LIMITS, max_open=draw(few), max_finished=draw(few), max_steps=draw(few), max_series=draw(st.integers(1, 6)),
        max_evidence=draw(st.sampled_from([0, 8, 300, 1_000])), max_logs=draw(few),
        linger_us=draw(st.sampled_from([0, 500 * MS, 600_000 * MS])),
    )  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(logs(ANY, size=30), tight(), CUTS, CUTS)
def test_any_restart_gives_the_same_where_limits_are_reached(
    log: list[Record], limits: Limits, takes: list[int], restarts: list[int]
) -> None:
    assert outcome(run(log, (), takes, restarts, limits)) == outcome(run(log, limits=limits))


@settings(max_examples=50, deadline=None)
@given(logs(ANY, size=40), tight(), CUTS)
def test_the_oracle_agrees_where_limits_are_reached(log: list[Record], limits: Limits, takes: list[int]) -> None:
    assert of_oracle(*truth(log, limits)) == of_world(run(log, takes=takes, limits=limits))


def test_execution_that_came_back_is_remembered_in_its_new_place_after_a_restart() -> None:
    limits = msgspec.structs.replace(LIMITS, max_finished=1, linger_us=500 * MS)
    log = [
        record("execution.completed", 50, "first"), record("execution.started", 60, "second"),
        record("execution.failed", 2_560, "first", error_type="B"), record("execution.failed", 2_570, "second", error_type="B"),
    ]  # fmt: skip
    assert outcome(run(log, restarts=[2, 3], limits=limits)) == outcome(run(log, limits=limits))
