"""The tracker: what one source partition's events come to."""

import copy
import itertools
from typing import Any

import msgspec
import orjson
import pytest

from schemas.definitions import ChainDefinition, ChainStep
from schemas.internal import COMPLETED, FAILED, STARTED, Delta, Execution
from schemas.violations import Violation
from streams.booking import OVERFLOW
from streams.events import Refused, decode_chunk
from streams.limits import Limits
from streams.rules import RuleBook
from streams.tracked import Output
from streams.tracker import Tracker
from streams.windows import merge_delta

T = 1_800_000_000_000_000
MS = 1_000
S = 1_000_000
ABC = ChainDefinition(
    name="abc",
    steps=(
        ChainStep(name="a", component="A", expected_duration_ms=100),
        ChainStep(name="b", component="B", expected_duration_ms=100, deadline_ms=1_000),
        ChainStep(name="c", component="C"),
    ),
)


class Feed:
    """A log under construction and the tracker that reads it."""

    def __init__(self, *definitions: ChainDefinition, **limits: int) -> None:
        self.limits = Limits(**limits)
        self.tracker = Tracker("events", 3, RuleBook(definitions), self.limits)
        self.offset = 0
        self.refused: list[tuple[int, Refused]] = []

    def send(self, *events: dict[str, Any], broker_ms: int | None = None) -> "Feed":
        values = [orjson.dumps(event) for event in events]
        offsets = list(range(self.offset, self.offset + len(events)))
        self.offset += len(events)
        brokers = [T + broker_ms * MS if broker_ms is not None else event["time_unix_us"] for event in events]
        refused = self.tracker.apply(decode_chunk(values).events, offsets, brokers)
        self.refused += [(offsets[number], reason) for number, reason in refused]
        return self

    def tick(self, ms: int) -> "Feed":
        return self.send({"type": "clock.tick", "time_unix_us": T + ms * MS})

    def take(self) -> Output:
        return self.tracker.take()


def event(kind: str, ms: int, execution: str = "e", **more: Any) -> dict[str, Any]:
    return {"type": kind, "chain": "abc", "execution": execution, "time_unix_us": T + ms * MS, **more}


def begun(step: str, ms: int, **more: Any) -> dict[str, Any]:
    return event("step.started", ms, step=step, component=step.upper(), **more)


def ended(step: str, ms: int, took_ms: int = 10, **more: Any) -> dict[str, Any]:
    return event("step.completed", ms, step=step, component=step.upper(), duration_us=took_ms * MS, **more)


def failed(step: str, ms: int, **more: Any) -> dict[str, Any]:
    facts = {"error_type": "Boom", "duration_us": 10 * MS, **more}
    return event("step.failed", ms, step=step, component=step.upper(), **facts)


def kinds(out: Output) -> list[tuple[str, str]]:
    return [(found.type, found.step) for found in out.violations]


def only(out: Output, kind: str) -> Violation:
    (found,) = [found for found in out.violations if found.type == kind]
    return found


def delta(out: Output, step: str, window: int = 0, chain: str = "abc") -> Delta:
    component = step.upper()
    return deltas(out)["default", chain, step, component, T + window * 10 * S]


def deltas(out: Output) -> dict[tuple[str, str, str, str, int], Delta]:
    """What was added, summed over the slices."""
    found: dict[tuple[str, str, str, str, int], Delta] = {}
    for one in copy.deepcopy([one for piece in out.slices for one in piece.deltas]):
        known = found.setdefault((one.tenant, one.chain, one.step, one.component, one.window_start_unix_us), one)
        if known is not one:
            merge_delta(known, one)
    return found


def touched(out: Output) -> list[str]:
    return sorted(tracked.execution.execution for tracked in out.touched)


def finished(out: Output, execution: str = "e") -> Execution:
    return next(x.execution.record() for x in out.finished.values() if x.execution.execution == execution)


# -- as observed, without a definition --------------------------------------------------------------------------------


