"""Conformance: when an execution is looked at, when it is over, and what words say so."""

import pytest

from schemas.definitions import ChainDefinition, ChainStep
from schemas.internal import COMPLETED, STARTED
from schemas.violations import LogPosition
from streams import conformance
from streams.limits import Limits
from streams.rules import ChainRules, RuleBook, compile_definition
from streams.runs import Execution, Step

T = 1_800_000_000_000_000
MS = 1_000
S = 1_000_000
LIMITS = Limits(idle_us=5 * S)
POSITION = LogPosition(topic="t", partition=0, offset=7)


def rules(*steps: ChainStep) -> ChainRules:
    return compile_definition(ChainDefinition(name="c", version="7", steps=steps))


def step(name: str, **more: object) -> ChainStep:
    return ChainStep.model_validate({"name": name, "component": name.upper(), **more})


def execution(**more: object) -> Execution:
    return Execution("t", "c", "e", 0, 0, **{"start_us": T, "last_us": T, **more})  # type: ignore[arg-type]


def run(name: str, end_ms: int, took_ms: int = 10, **more: object) -> Step:
    facts = {"status": COMPLETED, "end_us": T + end_ms * MS, "start_us": T + (end_ms - took_ms) * MS, **more}
    return Step(name, name, name.upper(), 0, duration_us=took_ms * MS, **facts)  # type: ignore[arg-type]


LINE = rules(step("a"), step("b", deadline_ms=1_000), step("c", deadline_ms=500))


def test_step_follows_the_one_before_it_unless_it_says_otherwise() -> None:
    found = rules(step("a"), step("b"), step("c", after=("a",)), step("d", after=("b", "c")), step("e", after=())).steps
    assert {name: rule.after for name, rule in found.items()} == {
        "a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": (),
    }  # fmt: skip
    assert {name: rule.before for name, rule in found.items()} == {
        "a": ("b", "c"), "b": ("d",), "c": ("d",), "d": (), "e": (),
    }  # fmt: skip


def test_progress_is_weighed_by_expected_durations_and_leaves_optional_steps_out() -> None:
    found = rules(step("a", expected_duration_ms=30), step("b", expected_duration_ms=70), step("c", optional=True))
    assert found.progress([]) == 0
    assert found.progress(["a", "a", "c", "?"]) == 0.3
    assert found.progress("abc") == 1
    assert rules(step("a", optional=True)).progress(["a"]) == 0


def test_shortest_deadline_of_the_steps_after_is_compiled() -> None:
    found = rules(step("a"), step("b", deadline_ms=30), step("c", after=("a",), deadline_ms=20), step("d", after=("c",)))
    assert found.due_after_us == {"a": 20 * MS}


def test_execution_that_missed_a_step_is_looked_at_as_soon_as_nothing_is_awaited() -> None:
    found = rules(step("a"), step("b", deadline_ms=30), step("c", after=("a",), deadline_ms=900))
    late = execution(ends={"a": T}, missing=["b"], last_us=T + 5 * MS)
    assert conformance.next_check_us(late, found, LIMITS) == T + 900 * MS
    late.ends["c"] = T + 5 * MS
    assert conformance.next_check_us(late, found, LIMITS) == T + 5 * MS


def test_first_step_is_due_from_the_beginning_of_the_execution() -> None:
    first = rules(step("a", deadline_ms=200))
    assert conformance.next_check_us(execution(), first, LIMITS) == T + 200 * MS
    (found,) = conformance.overdue(execution(), first, T + 200 * MS, LIMITS)
    assert (found.step, found.time_unix_us, found.detail) == ("a", T + 200 * MS, "a never came within 200.0 ms")


def test_overdue_has_an_exact_edge_and_notes_what_it_told() -> None:
    late = execution(ends={"a": T})
    assert list(conformance.overdue(late, LINE, T + S - 1, LIMITS)) == []
    assert [found.step for found in conformance.overdue(late, LINE, T + S, LIMITS)] == ["b"]
    assert late.missing == ["b"]
    assert list(conformance.overdue(late, LINE, T + S, LIMITS)) == []


def test_what_comes_after_a_missing_step_is_not_missed_as_well() -> None:
    late = execution(ends={"a": T}, saw=3, ended_us=T + 10)
    assert [found.step for found in conformance.overdue(late, LINE, T + 4 * S, LIMITS)] == ["b"]
    assert conformance.verdict(late, LINE, T + 4 * S, LIMITS) == "incomplete"


@pytest.mark.parametrize("after", [("a",), ("b",), ("a", "b")])
def test_skipped_optional_step_excuses_nobody(after: tuple[str, ...]) -> None:
    skipped = rules(step("a"), step("b", optional=True), step("c", deadline_ms=500, after=after))
    late = execution(ends={"a": T}, saw=3, ended_us=T + 10)
    assert [found.step for found in conformance.overdue(late, skipped, T + S, LIMITS)] == ["c"]
    assert conformance.verdict(late, skipped, T + S, LIMITS) == "incomplete"


