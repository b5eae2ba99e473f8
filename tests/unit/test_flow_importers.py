"""Documents of others as they really come: LangGraph's own graphs, the shipped examples, what graph tools write."""

import json
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest
import yaml
from langgraph.graph import END, START, StateGraph

from schemas.definitions import ChainDefinition
from streams.flows.canonical import content_id
from streams.flows.documents import ImportRefused
from streams.flows.kinds import export_flows, import_flows
from streams.flows.langgraph import document_of, export_langgraph, import_langgraph
from streams.rules import compile_definition

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


class State(TypedDict):
    count: int


def same(state: State) -> State:
    return state


def research() -> StateGraph[Any, Any, Any, Any]:
    """An agent with tools in a loop, a subgraph on one of its branches, a fan-out and a fan-in."""
    inner = StateGraph(State)
    inner.add_node("read", same)
    inner.add_node("rank", same)
    inner.add_edge(START, "read")
    inner.add_edge("read", "rank")
    inner.add_edge("rank", END)

    def route(state: State) -> Literal["tools", "done"]:
        return "tools" if state["count"] else "done"

    graph = StateGraph(State)
    graph.add_node("agent", same, metadata={"component": "agent-orchestrator", "owner": "research", "retries": {"max": 3}})
    graph.add_node("tools", same)
    graph.add_node("library", inner.compile())
    graph.add_node("audit", same)
    graph.add_node("answer", same)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", route, {"tools": "tools", "done": "library"})
    graph.add_edge("tools", "agent")
    graph.add_edge("agent", "audit")
    graph.add_edge(["library", "audit"], "answer")
    graph.add_edge("answer", END)
    return graph


def normal(document: dict[str, Any]) -> dict[str, Any]:
    """What of a LangGraph document counts: nodes and edges in any order; nothing is kept of START."""
    nodes = [{"id": node["id"]} if node["id"] == START else node for node in document["nodes"]]
    by_text = {name: sorted(parts, key=lambda part: json.dumps(part, sort_keys=True)) for name, parts in {**document, "nodes": nodes}.items() if name != "flowchain"}
    return json.loads(json.dumps(by_text))


@pytest.mark.parametrize("inside", [True, False], ids=["with its subgraph", "from outside"])
def test_real_langgraph_goes_there_and_back(inside: bool) -> None:
    document = document_of(research().compile().get_graph(xray=inside))
    found = import_langgraph(document, "research")
    assert normal(export_langgraph(found)) == normal(document)
    assert import_langgraph(json.loads(json.dumps(export_langgraph(found))), "another name") == found


def test_real_langgraph_becomes_a_contract() -> None:
    found = import_langgraph(document_of(research().compile().get_graph(xray=True)), "research")
    steps = {step.name: step for step in found.steps}
    assert steps["agent"].component == "agent-orchestrator"
    assert {name for name, step in steps.items() if step.optional} == {"tools", "library:read", "library:rank"}
    assert {(e.source, e.target, e.condition) for e in found.edges or () if e.condition is not None} == {
        ("agent", "tools", ""), ("agent", "library:read", "done"),
    }  # fmt: skip
    rules = compile_definition(found)
    assert {name for name, rule in rules.steps.items() if rule.repeated} == {"agent", "tools"}
    assert rules.steps["answer"].after == ("audit", "library:rank")
    assert rules.required == {"agent", "audit", "answer"}


def test_langgraph_where_a_condition_chooses_the_entry_has_nothing_certain_but_the_end() -> None:
    def choose(state: State) -> Literal["short", "long"]:
        return "short" if state["count"] else "long"

    graph = StateGraph(State)
    for name in ("short", "long", "both"):
        graph.add_node(name, same)
    graph.add_conditional_edges(START, choose)
    graph.add_edge("short", "both")
    graph.add_edge("long", "both")
    graph.add_edge("both", END)
    document = document_of(graph.compile().get_graph())
    found = import_langgraph(document, "c")
    assert {step.name for step in found.steps if not step.optional} == {"both"}
    assert normal(export_langgraph(found)) == normal(document)


def test_what_langgraph_cannot_say_comes_back_too() -> None:
    plain = import_langgraph(document_of(research().compile().get_graph()), "research")
    first = plain.steps[0].model_copy(update={"deadline_ms": 900.0, "component": "elsewhere"})
    wanted = plain.model_copy(update={"steps": (first, *plain.steps[1:]), "requires": ("market_data",), "tenant": "acme"})
    assert import_langgraph(json.loads(json.dumps(export_langgraph(wanted))), "x") == wanted


def read(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text())


def test_shipped_langgraph_is_the_export_of_the_real_one() -> None:
    assert read("langgraph.json") == json.loads(json.dumps(document_of(research().compile().get_graph(xray=True))))


def test_chain_mapping_has_the_durations_in_milliseconds() -> None:
    ai, mt5 = import_flows("chain_mapping", read("chain_mapping.yaml"), "")
    assert [step.expected_duration_ms for step in mt5.steps] == [50, 20, 100, 80]
    assert [step.expected_duration_ms for step in ai.steps] == [30, 15, 10, 1.2]
    assert [rule.after for rule in compile_definition(mt5).steps.values()] == [
        (), ("mt5_data_ingestion",), ("data_validation",), ("data_processing",),
    ]  # fmt: skip