def test_unknown_chain_is_followed_and_completed_once_lateness_has_passed() -> None:
    feed = Feed().send(
        event("execution.started", 0, user="u", tier="gold"), begun("a", 10), ended("a", 60, 50), ended("b", 90),
        event("execution.completed", 100),
    )  # fmt: skip
    out = feed.take()
    assert out.finished == {}
    assert feed.tracker.open_executions == 1
    out = feed.tick(2_200).take()
    found = finished(out)
    assert (found.status, found.duration_us, found.user, found.tier) == ("completed", 100 * MS, "u", "gold")
    assert [(step.step, step.status) for step in found.steps.values()] == [("a", COMPLETED), ("b", COMPLETED)]
    assert out.violations == []
    assert feed.tracker.open_executions == 0
    assert delta(out, "").completed == 1


def test_events_of_a_step_are_booked_with_duration_resources_and_broker_time() -> None:
    used = {"cpu_us": 7, "memory_bytes": 4096, "io_wait_us": 3}
    consumed = {"topic": "orders", "partition": 1, "offset": 9, "broker_us": 250}
    out = Feed().send(begun("a", 0), ended("a", 50, 50, resources=used, consumed=consumed)).take()
    found = delta(out, "a")
    assert (found.events, found.started, found.completed, found.failed) == (2, 1, 1, 0)
    assert (found.duration_sum_us, found.duration_max_us, sum(found.durations.values())) == (50 * MS, 50 * MS, 1)
    assert (found.cpu_us, found.memory_max_bytes, found.io_wait_us) == (7, 4096, 3)
    assert (found.broker_count, found.broker_sum_us, found.broker_max_us) == (1, 250, 250)
    assert (found.first_offset, found.last_offset) == (0, 1)


def test_duration_left_out_is_the_time_since_the_start_and_zero_without_one() -> None:
    end = event("step.completed", 80, step="a")
    out = Feed().send(begun("a", 30), end, event("step.completed", 80, step="b")).take()
    assert deltas(out)["default", "abc", "a", "A", T].started == 1
    assert deltas(out)["default", "abc", "a", "a", T].duration_sum_us == 50 * MS
    assert deltas(out)["default", "abc", "b", "b", T].duration_sum_us == 0


def test_step_failed_is_told_with_its_error_and_where_it_was_seen() -> None:
    out = Feed().send(event("execution.started", 0, user="u"), failed("a", 20, error_message="no route")).take()
    found = only(out, "step.failed")
    assert (found.step, found.component, found.error_type, found.error_message) == ("a", "A", "Boom", "no route")
    assert (found.duration_us, found.execution, found.user) == (10 * MS, "e", "u")
    assert found.position is not None
    assert (found.position.topic, found.position.partition, found.position.offset) == ("events", 3, 1)
    book = delta(out, "a")
    assert (book.failed, book.completed, book.violations) == (1, 0, {"step.failed": 1})
    assert (book.affected_executions, book.affected, book.users) == (1, ["e"], ["u"])


def test_execution_is_affected_once_however_many_violations_it_has() -> None:
    out = Feed().send(failed("a", 20), failed("a", 40, attempt=2), failed("b", 60)).take()
    assert [found.type for found in out.violations] == ["step.failed"] * 3
    assert sum(book.affected_executions for book in deltas(out).values()) == 1


def test_execution_failed_ends_it_at_once_when_nothing_is_pending() -> None:
    feed = Feed().send(failed("a", 20), event("execution.failed", 30, error_type="Boom", error_message="gave up"))
    out = feed.take()
    assert finished(out).status == "failed"
    assert (finished(out).error_type, finished(out).error_message) == ("Boom", "gave up")
    assert kinds(out) == [("step.failed", "a"), ("execution.failed", "")]
    assert delta(out, "").failed == 1


def test_step_that_began_and_never_ended_is_missing_by_silence_alone() -> None:
    feed = Feed(idle_us=5 * S).send(event("execution.started", 0), begun("a", 100))
    assert feed.tick(7_050).take().violations == []
    out = feed.tick(7_200).take()
    assert kinds(out) == [("step.missing", "a")]
    found = only(out, "step.missing")
    assert found.time_unix_us == T + 100 * MS + 5 * S
    assert "began and never ended" in found.detail
    assert finished(out).status == "incomplete"


def test_execution_without_any_event_for_so_long_is_abandoned() -> None:
    feed = Feed(idle_us=5 * S).send(event("execution.started", 0), ended("a", 100))
    out = feed.tick(7_200).take()
    assert finished(out).status == "abandoned"
    assert out.violations == []


