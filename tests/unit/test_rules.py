"""Definitions compiled: what comes after what, however it was written down."""

from itertools import pairwise

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.definitions import ChainDefinition, ChainStep, FlowEdge
from schemas.order import find_cycle
from streams.rules import compile_definition

NAMES = "abcdef"


def step(name: str, **more: object) -> ChainStep:
    return ChainStep.model_validate({"name": name, "component": name.upper(), **more})


def edge(pair: str, **more: object) -> FlowEdge:
    return FlowEdge.model_validate({"source": pair[0], "target": pair[1], **more})


def after(definition: ChainDefinition) -> dict[str, tuple[str, ...]]:
    return {name: rule.after for name, rule in compile_definition(definition).steps.items()}


def test_edges_say_the_same_as_after() -> None:
    listed = ChainDefinition(name="c", steps=(step("a"), step("b"), step("c", after=("a",)), step("d", after=("b", "c"))))
    drawn = ChainDefinition(name="c", steps=tuple(map(step, "abcd")), edges=tuple(map(edge, ("ab", "ac", "cd", "bd"))))
    assert after(listed) == after(drawn) == {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


def test_steps_may_stand_in_any_order() -> None:
    found = ChainDefinition(name="c", steps=(step("b", after=("a",)), step("a", after=())))
    assert after(found) == {"b": ("a",), "a": ()}


def test_no_edges_at_all_let_all_steps_run_at_once() -> None:
    assert after(ChainDefinition(name="c", steps=(step("a"), step("b")), edges=())) == {"a": (), "b": ()}


def test_loop_orders_nothing_and_the_steps_in_it_may_repeat() -> None:
    edges = (*map(edge, ("ab", "bc", "bd", "ce")), edge("ca", loop=True, condition="again"))
    rules = compile_definition(ChainDefinition(name="c", steps=tuple(map(step, "abcde")), edges=edges))
    assert rules.steps["a"].after == ()
    assert {name for name, rule in rules.steps.items() if rule.repeated} == {"a", "b", "c"}


def test_step_that_loops_to_itself_may_repeat() -> None:
    rules = compile_definition(ChainDefinition(name="c", steps=(step("a"), step("b")), edges=(edge("ab"), edge("aa", loop=True))))
    assert [rule.repeated for rule in rules.steps.values()] == [True, False]


def test_everything_wrong_with_the_order_is_said_at_once_with_its_field() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        ChainDefinition(name="c", steps=(step("a"), step("a"), step("b", after=("x", "y"))), edges=(edge("az"),))
    [error] = caught.value.errors()
    found = [(problem.field, problem.reason) for problem in error["ctx"]["problems"]]
    assert [field for field, _ in found] == [
        ("steps", 1, "name"), ("steps", 2, "after"), ("steps", 2, "after"), ("steps", 2, "after"), ("edges", 0, "target"),
    ]  # fmt: skip
    assert all(reason in error["msg"] for _, reason in found)


def test_longest_chain_is_walked_without_recursion() -> None:
    names = [f"s{number:03}" for number in range(256)]
    steps = [ChainStep(name=name, component="x") for name in names]
    assert len(compile_definition(ChainDefinition(name="c", steps=tuple(steps))).steps) == 256
    first = ChainStep(name=names[0], component="x", after=(names[-1],))
    with pytest.raises(pydantic.ValidationError, match="s000 → s001"):
        ChainDefinition(name="c", steps=(first, *steps[1:]))


@given(st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=12))
def test_a_cycle_is_found_if_and_only_if_no_order_exists(arrows: set[tuple[str, str]]) -> None:
    cycle, left = find_cycle(arrows), set(NAMES)
    while free := {name for name in left if not any(target == name and source in left for source, target in arrows)}:
        left -= free
    assert bool(cycle) == bool(left)
    assert set(pairwise(cycle)) <= arrows
    assert cycle[:1] == cycle[-1:]
