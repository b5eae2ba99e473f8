"""The oracle on logs written by hand, with what they truly say written by hand."""

from typing import Any

import msgspec
import orjson

from infra.verification.edges import Edge, EdgeTotals, EdgeWindows, conclude_edges
from infra.verification.oracle import Oracle
from infra.verification.windows import Book, Totals, Truth, WindowKey, conclude, quantile
from schemas.definitions import ChainDefinition, ChainStep
from schemas.internal import Execution
from streams.events import decode_record
from streams.ids import derived_id
from streams.limits import Limits
from streams.rules import RuleBook

S = 1_000_000
T = 1_800_000_000 * S
LIMITS = Limits(window_us=10 * S, lateness_us=2 * S, grace_us=60 * S, future_us=5 * S, idle_us=30 * S, linger_us=20 * S)
DEFINITION = ChainDefinition(
    name="orders",
    steps=(
        ChainStep(name="pay", component="payments", expected_duration_ms=100),
        ChainStep(name="pack", component="stock", after=("pay",), deadline_ms=3_000),
        ChainStep(name="bill", component="billing", after=("pay",), deadline_ms=9_000),
    ),
)


class Log:
    """Builds a log, a record per call, and asks the oracle what it says."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.records: list[tuple[int, bytes]] = []
        self.edges: EdgeWindows = {}

    def add(self, kind: str, at_s: float, *, broker_s: float | None = None, **fields: Any) -> "Log":
        time_us = T + round(at_s * S)
        event = {"type": kind, "time_unix_us": time_us, **fields}
        if kind not in ("clock.tick", "log.observed", "resource.sampled"):
            event = {"chain": "free", "execution": "e", **event}
        self.records.append((time_us if broker_s is None else T + round(broker_s * S), orjson.dumps(event)))
        return self

    def tick(self, at_s: float) -> "Log":
        return self.add("clock.tick", at_s)

    def ask(self, committed: int | None = None) -> "Answer":
        book = Book(self.limits)
        upto = len(self.records) if committed is None else committed
        oracle = Oracle("events", 0, RuleBook([DEFINITION]), self.limits, book, self.edges, upto)
        for offset, (broker_us, value) in enumerate(self.records):
            oracle.apply(offset, broker_us, decode_record(value))
        oracle.end()
        return Answer(oracle, book, self.limits)


class Answer:
    """What the oracle says, in few words."""

    def __init__(self, oracle: Oracle, book: Book, limits: Limits) -> None:
        self.oracle = oracle
        self.executions = [msgspec.msgpack.decode(x.record, type=Execution) for x in oracle.finished.values()]
        self.windows = book.windows
        self._limits = limits

    def status(self) -> list[tuple[str, float]]:
        """(status, seconds at which it was known) of every finished execution."""
        return [(x.status, (x.finished_us - T) / S) for x in self.executions]

    def violations(self) -> list[tuple[str, str, float]]:
        """(type, step, seconds) in the order in which they were seen."""
        return [(v.type, v.step, (v.time_unix_us - T) / S) for _, v in self.oracle.violations]

    def at(self, step: str, component: str, start_s: int = 0, chain: str = "free") -> Totals:
        return self.windows["default", chain, step, component, T + start_s * S]

    def truth(self) -> Truth:
        return conclude(self.windows, [self.oracle.committed_watermark_us], self._limits)


def test_an_execution_without_definition_is_over_once_the_lateness_has_passed_its_end() -> None:
    log = Log().add("execution.started", 0, component="web").add("step.started", 0.5, step="a", component="A")
    log.add("step.completed", 1, step="a", component="A").add("execution.completed", 1.5).tick(3.4).tick(3.5)
    answer = log.ask()
    (x,) = answer.executions
    assert answer.status() == [("completed", 3.5)]
    assert (x.component, x.start_us, x.ended_us, x.duration_us, x.revision) == ("web", T, T + 1_500_000, 1_500_000, 0)
    assert (x.first_offset, x.last_offset) == (0, 3)
    step = x.steps["a#1"]
    assert (step.status, step.start_us, step.end_us, step.duration_us) == ("completed", T + 500_000, T + S, 500_000)
    assert (answer.at("a", "A").events, answer.at("a", "A").started, answer.at("a", "A").completed) == (2, 1, 1)
    assert (answer.at("", "").events, answer.at("", "").completed) == (2, 1)


def test_a_duplicate_is_counted_once_while_the_execution_is_remembered_and_again_after_that() -> None:
    log = Log().add("step.completed", 0, step="a").add("step.completed", 0, step="a").add("execution.failed", 1, error_type="Boom")
    log.add("step.completed", 0, step="a").tick(22.9).add("step.completed", 0, step="a")  # 1 + 20 + 2: forgotten at 23
    answer = log.tick(23).add("step.completed", 0, step="a").tick(60).ask()
    assert answer.oracle.counts["duplicates"] == 3
    assert answer.at("a", "a").events == 2
    assert [(x.first_offset, x.status) for x in answer.executions] == [(0, "failed"), (7, "abandoned")]


def test_the_same_span_ended_under_another_event_id_is_a_second_run() -> None:
    log = Log().add("step.completed", 0, step="a", span="s", id="x").add("step.completed", 1, step="a", span="s", id="y")
    answer = log.ask()
    assert answer.violations() == [("step.duplicated", "a", 1.0)]
    assert (answer.at("a", "a").events, answer.at("a", "a").completed) == (2, 1)


def test_what_is_too_late_or_from_the_future_is_refused_and_a_tick_is_never_too_late() -> None:
    log = Log().add("step.completed", 100, step="a").add("step.completed", 40, step="b").add("step.completed", 39.9, step="c")
    log.add("step.completed", 200, broker_s=194.9, step="d").tick(10)
    answer = log.ask()
    assert answer.oracle.dead == {(2, 0): "late", (3, 0): "future"}
    assert answer.oracle.watermark_us == T + 100 * S


def test_a_record_that_is_no_event_is_refused_with_its_stage() -> None:
    log = Log().tick(0)
    log.records += [(T, b"{"), (T, b'{"type":"step.completed"}')]
    assert log.ask().oracle.dead == {(1, 0): "decode", (2, 0): "validate"}


def test_a_step_that_misses_its_deadline_and_comes_late() -> None:
    log = Log().add("step.completed", 0, chain="orders", step="pay", component="payments", duration_us=150_000)
    log.tick(4.9).tick(5).add("step.completed", 6, chain="orders", step="pack", component="stock", duration_us=1)
    log.add("step.completed", 7, chain="orders", step="bill", component="billing", duration_us=1)
    answer = log.ask()
    assert answer.violations() == [("step.slow", "pay", 0.0), ("step.missing", "pack", 3.0), ("step.late", "pack", 6.0)]
    assert answer.status() == [("completed", 7.0)]
    assert answer.executions[0].violations == 3
    assert answer.at("pay", "payments", chain="orders").affected == ["e"], "affected where its first violation was"
    assert answer.at("pack", "stock", chain="orders").affected_executions == 0


def test_an_execution_that_misses_a_step_is_incomplete_as_soon_as_it_waits_for_nothing_else() -> None:
    log = Log().add("step.completed", 0, chain="orders", step="pay", component="payments", duration_us=1)
    log.tick(5).add("step.completed", 5.5, chain="orders", step="bill", component="billing", duration_us=1).tick(8)
    answer = log.ask()
    assert answer.violations() == [("step.missing", "pack", 3.0)]
    assert answer.status() == [("incomplete", 8.0)]


def test_steps_out_of_order_and_steps_that_are_not_declared() -> None:
    log = Log().add("step.completed", 1, chain="orders", step="pack", component="stock", duration_us=900_000)
    log.add("step.completed", 2, chain="orders", step="extra", component="x")
    log.add("step.completed", 3, chain="orders", step="pay", component="payments", duration_us=1)
    log.add("step.completed", 3, chain="orders", step="bill", component="billing", duration_us=0)
    assert log.ask().violations() == [("step.unexpected", "extra", 2.0), ("step.out_of_order", "pack", 1.0)]


def test_silence_ends_an_execution_and_a_step_that_never_ended_is_missing() -> None:
    answer = Log().add("step.started", 0, step="a", component="A").tick(31.9).tick(32).ask()
    assert answer.violations() == [("step.missing", "a", 30.0)]
    assert answer.status() == [("incomplete", 32.0)]
    assert answer.executions[0].pending == 1
    assert Log().add("step.completed", 0, step="a").tick(32).ask().status() == [("abandoned", 32.0)]
    assert Log().add("step.started", 0, step="a").tick(31.9).ask().status() == []


def test_an_event_behind_the_end_gives_a_higher_revision() -> None:
    log = Log().add("execution.failed", 1, error_type="Boom").add("execution.started", 0, component="web")
    (x,) = log.ask().executions
    assert (x.status, x.revision, x.start_us, x.component, x.last_offset) == ("failed", 1, T, "web", 1)


def test_log_statements_and_samples_are_counted_and_told_with_their_step() -> None:
    log = Log().add("execution.started", 0).add("log.observed", 0, component="A", level="error", template="x", execution="e", span="s")
    log.add("step.started", 1, step="a", span="s", component="A", attempt=2).add("execution.failed", 2, error_type="Boom").tick(5)
    log.add("resource.sampled", 3, component="A", cpu_ratio=0.5).add("resource.sampled", 3, component="A", cpu_ratio=0.25)
    answer = log.ask()
    (x,) = answer.executions
    assert (x.steps["s"].step, x.steps["s"].attempt, x.steps["s"].logs) == ("a", 2, ["ERROR x"])
    component = answer.at("", "A", chain="")
    assert (component.events, component.samples) == (3, {"cpu_ratio": (2, 750_000, 0.5)})
    assert answer.at("a", "A").started == 1


def test_limits_count_without_tracking_and_close_the_oldest() -> None:
    limits = msgspec.structs.replace(LIMITS, max_open=1, max_steps=1, max_series=2)
    log = Log(limits).add("step.completed", 0, step="a").add("step.completed", 0, step="b").add("step.completed", 1, execution="f", step="a")
    answer = log.ask()
    assert answer.status() == [("abandoned", 1.0)]
    assert list(answer.executions[0].steps) == ["a#1"]
    assert answer.violations() == [("cardinality.exceeded", "", 0.0)]
    assert answer.at("", "", chain="~overflow").failed == 1
    assert answer.at("b", "b").events == 1


def test_a_window_closes_when_the_slowest_partition_is_past_it_and_the_lateness() -> None:
    log = Log().add("step.completed", 0, step="a", duration_us=1_000).tick(12)
    answer = log.ask()
    ident = derived_id("default", "free", "a", "a", T)
    window = answer.truth().closed[ident]
    assert (window["events"], window["completed"], window["mean_us"], window["throughput_per_s"]) == (1, 1, 1_000.0, 0.1)
    slower = conclude(answer.windows, [answer.oracle.watermark_us, T + 12 * S - 1], LIMITS)
    assert ident in slower.open and not slower.closed


def test_a_step_that_falls_silent_is_told_as_empty_windows_thirty_times() -> None:
    answer = Log().add("step.completed", 0, step="a").add("step.completed", 20, step="a", span="2").tick(1_000).ask()
    starts = sorted((w["window_start_unix_us"] - T) // S for w in answer.truth().closed.values() if w["step"] == "a")
    assert starts == [0, 10, *range(20, 330, 10)]


def test_what_came_too_lately_to_be_published_again_is_not_compared() -> None:
    log = Log().add("step.completed", 0, step="a").tick(25).add("step.completed", 1, step="a", span="2")
    ident = derived_id("default", "free", "a", "a", T)
    assert ident in log.ask().truth().open, "no window has closed since"
    assert log.tick(32).ask().truth().closed[ident]["events"] == 2


def test_what_is_not_committed_is_not_compared() -> None:
    log = Log().add("step.completed", 0, step="a").add("execution.failed", 1, error_type="Boom").tick(40)
    answer = log.ask(committed=1)
    assert answer.truth().closed == {}
    assert [x.changed for x in answer.oracle.finished.values()] == [1]


def test_edges_are_calls_flows_and_topics_known_when_the_execution_is_over() -> None:
    parents, topic = [{"span": "p"}], {"topic": "orders", "partition": 0, "offset": 1, "broker_us": 4}
    log = Log().add("step.completed", 10, step="p", span="p", component="P", duration_us=2 * S)
    log.add("step.completed", 9, step="c", component="C", duration_us=S, parents=parents)
    log.add("step.failed", 13, step="f", component="F", duration_us=S, parents=parents, error_type="Boom")
    log.add("step.completed", 13, step="t", component="T", duration_us=S, parents=[{"span": "?", "component": "X"}], consumed=topic)
    log.add("execution.failed", 13, error_type="Boom")
    log.ask()
    start_us = T + 10 * S
    assert log.edges == {
        (Edge("default", "free", "call", "P", "C", ""), start_us): EdgeTotals(1, 0, S, S),
        (Edge("default", "free", "flow", "P", "F", ""), start_us): EdgeTotals(1, 1, 3 * S, 3 * S),
        (Edge("default", "free", "topic", "X", "T", "orders"), start_us): EdgeTotals(1, 0, S + 4, S + 4),
    }
    closed, still_open = conclude_edges(log.edges, [T + 22 * S], LIMITS)
    assert (len(closed), len(still_open)) == (3, 0)
    assert len(conclude_edges(log.edges, [T + 22 * S - 1], LIMITS)[1]) == 3


def test_too_many_failures_in_a_window_are_a_violation_and_exactly_at_the_limit_they_are_not() -> None:
    key: WindowKey = ("t", "c", "s", "S", T)
    for failed, expected in ((1, 0), (2, 1)):
        windows = {key: Totals(events=20, completed=20 - failed, failed=failed, in_time=True)}
        found = conclude(windows, [T + 12 * S], LIMITS).violations
        assert len(found) == expected
        assert len(found) == expected


def test_quantiles_are_within_their_error_of_the_sorted_durations() -> None:
    totals, durations = Totals(), [0, *(round(1.07**n) for n in range(200))]
    for duration_us in durations:
        totals.add_duration(duration_us)
    assert quantile(totals.durations, 0.001) == 0.0
    for q, rank in ((0.5, 101), (0.95, 191), (0.99, 199)):
        true = sorted(durations)[rank - 1]
        assert abs(quantile(totals.durations, q) - true) <= 0.022 * true