def test_every_event_pushes_the_end_of_patience_back() -> None:
    feed = Feed(idle_us=5 * S).send(event("execution.started", 0), ended("a", 4_000), ended("b", 8_000))
    assert feed.tick(14_900).take().finished == {}
    assert finished(feed.tick(15_100).take()).status == "abandoned"


def test_execution_with_a_failed_step_that_goes_silent_has_failed() -> None:
    out = Feed(idle_us=5 * S).send(failed("a", 0)).tick(7_200).take()
    assert finished(out).status == "failed"


def test_completed_execution_with_a_pending_step_waits_for_it() -> None:
    feed = Feed(idle_us=5 * S).send(begun("a", 0), event("execution.completed", 10))
    assert feed.tick(3_000).take().finished == {}
    out = feed.send(ended("a", 3_100)).tick(5_300).take()
    assert finished(out).status == "completed"


# -- with a definition ------------------------------------------------------------------------------------------------


def test_declared_execution_is_done_as_soon_as_all_required_steps_ended() -> None:
    feed = Feed(ABC).send(event("execution.started", 0), ended("a", 10), ended("b", 20), ended("c", 30))
    assert feed.take().finished == {}
    out = feed.send(event("execution.completed", 40)).take()
    assert finished(out).status == "completed"
    assert out.violations == []


def test_steps_alone_finish_a_declared_execution() -> None:
    out = Feed(ABC).send(ended("a", 10), ended("b", 20), ended("c", 30)).take()
    assert (finished(out).status, finished(out).duration_us) == ("completed", 30 * MS)


@pytest.mark.parametrize(("took_ms", "expected"), [(100, []), (101, [("step.slow", "a")])])
def test_step_is_slow_above_its_expected_duration_and_not_at_it(took_ms: int, expected: list[tuple[str, str]]) -> None:
    out = Feed(ABC).send(ended("a", 200, took_ms)).take()
    assert kinds(out) == expected
    if expected:
        assert only(out, "step.slow").expected_us == 100 * MS
        assert delta(out, "a").violations == {"step.slow": 1}


def test_missed_deadline_is_noticed_when_everything_is_silent() -> None:
    feed = Feed(ABC).send(event("execution.started", 0), ended("a", 500))
    assert feed.tick(3_450).take().violations == []
    out = feed.tick(3_500).take()
    found = only(out, "step.missing")
    assert (found.step, found.component, found.expected_us) == ("b", "B", S)
    assert found.time_unix_us == T + 1_500 * MS
    assert found.position is None
    assert delta(out, "b").violations == {"step.missing": 1}


def test_missed_deadline_is_noticed_by_another_executions_event() -> None:
    feed = Feed(ABC).send(event("execution.started", 0), ended("a", 500))
    out = feed.send(event("execution.started", 3_600, "other")).take()
    assert kinds(out) == [("step.missing", "b")]


def test_missing_is_told_once_and_the_later_end_is_late() -> None:
    feed = Feed(ABC).send(event("execution.started", 0), ended("a", 500)).tick(3_600).tick(4_000).tick(5_000)
    feed.send(ended("b", 5_100), ended("c", 5_200), event("execution.completed", 5_300))
    out = feed.take()
    assert kinds(out) == [("step.missing", "b"), ("step.late", "b")]


def test_step_without_deadline_is_missing_when_the_execution_has_completed_without_it() -> None:
    feed = Feed(ABC).send(event("execution.started", 0), ended("a", 10), ended("b", 20), event("execution.completed", 30))
    out = feed.tick(2_200).take()
    assert kinds(out) == [("step.missing", "c")]
    assert finished(out).status == "incomplete"


def test_failed_execution_misses_nothing() -> None:
    feed = Feed(ABC).send(event("execution.started", 0), failed("a", 10), event("execution.failed", 20, error_type="Boom"))
    out = feed.tick(90_000).take()
    assert kinds(out) == [("step.failed", "a"), ("execution.failed", "")]


def test_unexpected_step() -> None:
    out = Feed(ABC).send(ended("x", 10)).take()
    assert kinds(out) == [("step.unexpected", "x")]


