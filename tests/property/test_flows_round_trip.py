"""Every format of flows: what was imported goes back as it came, and what was exported comes back as it was."""

import json
from typing import Any

import pytest
from flow_world import definitions
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.definitions import ChainDefinition, ChainStep, Kind
from schemas.order import find_cycle
from streams.flows.canonical import canonical, content, content_id
from streams.flows.dependencies import declared_edges
from streams.flows.diff import diff
from streams.flows.documents import ImportRefused, certain, facts_of, fields_of, loops
from streams.flows.kinds import EXPORTERS, export_flows, import_flows
from streams.rules import compile_definition

KINDS: tuple[Kind, ...] = tuple(EXPORTERS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(definition=definitions())
def test_exported_definition_comes_back_as_it_was(kind: Kind, definition: ChainDefinition) -> None:
    document = json.loads(json.dumps(EXPORTERS[kind](definition)))
    [back] = import_flows(kind, document, "no name needed")
    assert back == canonical(definition)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(definition=definitions())
def test_normal_form_is_its_own_normal_form(kind: Kind, definition: ChainDefinition) -> None:
    document = json.loads(json.dumps(EXPORTERS[kind](definition)))
    [back] = import_flows(kind, document, "no name needed")
    assert json.loads(json.dumps(EXPORTERS[kind](back))) == document


@given(definitions())
def test_canonical_form_says_the_same(definition: ChainDefinition) -> None:
    found = canonical(definition)
    assert canonical(found) == found
    assert content(found) == content(definition)
    assert diff(definition, found) == []
    before, after = compile_definition(definition), compile_definition(found)
    assert {name: (set(rule.after), rule.repeated) for name, rule in before.steps.items()} == {
        name: (set(rule.after), rule.repeated) for name, rule in after.steps.items()
    }
    assert before.required == after.required
    assert ChainDefinition.decode(found.encode()) == found


@given(definitions(), definitions())
def test_ids_differ_where_something_does(one: ChainDefinition, other: ChainDefinition) -> None:
    assert (content_id(one) == content_id(other)) == (canonical(one) == canonical(other))
    same_flow = (one.name, one.tenant) == (other.name, other.tenant)
    assert not same_flow or bool(diff(one, other)) == (content_id(one) != content_id(other))


@given(definitions())
def test_declared_edges_are_between_components_of_the_flow(definition: ChainDefinition) -> None:
    members = {step.component for step in definition.steps}
    for edge in declared_edges(definition):
        assert edge.source != edge.target
        assert {edge.source, edge.target} <= members


JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3), max_leaves=6)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8), JSON, max_size=5))
def test_facts_keep_what_a_document_says(document: dict[str, Any]) -> None:
    kept = {name: value for name, value in document.items() if value is not None}
    assert fields_of(facts_of(document)) == kept or any(name.startswith("json:") for name in kept)


PAIRS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=14)


@given(PAIRS, st.lists(st.sampled_from("abcdef"), max_size=2))
def test_without_its_loops_a_graph_has_no_cycle(arrows: list[tuple[str, str]], starts: list[str]) -> None:
    back = loops(starts, "abcdef", arrows)
    assert not find_cycle(arrow for arrow in arrows if arrow not in back)
    assert bool(back) == bool(find_cycle(arrows))
    assert back == loops(starts, "abcdef", list(reversed(arrows)))


@given(definitions(), st.randoms(use_true_random=False))
def test_no_way_through_the_flow_leaves_out_what_is_certain(definition: ChainDefinition, random: Any) -> None:
    edges = [edge for edge in canonical(definition).edges or () if not edge.loop]
    names = {step.name for step in definition.steps}
    start = random.choice(sorted(names))
    exits = names - {edge.source for edge in edges}
    sure = certain([start], edges, exits)
    ran, waiting = set(), [start]
    while waiting:  # everything unconditional, and of the conditional ones any, but one at least where nothing else goes on
        name = waiting.pop()
        if name not in ran:
            ran.add(name)
            out = [edge for edge in edges if edge.source == name]
            taken = [e.target for e in out if e.condition is None or random.random() < 0.5]
            waiting += taken or [e.target for e in out[:1]]
    assert sure <= ran


def test_a_fact_that_is_no_list_of_types_stays_a_fact() -> None:
    step = ChainStep(name="id", component="0", metadata={"inputs": ("0", "\x1f")})
    document = export_flows("ai_brain", [ChainDefinition(name="0", steps=(step,))])[0]
    assert export_flows("ai_brain", import_flows("ai_brain", document, "0"))[0] == document


def test_a_condition_of_a_beginning_may_hold_whatever_a_graph_says() -> None:
    steps = (ChainStep(name="a", component="a", metadata={"start": ("\x1f",)}), ChainStep(name="b", component="b"))
    definition = ChainDefinition(name="g", kind="langgraph", steps=steps)
    [back] = import_flows("langgraph", EXPORTERS["langgraph"](definition), "g")
    assert back == canonical(definition)


def test_a_condition_that_cannot_be_kept_is_named_with_its_place() -> None:
    edges = [{"source": "__start__", "target": "a"}, {"source": "a", "target": "b", "data": "x\ny", "conditional": True}]
    with pytest.raises(ImportRefused, match=r"edges\.1"):
        import_flows("langgraph", {"nodes": [{"id": "a"}, {"id": "b"}], "edges": edges}, "g")