def test_idle_has_an_exact_edge() -> None:
    begun = execution(steps={"a": Step("a", "a", "A", 0, status=STARTED)}, pending=1)
    assert list(conformance.overdue(begun, None, T + 5 * S - 1, LIMITS)) == []
    assert conformance.verdict(begun, None, T + 5 * S - 1, LIMITS) is None
    assert [found.step for found in conformance.overdue(begun, None, T + 5 * S, LIMITS)] == ["a"]
    assert conformance.verdict(begun, None, T + 5 * S, LIMITS) == "incomplete"


@pytest.mark.parametrize(
    ("saw", "ends", "pending", "declared", "done"),
    [
        (0, "abc", 0, True, True), (1, "abc", 0, True, False), (3, "abc", 0, True, True), (2, "ab", 0, True, False),
        (3, "abc", 1, True, False), (4, "", 0, True, True), (4, "", 1, True, False), (3, "", 0, False, False),
        (4, "", 0, False, True), (0, "", 0, False, False),
    ],
)  # fmt: skip
def test_done_without_waiting(saw: int, ends: str, pending: int, declared: bool, done: bool) -> None:
    found = execution(saw=saw, ends=dict.fromkeys(ends, T), pending=pending)
    assert conformance.is_done(found, LINE if declared else None) is done


@pytest.mark.parametrize("at_ms", [89, 90])
def test_order_is_doubted_beyond_the_skew(at_ms: int) -> None:
    found = execution(steps={"b": run("b", 130, 130 - at_ms), "a": run("a", 100)})
    violations = list(conformance.out_of_order(found, LINE, LIMITS))
    assert [(v.type, v.step) for v in violations] == ([("step.out_of_order", "b")] if at_ms < 90 else [])


def test_end_of_a_run_is_held_to_its_rule() -> None:
    held = rules(step("a", expected_duration_ms=10))
    found = execution(missing=["a"], ends={"a": T})
    kinds = [v.type for v in conformance.check_end(found, run("a", 50, 11), held, POSITION)]
    assert kinds == ["step.slow", "step.late", "step.duplicated"]
    (unknown,) = conformance.check_end(found, run("x", 50), held, POSITION)
    assert (unknown.type, unknown.detail, unknown.position) == ("step.unexpected", "x is not a step of c 7", POSITION)


@pytest.mark.parametrize(("end_ms", "kind"), [(60, "step.delayed"), (61, "step.late")])
def test_missed_step_that_ended_in_time_was_only_delayed(end_ms: int, kind: str) -> None:
    held = rules(step("a"), step("b", deadline_ms=50))
    found = execution(missing=["b"], ends={"a": T + 10 * MS})
    assert [v.type for v in conformance.check_end(found, run("b", end_ms, 1), held, POSITION)] == [kind]


def test_definition_is_replaced_and_a_tenants_own_goes_first() -> None:
    book = RuleBook([ChainDefinition(name="c", version="1", steps=(step("a"),))])
    book.add(ChainDefinition(name="c", version="2", steps=(step("a"),)))
    book.add(ChainDefinition(name="c", version="x", tenant="t", steps=(step("a"),)))
    found = [book.find(tenant, chain, 0) for tenant, chain in (("t", "c"), ("u", "c"), ("u", "d"))]
    assert [rule and rule.version for rule in found] == ["x", "2", None]
    assert len(book) == 2


def version(number: int, effective_us: int, tenant: str | None = None) -> ChainDefinition:
    return ChainDefinition(name="c", version=str(number), tenant=tenant, effective_from_unix_us=effective_us, steps=(step("a"),))


def held(book: RuleBook, *starts_us: int, tenant: str = "t") -> list[str]:
    return [rule.version if (rule := book.find(tenant, "c", start)) else "none" for start in starts_us]


def test_execution_is_held_to_the_version_that_was_in_force_when_it_began() -> None:
    book = RuleBook([version(1, 10), version(2, 20), version(3, 30)])
    assert held(book, 9, 10, 19, 20, 30, 99) == ["none", "1", "1", "2", "3", "3"]
    book.add(version(4, 20))
    assert held(book, 19, 20, 30, 99) == ["1", "4", "4", "4"]


def test_before_a_tenants_own_version_the_common_one_holds() -> None:
    book = RuleBook([version(1, 0), version(2, 20, "t")])
    assert held(book, 19, 20) == ["1", "2"]
    assert held(book, 19, 20, tenant="u") == ["1", "1"]


def test_versions_of_a_chain_are_bounded_and_can_be_taken_back() -> None:
    book = RuleBook([version(number, number) for number in range(20)])
    assert held(book, 11, 12, 19) == ["none", "12", "19"]
    before = book.version
    book.remove("", "c", 19)
    book.remove("", "c", 19)
    assert held(book, 19) == ["18"]
    assert book.version == before + 1
    for number in range(12, 19):
        book.remove("", "c", number)
    assert held(book, 19) == ["none"]
    assert len(book) == 0