def test_out_of_order_beyond_the_tolerated_skew_only() -> None:
    def run(b_start_ms: int) -> list[tuple[str, str]]:
        feed = Feed(ABC).send(ended("b", 130, 130 - b_start_ms), ended("a", 100), ended("c", 150))
        return [found for found in kinds(feed.take()) if found[0] == "step.out_of_order"]

    assert run(90) == []
    assert run(89) == [("step.out_of_order", "b")]


def test_declared_step_that_runs_twice_is_duplicated_unless_it_may_or_is_a_retry() -> None:
    twice = (ended("a", 10, span="1"), ended("a", 20, span="2"))
    assert kinds(Feed(ABC).send(*twice).take()) == [("step.duplicated", "a")]
    retry = (ended("a", 10, span="1"), ended("a", 20, span="2", attempt=2))
    assert kinds(Feed(ABC).send(*retry).take()) == []
    repeated = ABC.model_copy(update={"steps": (ABC.steps[0].model_copy(update={"repeated": True}), *ABC.steps[1:])})
    assert kinds(Feed(repeated).send(*twice).take()) == []


def test_retry_that_succeeds_heals_the_execution() -> None:
    feed = Feed(ABC).send(event("execution.started", 0), failed("a", 10), ended("a", 30, attempt=2))
    out = feed.send(ended("b", 40), ended("c", 50), event("execution.completed", 60)).take()
    assert kinds(out) == [("step.failed", "a")]
    assert finished(out).status == "completed"
    assert (delta(out, "a").failed, delta(out, "a").completed) == (1, 1)


def test_optional_step_is_not_missed() -> None:
    steps = (ABC.steps[0], ABC.steps[1].model_copy(update={"optional": True}), ABC.steps[2].model_copy(update={"after": ("a",)}))
    feed = Feed(ABC.model_copy(update={"steps": steps}))
    out = feed.send(ended("a", 10), ended("c", 30)).tick(90_000).take()
    assert kinds(out) == []
    assert finished(out).status == "completed"


def test_step_with_a_deadline_behind_a_skipped_optional_step_is_missing_once_the_execution_completed() -> None:
    steps = (
        ChainStep(name="a", component="A"), ChainStep(name="b", component="B", optional=True),
        ChainStep(name="c", component="C", deadline_ms=1_000),
    )  # fmt: skip
    feed = Feed(ChainDefinition(name="abc", steps=steps))
    feed.send(event("execution.started", 0), ended("a", 10), event("execution.completed", 30))
    out = feed.tick(9_000).take()
    assert kinds(out) == [("step.missing", "c")]
    assert finished(out).status == "incomplete"


def test_fan_in_waits_for_all_steps_before_it_and_keeps_its_parents() -> None:
    diamond = ChainDefinition(
        name="abc",
        steps=(
            ChainStep(name="a", component="A"), ChainStep(name="b", component="B", after=("a",)),
            ChainStep(name="c", component="C", after=("a",)),
            ChainStep(name="d", component="D", after=("b", "c"), deadline_ms=1_000),
        ),
    )  # fmt: skip
    feed = Feed(diamond).send(ended("a", 0, span="sa"), ended("b", 100, span="sb"))
    assert feed.tick(20_000).take().violations == []
    feed.send(ended("c", 20_000, span="sc"))
    assert feed.tick(22_900).take().violations == []
    out = feed.tick(23_100).take()
    assert kinds(out) == [("step.missing", "d")]
    assert only(out, "step.missing").time_unix_us == T + 21_000 * MS
    assert finished(out).status == "incomplete"


def test_fan_in_parents_become_edges() -> None:
    parents = [{"span": "sb"}, {"span": "sc"}, {"span": "x", "execution": "other", "component": "X"}]
    feed = Feed().send(ended("b", 100, span="sb"), ended("c", 120, span="sc"), ended("d", 200, span="sd", parents=parents))
    out = feed.send(event("execution.failed", 210, error_type="E")).take()
    assert finished(out).steps["sd"].parents == [("sb", "", ""), ("sc", "", ""), ("x", "other", "X")]
    assert {(edge.source, edge.target) for piece in out.slices for edge in piece.edges} >= {("B", "D"), ("C", "D"), ("X", "D")}


def test_definition_holds_only_executions_that_began_after_it() -> None:
    later = ABC.model_copy(update={"effective_from_unix_us": T + 50 * MS})
    feed = Feed(later).send(ended("x", 20), ended("x", 90, execution="f"))
    assert [found.execution for found in feed.take().violations] == ["f"]


