"""Progress: current and done steps, the share that is done, and the time that is left."""

from schemas.definitions import ChainDefinition, ChainStep
from schemas.internal import COMPLETED, FAILED, STARTED
from streams.progress import Typical, progress
from streams.rules import ChainRules, compile_definition
from streams.runs import Execution, Step

T = 1_800_000_000_000_000
MS = 1_000


def rules(**expected_ms: float | None) -> ChainRules:
    """a, then b and c beside each other, then d."""
    after = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    steps = tuple(
        ChainStep(name=name, component=name.upper(), after=after[name], expected_duration_ms=ms) for name, ms in expected_ms.items()
    )
    return compile_definition(ChainDefinition(name="c", steps=steps))


DIAMOND = rules(a=10, b=20, c=50, d=20)


def execution(*steps: Step, **more: object) -> Execution:
    return Execution("acme", "c", "e", 0, 0, start_us=T, last_us=T, steps={s.span: s for s in steps}, **more)  # type: ignore[arg-type]


def step(name: str, status: str, start_ms: int = 0) -> Step:
    return Step(name, name, name.upper(), 0, status=status, start_us=T + start_ms * MS)


def test_nothing_done_is_the_longest_way_through_the_chain() -> None:
    found = progress(execution(), DIAMOND, None, T)
    assert (found.ratio, found.remaining_us, found.basis) == (0, 80 * MS, "declared durations")
    assert (found.current_steps, found.done_steps) == ([], [])


def test_running_steps_count_down_and_the_slower_branch_decides() -> None:
    found = progress(
        execution(step("a", COMPLETED), step("b", STARTED, 10), step("c", STARTED, 10)), DIAMOND, None, T + 15 * MS
    )
    assert (found.current_steps, found.done_steps) == (["b", "c"], ["a"])
    assert (found.ratio, found.remaining_us) == (0.1, 65 * MS)


def test_step_over_its_time_leaves_what_comes_after_it() -> None:
    found = progress(execution(step("a", COMPLETED), step("b", COMPLETED), step("c", STARTED)), DIAMOND, None, T + 900 * MS)
    assert (found.ratio, found.remaining_us) == (0.3, 20 * MS)


def test_missing_step_is_not_waited_for() -> None:
    found = progress(execution(step("a", COMPLETED), step("b", COMPLETED), missing=["c"]), DIAMOND, None, T)
    assert (found.missing_steps, found.remaining_us) == (["c"], 20 * MS)


def test_failed_step_is_neither_current_nor_done() -> None:
    found = progress(execution(step("a", FAILED)), DIAMOND, None, T)
    assert (found.current_steps, found.done_steps, found.ratio) == ([], [], 0)


def test_no_estimate_where_a_step_that_is_to_come_has_no_expected_duration() -> None:
    found = progress(execution(step("a", COMPLETED)), rules(a=10, b=None, c=50), None, T)
    assert (found.remaining_us, found.basis) == (None, "no expected duration is declared of b")
    assert found.ratio is not None


def test_without_a_definition_earlier_executions_say_how_long_it_takes() -> None:
    found = progress(execution(step("x", STARTED)), None, 100 * MS, T + 25 * MS)
    assert (found.ratio, found.remaining_us, found.basis) == (0.25, 75 * MS, "duration of earlier executions")
    late = progress(execution(), None, 100 * MS, T + 250 * MS)
    assert (late.ratio, late.remaining_us) == (1, 0)


def test_without_anything_to_go_by_the_reason_is_said() -> None:
    found = progress(execution(), None, None, T)
    assert (found.ratio, found.remaining_us) == (None, None)
    assert "no execution of it has completed" in found.basis


def test_what_is_over_is_done() -> None:
    found = progress(execution(step("a", COMPLETED), status="completed", finished_us=T), DIAMOND, None, T + 999 * MS)
    assert (found.status, found.ratio, found.remaining_us) == ("completed", 1, 0)


def test_typical_duration_follows_and_is_bounded() -> None:
    typical = Typical(max_chains=2)
    typical.learn("t", "a", 100)
    typical.learn("t", "b", 500)
    typical.learn("t", "a", 260)
    assert typical.find("t", "a") == 110
    typical.learn("t", "c", 7)
    assert (typical.find("t", "b"), typical.find("t", "c"), typical.find("u", "c")) == (None, 7, None)
