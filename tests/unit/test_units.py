"""Units: what an execution tells about each component's handling of one call."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.internal import COMPLETED, FAILED, HEARD_OF, STARTED
from streams.booking import MAX_INDICATORS, Window
from streams.runs import Execution, Step
from streams.structure import book_unit
from streams.units import CALL, FLOW, TOPIC, Unit, observe, relation

T = 1_800_000_000_000_000


def step(span: str, component: str, start: int, end: int, *parents: str, **more: object) -> Step:
    """A step in ms after T; end 0 = never ended."""
    return Step(
        span, span, component, 0,
        parents=[(parent, "", "") for parent in parents],
        start_us=T + start * 1000,
        end_us=T + end * 1000 if end else 0,
        duration_us=(end - start) * 1000 if end else 0,
        **{"status": COMPLETED if end else STARTED, **more},  # type: ignore[arg-type]
    )  # fmt: skip


def execution(*steps: Step, status: str = "completed") -> Execution:
    last = max([item.end_us or item.start_us for item in steps], default=T)
    return Execution("t", "c", "e", 0, 9, status=status, last_us=last, steps={item.span: item for item in steps})


def units(*steps: Step, status: str = "completed") -> dict[str, Unit]:
    return {f"{unit.component}/{unit.step}": unit for unit in observe(execution(*steps, status=status))[0]}


def test_flow_of_two_steps_has_two_units_and_the_time_between_is_the_gap_of_the_second() -> None:
    found, edges = observe(execution(step("a", "A", 0, 10), step("b", "B", 13, 20, "a")))
    assert [(unit.own_us, unit.gap_us) for unit in found] == [(10_000, -1), (7_000, 3_000)]
    assert [(edge.kind, edge.source, edge.target, edge.latency_us) for edge in edges] == [(FLOW, "A", "B", 10_000)]


def test_call_takes_the_callee_out_of_own_time() -> None:
    found = units(step("a", "A", 0, 10), step("b", "B", 2, 8, "a"))
    assert found["A/a"].own_us == 4_000
    assert found["A/a"].indicators == ("call:B/b",)
    assert found["B/b"].gap_us == -1


def test_client_span_is_waiting_and_its_surplus_is_the_callees_gap() -> None:
    found = units(step("a", "A", 0, 20), step("client", "A", 2, 18, "a"), step("b", "B", 8, 12, "client"))
    assert found.keys() == {"A/a", "B/b"}
    assert (found["A/a"].own_us, found["B/b"].gap_us) == (4_000, 12_000)
    assert found["A/a"].indicators == ("span:client", "call:B/b",)


def test_parallel_callees_are_waited_for_once() -> None:
    found = units(step("a", "A", 0, 10), step("b", "B", 2, 8, "a"), step("c", "C", 3, 9, "a"))
    assert found["A/a"].own_us == 3_000


def test_error_is_charged_where_it_began() -> None:
    failed = {"status": FAILED, "error_type": "Boom"}
    found = units(step("a", "A", 0, 10, **failed), step("b", "B", 2, 8, "a", **failed))
    assert found["A/a"].indicators == ()
    assert found["A/a"].explained
    assert found["B/b"].indicators == ("err:step b failed with Boom",)


def test_step_after_a_failed_one_is_its_victim_but_a_logged_error_excuses_nobody() -> None:
    failed = {"status": FAILED, "error_type": "Boom"}
    victim = units(step("a", "A", 0, 5, **failed), step("b", "B", 6, 8, "a", **failed))
    assert victim["B/b"].indicators == ()
    guilty = units(step("a", "A", 0, 5, logs=["ERROR x"]), step("b", "B", 6, 8, "a", **failed))
    assert guilty["B/b"].indicators == ("err:step b failed with Boom",)
    assert guilty["A/a"].indicators == ("err:log ERROR x",)


def test_callee_that_hangs_explains_its_caller() -> None:
    found = units(step("a", "A", 0, 10, status=FAILED), step("b", "B", 2, 0, "a"), status="failed")
    assert found["A/a"].indicators == ()
    assert found["B/b"].indicators == ("err:step b never ended",)


def test_callee_that_outlives_its_failed_caller_explains_it() -> None:
    found = units(step("a", "A", 0, 10, status=FAILED), step("b", "B", 2, 30, "a"), status="failed")
    assert found["A/a"].indicators == ()
    assert found["B/b"].indicators == ("err:step b outlived its caller",)


def test_open_step_of_a_healthy_execution_is_no_error() -> None:
    assert units(step("a", "A", 0, 10), step("b", "B", 12, 0, "a"))["B/b"].indicators == ()


def test_logs_and_steps_only_heard_of() -> None:
    found = units(step("a", "A", 0, 10, logs=["INFO x:1"]), step("b", "B", 0, 0, status=HEARD_OF, logs=["INFO y"]))
    assert found["A/a"].indicators == ("log:INFO x:1",)
    assert (found["B/b"].indicators, found["B/b"].own_us) == (("log:INFO y",), -1)


def test_consumed_record_makes_a_topic_edge_and_foreign_parents_count_once_per_component() -> None:
    child = step("b", "B", 12, 20, topic="orders", broker_us=5_000)
    child.parents = [("x", "other", "A"), ("y", "another", "A"), ("z", "third", "C"), ("?", "", "")]
    found, edges = observe(execution(child))
    assert [(edge.kind, edge.source, edge.topic) for edge in edges] == [(TOPIC, "A", "orders"), (TOPIC, "C", "orders")]
    assert found[0].gap_us == 5_000


def test_fan_in_waits_for_the_last_parent() -> None:
    found, edges = observe(execution(step("a", "A", 0, 5), step("b", "B", 0, 9), step("c", "C", 10, 12, "a", "b")))
    assert found[2].gap_us == 1_000
    assert {(edge.source, edge.kind) for edge in edges} == {("A", FLOW), ("B", FLOW)}


def test_relation_tolerates_clock_skew_by_the_larger_half() -> None:
    parent = step("a", "A", 0, 100)
    assert relation(parent, step("b", "B", 95, 105, "a")) is CALL
    assert relation(parent, step("b", "B", 99, 120, "a")) is FLOW
    assert relation(parent, step("b", "B", -3, 50, "a")) is CALL
    assert relation(parent, step("b", "B", 100, 101, "a")) is FLOW


def test_indicators_of_a_delta_are_bounded() -> None:
    window = Window(0, 10, 0)
    for number in range(MAX_INDICATORS + 9):
        unit = Unit("A", "s", T)
        unit.indicators = (f"log:{number}", "log:0")
        book_unit(window, unit)
    delta = window.delta(("t", "c", "s", "A"))
    assert len(delta.indicators) == MAX_INDICATORS
    assert delta.indicators["log:0"] >= MAX_INDICATORS + 9


@given(st.data())
def test_any_parents_give_every_span_one_unit_at_most_and_no_hang(data: st.DataObject) -> None:
    names = [f"s{number}" for number in range(data.draw(st.integers(1, 7)))]
    steps = []
    for name in names:
        start, length = data.draw(st.integers(0, 50)), data.draw(st.integers(0, 50))
        parents = data.draw(st.lists(st.sampled_from([*names, "gone"]), max_size=3))
        status = data.draw(st.sampled_from([COMPLETED, FAILED, STARTED]))
        component = data.draw(st.sampled_from("AB"))
        end = 0 if status == STARTED else start + length
        steps.append(step(name, component, start, end, *parents, status=status))
    found, edges = observe(execution(*steps, status="abandoned"))
    assert 0 <= len(found) <= len(steps)
    assert all(unit.own_us >= -1 and unit.gap_us >= -1 for unit in found)
    assert all(edge.source != edge.target for edge in edges)