def test_tenants_own_definition_goes_before_the_common_one() -> None:
    own = ABC.model_copy(update={"tenant": "vip", "steps": (ChainStep(name="x", component="X"),)})
    feed = Feed(ABC, own).send(ended("x", 10), ended("x", 20, tenant="vip", execution="v"))
    out = feed.take()
    assert [(found.tenant, found.type) for found in out.violations] == [("default", "step.unexpected")]
    assert next(x.execution for x in out.finished.values() if x.key[0] == "vip").status == "completed"


# -- twice, late, early -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [{}, {"id": "1"}])
def test_same_event_twice_is_counted_once(ids: dict[str, str]) -> None:
    events = [event("execution.started", 0, **ids), begun("a", 5), failed("a", 10, **ids), event("execution.completed", 30)]
    once = Feed().send(*events).tick(2_200).take()
    twice = Feed().send(*(e for e in events for _ in range(2))).tick(2_200).take()
    assert twice.counts["duplicates"] == 4
    assert kinds(twice) == kinds(once) == [("step.failed", "a")]
    for key, book in deltas(once).items():
        assert deltas(twice)[key].events == book.events
        assert deltas(twice)[key].durations == book.durations


def test_second_end_under_another_id_is_a_second_run() -> None:
    out = Feed().send(ended("a", 10, id="1"), ended("a", 20, id="2")).take()
    assert kinds(out) == [("step.duplicated", "a")]
    assert delta(out, "a").events == 2
    assert delta(out, "a").completed == 1


def test_duplicate_after_the_end_finds_the_finished_execution() -> None:
    feed = Feed(ABC).send(ended("a", 10), ended("b", 20), ended("c", 30))
    feed.take()
    out = feed.send(ended("c", 30)).take()
    assert (out.counts["duplicates"], out.finished, feed.tracker.open_executions) == (1, {}, 0)


def test_late_event_within_the_grace_is_booked_in_its_own_window_and_revises_the_execution() -> None:
    feed = Feed(ABC).send(ended("a", 10), ended("b", 20), ended("c", 30)).tick(15_000)
    assert finished(feed.take()).revision == 0
    out = feed.send(failed("b", 25, attempt=2)).take()
    assert finished(out).revision == 1
    assert len(finished(out).steps) == 4
    assert delta(out, "b", window=0).failed == 1
    assert feed.refused == []


def test_grace_has_an_exact_edge() -> None:
    feed = Feed(grace_us=10 * S).tick(20_000)
    feed.send(ended("a", 10_000), broker_ms=20_000)
    assert feed.refused == []
    late = ended("b", 10_000)
    late["time_unix_us"] -= 1
    feed.send(late)
    ((offset, refused),) = feed.refused
    assert (offset, refused.stage) == (2, "late")
    assert [x.execution for x in feed.tracker.executions] == ["e"]


def test_future_has_an_exact_edge_and_does_not_move_the_watermark() -> None:
    feed = Feed(future_us=10 * S)
    feed.send(ended("a", 10_000), broker_ms=0)
    assert (feed.refused, feed.tracker.watermark_us) == ([], T)
    early = ended("b", 10_000)
    early["time_unix_us"] += 1
    feed.send(early, broker_ms=0)
    assert [(offset, refused.stage) for offset, refused in feed.refused] == [(1, "future")]
    assert feed.tracker.watermark_us == T


def test_declared_topics_are_told_once_per_tenant_and_count_nothing() -> None:
    steps = (ChainStep(name="a", component="A", output="orders"), ChainStep(name="b", component="B", input="orders"))
    feed = Feed(ChainDefinition(name="abc", steps=steps))
    (piece,) = feed.send(ended("a", 10), ended("a", 20, execution="f")).take().slices
    assert [(x.kind, x.source, x.target, x.topic, x.count) for x in piece.edges] == [
        ("topic", "A", "", "orders", 0), ("topic", "", "B", "orders", 0),
    ]  # fmt: skip
    (piece,) = feed.send(ended("a", 30, execution="g")).take().slices
    assert piece.edges == []


