"""Chains as pictures: where nodes stand, what state they show, and that names cannot break out of the text."""

import xml.etree.ElementTree as ET

from schemas.definitions import ChainDefinition, ChainStep
from streams.diagram import GAP_X, MARGIN, WIDTH, Run, diagram, flow_diagram, mermaid, svg
from streams.rules import compile_definition

FORK = ChainDefinition(
    name="fork",
    steps=(
        ChainStep(name="a", component="A", output="order"), ChainStep(name="b", component="B", after=("a",)), ChainStep(name="c", component="C", after=("a",)),
        ChainStep(name="d", component="D", after=("b", "c"), optional=True),
    ),
)  # fmt: skip


def run(step: str, status: str = "completed", span: str = "", parents: tuple[str, ...] = ()) -> Run:
    return (step, step.upper(), status, span or step, parents)


def test_declared_steps_stand_behind_what_they_wait_for() -> None:
    drawn = diagram("fork", compile_definition(FORK), [run("a"), run("b", "failed"), run("b", "completed", "b2")], ["c"])
    column = {node.step: (node.x - MARGIN) // (WIDTH + GAP_X) for node in drawn.nodes}
    assert column == {"a": 0, "b": 1, "c": 1, "d": 2}
    assert {node.step: node.status for node in drawn.nodes} == {"a": "completed", "b": "completed", "c": "missing", "d": "pending"}
    assert {node.step: node.runs for node in drawn.nodes} == {"a": 1, "b": 2, "c": 0, "d": 0}
    assert len({(node.x, node.y) for node in drawn.nodes}) == 4
    assert [edge.data for edge in drawn.edges] == ["order", "order", "", ""]


def test_without_a_definition_the_parents_tell_the_order() -> None:
    runs = [run("a", span="1"), run("b", span="2", parents=("1",)), run("a", span="3", parents=("2",)), run("a", span="4", parents=("3", "unknown"))]
    drawn = diagram("seen", None, runs, [])
    assert [(edge.source, edge.target) for edge in drawn.edges] == [("s1", "s0"), ("s0", "s1")]
    assert [node.runs for node in drawn.nodes] == [3, 1]


def test_a_chain_of_thousands_is_drawn() -> None:
    runs = [run(f"s{n}", span=str(n), parents=(str(n - 1),)) for n in range(2_000)]
    drawn = diagram("long", None, runs, [])
    assert [node.x for node in drawn.nodes] == [MARGIN + n * (WIDTH + GAP_X) for n in range(2_000)]


def test_names_stay_names() -> None:
    evil = 'x"]; click s0 "javascript:alert(1)"<script>&amp;'
    steps = (ChainStep(name=evil, component="<b>", output=evil), ChainStep(name="y", component="Y"))
    drawn = flow_diagram(compile_definition(ChainDefinition(name="</title>", steps=steps)), {evil: "failing"})
    text = mermaid(drawn)
    assert text.count('"') == 6 and "<script" not in text and "javascript:" not in text
    root = ET.fromstring(svg(drawn))
    assert root.tag.endswith("svg") and not [element for element in root.iter() if element.tag.endswith("script")]
    assert [node.status for node in drawn.nodes] == ["failing", "unknown"]