def test_ai_brain_falls_back_below_its_threshold() -> None:
    [brain] = import_flows("ai_brain", read("ai_brain.json"), "")
    steps = {step.name: step for step in brain.steps}
    assert steps["multi_agent_analysis"].metadata == {"confidence_threshold": 0.7}
    assert steps["consensus_generation"].metadata == {"inputs": ("agent_results", "risk_limits")}
    assert [name for name, step in steps.items() if step.optional] == ["rule_based_analysis"]
    [fallback] = [edge for edge in brain.edges or () if edge.target == "rule_based_analysis"]
    assert (fallback.source, fallback.condition) == ("multi_agent_analysis", "confidence < 0.7")
    rules = compile_definition(brain)
    assert {name for name, rule in rules.steps.items() if rule.repeated} == {
        "multi_agent_analysis", "rule_based_analysis", "consensus_generation",
    }  # fmt: skip


def without(document: Any, *names: str) -> Any:
    """A document without what its normal form leaves out."""
    if isinstance(document, dict):
        return {name: without(value, *names) for name, value in document.items() if name not in names}
    return [without(value, *names) for value in document] if isinstance(document, list) else document


def unordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: unordered(inner) for name, inner in value.items()}
    return sorted(map(unordered, value), key=str) if isinstance(value, list) else value


def test_shipped_ai_brain_goes_back_as_it_came() -> None:
    [document] = export_flows("ai_brain", import_flows("ai_brain", read("ai_brain.json"), ""))
    assert unordered(document) == unordered(read("ai_brain.json"))


def test_shipped_chain_mapping_goes_back_with_the_unit_in_the_name() -> None:
    [document] = export_flows("chain_mapping", import_flows("chain_mapping", read("chain_mapping.yaml"), ""))
    text = (EXAMPLES / "chain_mapping.yaml").read_text().replace("expected_duration:", "expected_duration_ms:")
    assert document == yaml.safe_load(text)


def test_shipped_custom_flow_goes_back_in_normal_form() -> None:
    [flow] = import_flows("custom", read("custom.json"), "")
    assert {(e.source, e.target) for e in flow.edges or () if e.loop} == {("retry", "pay")}
    [document] = export_flows("custom", [flow])
    expected = read("custom.json")
    for edge in expected["edges"]:
        del edge["id"]
    expected["edges"][3]["loop"] = True
    for name in ("component", "deadline_ms"):
        expected["nodes"][1][name] = expected["nodes"][1]["data"].pop(name)
    assert unordered(document) == unordered(expected)


GRAPHS = {
    "networkx": {"name": "c", "nodes": [{"id": 1}, {"id": 2}], "links": [{"source": 1, "target": 2}]},
    "cytoscape": {"elements": {"name": "c", "nodes": [{"data": {"id": "1"}}, {"data": {"id": "2"}}], "edges": [{"data": {"source": "1", "target": "2"}}]}},
    "json graph": {"graph": {"name": "c", "nodes": {"1": {}, "2": {}}, "edges": [{"source": "1", "target": "2"}]}},
    "from and to": {"name": "c", "nodes": [{"id": "1"}, {"id": "2"}], "edges": [{"from": "1", "to": "2"}]},
}  # fmt: skip


def test_graph_tools_say_the_same_in_their_ways() -> None:
    ids = {content_id(flow) for document in GRAPHS.values() for flow in import_flows("custom", document, "unnamed")}
    assert len(ids) == 1


REFUSED: dict[str, tuple[Any, Any, list[tuple[Any, str]]]] = {
    "node without an id": ("langgraph", {"nodes": [{"type": "runnable"}]}, [(("nodes", 0, "id"), "required")]),
    "edge to nobody": ("langgraph", {"nodes": [{"id": "a"}], "edges": [{"source": "a", "target": "z"}]}, [(("edges", 0, "target"), "'z' is no node")]),
    "brain in a circle": (
        "ai_brain",
        {"brain": "b", "agents": [{"id": "a"}, {"id": "b"}], "decisions": [{"from": "a", "to": "b"}, {"from": "b", "to": "a"}]},
        [(("decisions", 1), "a → b → a")],
    ),
    "fallback without a threshold": ("ai_brain", {"brain": "b", "agents": [{"id": "a", "fallbacks": ["a"]}]}, [(("agents", 0, "fallbacks"), "confidence_threshold")]),
    "two bad chains at once": (
        "chain_mapping",
        {"Data_Flow_Chains": {"x": {"steps": [{"name": "a"}]}, "y": {"steps": [{"name": "b", "component": "c", "input": 5}]}}},
        [(("Data_Flow_Chains", "x", "steps", 0, "component"), "required"), (("Data_Flow_Chains", "y", "steps", 0, "input"), "string")],
    ),
    "node that is a text": ("custom", {"nodes": ["a"]}, [(("nodes", 0), "is no object")]),
    "no graph at all": ("custom", [1], [((), "is no object with nodes and edges")]),
    "node without a name": ("custom", {"nodes": [{"id": "a"}, {}]}, [(("nodes", 1, "name"), "string"), (("nodes", 1, "component"), "string")]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_document_is_told_with_the_place(case: str) -> None:
    kind, document, expected = REFUSED[case]
    with pytest.raises(ImportRefused) as caught:
        import_flows(kind, document, "c")
    found = caught.value.problems
    assert len(found) >= len(expected)
    for (place, reason), problem in zip(expected, found, strict=False):
        assert problem.field == place
        assert reason in problem.reason


def test_definition_of_any_kind_can_be_a_langgraph() -> None:
    [mt5] = [flow for flow in import_flows("chain_mapping", read("chain_mapping.yaml"), "") if flow.name.startswith("MT5")]
    back = import_langgraph(json.loads(json.dumps(export_langgraph(mt5))), "x")
    assert back == mt5


def test_step_named_like_an_end_of_a_langgraph_cannot_be_one() -> None:
    flow = ChainDefinition.model_validate({"name": "c", "steps": ({"name": "__end__", "component": "x"},)})
    with pytest.raises(ValueError, match="__end__ is no name"):
        export_langgraph(flow)