def test_event_ahead_of_the_broker_counts_at_the_brokers_time_and_its_clock_is_booked() -> None:
    feed = Feed(ahead_us=500 * MS)
    feed.send(ended("a", 1_500), broker_ms=1_000)
    assert (feed.tracker.watermark_us, feed.take().violations) == (T + 1_500 * MS, [])
    feed.send(ended("b", 7_000), ended("c", 7_001), event("execution.completed", 7_002), broker_ms=2_000)
    feed.send(ended("b", 7_100, execution="f"), broker_ms=2_100)
    out = feed.take()
    assert feed.tracker.watermark_us == T + 2_100 * MS
    assert {key[3]: book.violations for key, book in deltas(out).items() if not key[1]} == {"B": {"clock.ahead": 2}, "C": {"clock.ahead": 1}}
    execution = feed.tracker.executions[0]
    assert [step.end_us for step in execution.steps.values()] == [T + 1_500 * MS, T + 2_000 * MS, T + 2_000 * MS]


def test_refusals_among_good_events_cost_no_good_one() -> None:
    feed = Feed(grace_us=10 * S)
    feed.send(ended("a", 20_000), ended("b", 1), ended("c", 90_000), ended("d", 20_010), broker_ms=20_000)
    out = feed.take()
    assert [refused.stage for _, refused in feed.refused] == ["late", "future"]
    assert sum(book.events for book in deltas(out).values()) == 2
    assert feed.tracker.next_offset == 4


def test_clock_that_goes_backwards_keeps_the_watermark_and_durations_at_zero_or_more() -> None:
    end = event("step.completed", 400, step="a", component="A")
    feed = Feed().send(begun("a", 500), end)
    assert feed.tracker.watermark_us == T + 500 * MS
    assert delta(feed.take(), "a").duration_sum_us == 0


def test_end_that_comes_before_its_start_is_one_run() -> None:
    feed = Feed().send(ended("a", 50, 20), begun("a", 30), event("execution.completed", 60)).tick(2_200)
    out = feed.take()
    assert (delta(out, "a").started, delta(out, "a").completed, delta(out, "a").events) == (1, 1, 2)
    assert finished(out).pending == 0
    assert out.violations == []


def test_tick_moves_only_the_watermark() -> None:
    feed = Feed().send(ended("a", 10))
    before = feed.tracker.clock
    feed.take()
    out = feed.tick(700).take()
    assert (out.counts, len(deltas(out)), out.violations) == ({"ticks": 1}, 0, [])
    assert feed.tracker.watermark_us == T + 700 * MS
    assert feed.tracker.clock == before == (T + 10 * MS, T + 10 * MS)


def test_clock_is_set_also_when_a_tick_ends_the_chunk() -> None:
    feed = Feed().send(ended("a", 10), {"type": "clock.tick", "time_unix_us": T + 700 * MS})
    assert feed.tracker.clock[0] == T + 700 * MS


# -- logs and resources -----------------------------------------------------------------------------------------------


def test_log_statements_stay_with_their_step_and_are_bounded() -> None:
    log = {"type": "log.observed", "component": "A", "level": "warn", "chain": "abc", "execution": "e", "step": "a", "span": "s"}
    feed = Feed(max_logs=2).send(begun("a", 0, span="s"))
    for number in (1, 1, 2, 3):
        feed.send({**log, "template": f"x:{number}", "time_unix_us": T})
    out = feed.send(ended("a", 10, span="s"), event("execution.failed", 20, error_type="E")).take()
    assert finished(out).steps["s"].logs == ["WARN x:1", "WARN x:2"]
    assert delta(out, "a").events == 6


def test_log_heard_before_its_step_does_not_hold_the_execution_open() -> None:
    log = {"type": "log.observed", "component": "A", "level": "info", "template": "x", "execution": "e", "span": "s"}
    feed = Feed(idle_us=5 * S).send(event("execution.started", 0), {**log, "time_unix_us": T + MS})
    out = feed.send(event("execution.completed", 10)).tick(2_200).take()
    assert (finished(out).status, out.violations) == ("completed", [])


def test_resource_samples_are_summed_per_component() -> None:
    sample = {"type": "resource.sampled", "component": "A", "time_unix_us": T}
    out = Feed().send({**sample, "cpu_ratio": 0.5}, {**sample, "cpu_ratio": 0.25, "memory_bytes": 10}).take()
    found = deltas(out)["default", "", "", "A", T]
    assert found.samples == {"cpu_ratio": (2, 750_000, 0.5), "memory_bytes": (1, 10, 10.0)}


# -- limits -----------------------------------------------------------------------------------------------------------


def test_beyond_max_open_the_oldest_is_closed_as_abandoned() -> None:
    feed = Feed(max_open=2).send(*(ended("a", n, execution=f"e{n}") for n in range(4)))
    out = feed.take()
    assert {found.execution.execution: found.execution.status for found in out.finished.values()} == {"e0": "abandoned", "e1": "abandoned"}
    assert out.counts["closed_by_limit"] == 2
    assert feed.tracker.open_executions == 2


def test_beyond_max_finished_the_oldest_is_forgotten() -> None:
    feed = Feed(max_finished=2)
    feed.send(*(event("execution.failed", n, f"e{n}", error_type="E") for n in range(4)))
    assert [x.execution for x in feed.tracker.executions] == ["e2", "e3"]


def test_finished_executions_are_forgotten_after_the_linger() -> None:
    feed = Feed(linger_us=5 * S).send(event("execution.failed", 0, error_type="E"))
    assert len(feed.tick(6_900).tracker.executions) == 1
    assert len(feed.tick(7_100).tracker.executions) == 0
    feed.take()


def test_beyond_max_steps_further_ones_are_counted_and_not_tracked() -> None:
    feed = Feed(max_steps=2).send(*(ended(step, 10) for step in "abcd"), event("execution.failed", 20, error_type="E"))
    out = feed.take()
    assert len(finished(out).steps) == 2
    assert out.counts["untracked_steps"] == 2
    assert sum(delta(out, step).events for step in "abcd") == 4


def test_beyond_max_series_further_ones_are_booked_under_overflow_and_told_once_per_window() -> None:
    feed = Feed(max_series=3)
    chains = [{**ended("a", n), "chain": f"c{n}", "execution": f"e{n}"} for n in range(8)]
    out = feed.send(*chains).take()
    over = deltas(out)["default", OVERFLOW, "", "", T]
    assert over.events == 5
    assert [key[1] for key in deltas(out)] == ["c0", "c1", "c2", OVERFLOW]
    (found,) = [found for found in out.violations if found.type == "cardinality.exceeded"]
    assert "3 distinct steps" in found.detail
    assert len(out.new_series) == 3
    again = feed.send(*({**chains[n], "time_unix_us": T + 11 * S, "execution": f"f{n}"} for n in range(8))).take()
    (later,) = [found for found in again.violations if found.type == "cardinality.exceeded"]
    assert later.id != found.id
    assert again.new_series == []


def test_overflow_is_told_once_per_window_also_among_many_other_violations() -> None:
    feed = Feed(max_series=1)
    out = feed.send(*({**failed("a", n), "chain": f"c{n}", "execution": f"e{n}"} for n in range(40))).take()
    assert sum(found.type == "cardinality.exceeded" for found in out.violations) == 1


def test_log_statement_before_the_start_of_its_step_takes_nothing_from_it() -> None:
    line = {"type": "log.observed", "component": "A", "level": "info", "template": "x", "execution": "e", "span": "s"}
    feed = Feed().send(event("execution.started", 0), {**line, "time_unix_us": T + MS}, begun("a", 2, span="s", attempt=2))
    out = feed.take()
    assert delta(out, "a").started == 1
    (step,) = feed.tracker.executions[0].steps.values()
    assert (step.step, step.component, step.attempt, step.logs) == ("a", "A", 2, ["INFO x"])


def test_violation_at_the_end_of_a_step_points_at_the_event_that_showed_it() -> None:
    out = Feed(ABC).send(begun("a", 0), ended("a", 200, 200)).take()
    position = only(out, "step.slow").position
    assert position is not None and position.offset == 1


def test_step_that_began_before_several_had_ended_is_out_of_order_once() -> None:
    chain = ChainDefinition(name="abc", steps=(
        ChainStep(name="a", component="A"), ChainStep(name="b", component="B", after=()),
        ChainStep(name="c", component="C", after=("a", "b")),
    ))  # fmt: skip
    out = Feed(chain).send(ended("c", 100, 0), ended("a", 150, 0), ended("b", 190, 0), event("execution.completed", 200)).tick(2_300).take()
    assert "before b ended" in only(out, "step.out_of_order").detail


# -- one transaction after another ------------------------------------------------------------------------------------


def test_take_returns_what_came_since_the_last_one() -> None:
    feed = Feed().send(ended("a", 10))
    first = feed.take()
    second = feed.send(ended("b", 20)).take()
    assert [key[2] for key in deltas(first)] == ["a"]
    assert [key[2] for key in deltas(second)] == ["b"]
    assert feed.take().slices == []


def test_touched_are_all_executions_that_changed_and_no_others() -> None:
    feed = Feed().send(begun("a", 0), begun("a", 0, execution="f"))
    assert touched(feed.take()) == ["e", "f"]
    feed.tick(5).take()
    assert touched(feed.send(ended("a", 10)).take()) == ["e"]


def test_new_series_are_told_once() -> None:
    feed = Feed().send(ended("a", 0))
    assert feed.take().new_series == [("default", "abc", "a", "A")]
    assert feed.send(ended("a", 10, attempt=2)).take().new_series == []


def test_empty_batch_changes_nothing() -> None:
    feed = Feed().send(ended("a", 0))
    feed.take()
    state = (feed.tracker.next_offset, feed.tracker.watermark_us, feed.tracker.clock)
    out = feed.send().take()
    assert state == (feed.tracker.next_offset, feed.tracker.watermark_us, feed.tracker.clock)
    assert (len(deltas(out)), out.touched, out.counts) == (0, [], {})


def test_same_log_gives_the_same_ids() -> None:
    events = [failed("a", 10), ended("x", 20), ended("a", 30, 500, attempt=2)]
    runs = [[found.id for found in Feed(ABC).send(*events).take().violations] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == len(runs[0]) == 3


def test_status_of_an_open_step() -> None:
    feed = Feed().send(begun("a", 0), failed("b", 5))
    (execution,) = feed.tracker.executions
    assert [step.status for step in execution.steps.values()] == [STARTED, FAILED]
    assert execution.pending == 1


def test_two_tenants_may_use_the_same_execution_id() -> None:
    feed = Feed()
    for tenant, number in itertools.product("xy", range(2)):
        feed.send(ended("a", number, tenant=tenant, attempt=number + 1))
    out = feed.take()
    assert {key[0]: book.events for key, book in deltas(out).items()} == {"x": 2, "y": 2}
    assert feed.tracker.open_executions == 2


def test_finished_execution_rests_as_its_record_until_something_is_heard_of_it() -> None:
    feed = Feed(ABC).send(ended("a", 10, id="1"), ended("b", 20), ended("c", 30))
    (tracked,) = feed.take().finished.values()
    record = tracked.execution.record()
    tracked.rest(msgspec.json.encode(record))
    assert feed.tracker.executions == [record]
    out = feed.send(ended("a", 10, id="1")).take()
    assert (out.finished, out.counts["duplicates"], out.touched) == ({}, 1, [tracked])
    tracked.rest()
    late = finished(feed.send(ended("late", 25)).take())
    assert (late.revision, list(late.steps)) == (1, [*record.steps, "late#1"])


# -- a definition that comes while an execution runs ----------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_steps_that_ended_before_they_were_declared_are_not_missing(restarted: bool) -> None:
    feed, rules = Feed(), RuleBook()
    feed.tracker = Tracker("events", 3, rules, feed.limits)
    feed.send(event("execution.started", 0), event("step.completed", 10, step="a", duration_us=5 * MS))
    if restarted:
        open_ = [tracked.execution.record() for tracked in feed.take().touched]
        feed.tracker = Tracker("events", 3, RuleBook([ABC]), feed.limits)
        feed.tracker.restore(T + 10 * MS, open_, [], [])
    else:
        rules.add(ABC)
    feed.send(*(event("step.completed", ms, step=name, duration_us=5 * MS) for name, ms in (("b", 20), ("c", 30))), event("execution.completed", 31))
    out = feed.tick(60_000).take()
    assert [found.type for found in out.violations] == []
    assert [(x.execution.status, list(x.execution.missing)) for x in out.finished.values()] == [("completed", [])]
