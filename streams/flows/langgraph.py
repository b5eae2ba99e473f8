"""LangGraph: a compiled graph, or what `get_graph().to_json()` gives of it, to a definition and back.

`document_of(compiled.get_graph(xray=True))` looks into subgraphs: their nodes are steps named `subgraph:node`. LangGraph is
not imported; whatever has such nodes and edges will do.

| LangGraph | definition |
|---|---|
| node | step; its component is `metadata.component` of the node, else the node's id |
| edge, conditional edge with its label | edge, edge with a condition ("" without a label) |
| cycle | the edge that closes it, seen from the start, is a loop |
| edges from `__start__`, to `__end__` | steps without any before, or after, them; facts `start` and `end` of the step where it is not so |
| node reached by conditions only | optional step |
| class of the runnable, name, metadata of the node | facts of the step |

What a graph cannot say (durations, requirements, …) stands on the way back under `flowchain`: of the flow, name included, at the
top, of a step in the metadata of its node. Normal form: nodes in the order of their edges, edges sorted, every edge once; what is
too long for a fact, schemas of models and labels on unconditional edges of `__start__` and `__end__` are left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from pydantic import Field

from schemas.definitions import ChainDefinition, ChainStep, FlowEdge, Problem
from streams.flows.canonical import canonical
from streams.flows.documents import (
    OURS,
    Document,
    ImportRefused,
    Pair,
    Part,
    build,
    certain,
    facts_of,
    fields_of,
    head_of,
    kept_facts,
    loops,
    promises_of,
    read,
)

START, END = "__start__", "__end__"


class Graph(Protocol):
    """What is needed of `compiled.get_graph()`."""

    def to_json(self) -> Mapping[str, Any]:
        """Return the nodes and edges."""


def document_of(graph: Graph) -> Document:
    """Return the JSON export of a graph."""
    return dict(graph.to_json())


class _Edge(Part):
    source: str | int
    target: str | int
    data: Any = None
    conditional: bool = False


class _Node(Part):
    id: str | int
    type: str | None = None
    data: Any = None
    metadata: dict[str, Any] | None = None


class _Document(Part):
    nodes: list[_Node] = Field(min_length=1)
    edges: list[_Edge] = Field(default_factory=list)
    flowchain: dict[str, Any] = Field(default_factory=dict)


def import_langgraph(document: Any, name: str) -> ChainDefinition:
    """Return the canonical definition of a JSON export; `name` where it does not say one. Raises ImportRefused."""
    graph = read(_Document, document)
    inner = [(index, node) for index, node in enumerate(graph.nodes) if str(node.id) not in (START, END)]
    _refuse_unknown(graph)
    head = dict(graph.flowchain)
    pairs = {(str(e.source), str(e.target)) for e in graph.edges}
    back = _loops(head, [str(node.id) for _, node in inner], pairs)
    types = {(s, t, c): data for s, t, c, data in head.pop("data", ())}
    drawn = [(index, edge) for index, edge in enumerate(graph.edges) if str(edge.source) != START and str(edge.target) != END]
    edges = {_key(edge): _edge(edge, back, types) | {"at": index} for index, edge in reversed(drawn)}
    ends = _Ends(graph.edges, edges.values())
    sure = _sure(graph.edges, edges.values())
    steps = [_step(node, ends, sure) for _, node in inner]
    places = {"steps": [("nodes", i) for i, _ in inner], "edges": [("edges", edge.pop("at")) for edge in edges.values()]}
    return build("langgraph", head.pop("name", name), head, steps, list(edges.values()), places)


def _ours(node: _Node) -> Document:
    ours = (node.metadata or {}).get(OURS)
    return dict(ours) if isinstance(ours, dict) else {}


def _refuse_unknown(graph: _Document) -> None:
    names = {str(node.id) for node in graph.nodes} | {START, END}
    problems = [
        Problem(("edges", index, end), f"{getattr(edge, end)!r} is no node")
        for index, edge in enumerate(graph.edges)
        for end in ("source", "target")
        if str(getattr(edge, end)) not in names
    ]
    if problems:
        raise ImportRefused(problems)


def _loops(head: Document, names: Iterable[str], pairs: set[Pair]) -> set[Pair]:
    """Return the edges that are loops: as we wrote, else those that close a cycle seen from the start."""
    written = head.pop("loops", None)
    if written is not None:
        return {(source, target) for source, target in written}
    starts = [target for source, target in pairs if source == START]
    return loops(starts, names, {pair for pair in pairs if START not in pair and END not in pair})


def _key(edge: _Edge) -> tuple[str, str, str | None]:
    return str(edge.source), str(edge.target), _condition(edge)


def _condition(edge: _Edge) -> str | None:
    if not edge.conditional:
        return None
    return "" if edge.data is None else str(edge.data)


def _edge(edge: _Edge, back: set[Pair], types: Mapping[Any, str]) -> Document:
    source, target, condition = _key(edge)
    data = types.get((source, target, condition)) if edge.conditional else edge.data
    return {
        "source": source, "target": target, "condition": condition, "loop": (source, target) in back,
        "data": data if isinstance(data, str) and 0 < len(data) <= 128 else None,
    }  # fmt: skip


class _Ends:
    """Which steps begin and end the flow, as far as their edges do not say so."""

    def __init__(self, drawn: Iterable[_Edge], edges: Iterable[Document]) -> None:
        self._start = _links((str(e.target), _condition(e)) for e in drawn if str(e.source) == START)
        self._end = _links((str(e.source), _condition(e)) for e in drawn if str(e.target) == END)
        self._inner = {e["target"] for e in edges if not e["loop"]}, {e["source"] for e in edges if not e["loop"]}

    def facts(self, name: str) -> Document:
        """Return `start` and `end` of a step: True, False, or the conditions; left out where they are as expected."""
        found = {"start": self._start.get(name, False), "end": self._end.get(name, False)}
        expected = {"start": name not in self._inner[0], "end": name not in self._inner[1]}
        return {key: value for key, value in found.items() if value != expected[key]}


def _links(pairs: Iterable[tuple[str, str | None]]) -> dict[str, bool | list[str]]:
    """Return {step: True, or the conditions of its edges to START or END}."""
    found: dict[str, set[str | None]] = {}
    for name, condition in pairs:
        found.setdefault(name, set()).add(condition)
    return {name: True if None in told else sorted(c for c in told if c is not None) for name, told in found.items()}


def _sure(drawn: Iterable[_Edge], edges: Iterable[Document]) -> set[str]:
    """Return the steps that no condition can leave out."""
    # Not validated: what is wrong with an edge is said where the definition is built, with its place in the document.
    begun = [_arrow(START, str(e.target), _condition(e)) for e in drawn if str(e.source) == START]
    inner = [_arrow(e["source"], e["target"], e["condition"], e["loop"]) for e in edges]
    return certain([START], [*begun, *inner], {str(e.source) for e in drawn if str(e.target) == END})


def _arrow(source: str, target: str, condition: str | None, loop: bool = False) -> FlowEdge:
    return FlowEdge.model_construct(source=source, target=target, condition=condition, loop=loop)


def _step(node: _Node, ends: _Ends, sure: set[str]) -> Document:
    name, ours, told = str(node.id), _ours(node), dict(node.metadata or {})
    told.pop(OURS, None)
    component = told.get("component")
    runnable = node.data if node.type == "runnable" and isinstance(node.data, dict) else {}
    facts: Document = {"type": node.type} if node.type else {}
    if isinstance(of := runnable.get("id"), list) and all(isinstance(part, str) for part in of):
        facts["class"] = of
    if isinstance(label := runnable.get("name"), str) and label != name:
        facts["label"] = label
    if isinstance(node.data, str):
        facts["label"] = node.data
    own = {f"metadata.{key}": value for key, value in facts_of(told).items()}
    return {
        "name": name,
        "component": component if isinstance(component, str) and component else name,
        "optional": name not in sure,
        **ours,
        "metadata": {**own, **facts_of(facts), **ends.facts(name), **ours.get("metadata", {})},
    }


# -- the way back -----------------------------------------------------------------------------------------------------


def export_langgraph(definition: ChainDefinition) -> Document:
    """Return the JSON export of a definition, in normal form. Raises ValueError where a step is named like START or END."""
    flow = canonical(definition)
    if reserved := {START, END} & {step.name for step in flow.steps}:
        raise ValueError(f"{', '.join(sorted(reserved))} is no name for a step of a LangGraph")
    edges = flow.edges or ()
    forth = [edge for edge in edges if not edge.loop]
    begun = [_link(START, step.name, c) for step in flow.steps for c in _told(step, "start", {e.target for e in forth})]
    ended = [_link(step.name, END, c) for step in flow.steps for c in _told(step, "end", {e.source for e in forth})]
    drawn = [_link(edge.source, edge.target, edge.condition, edge.data) for edge in edges]
    nodes = [{"id": START}, *map(_node, flow.steps), {"id": END}]
    document: Document = {"nodes": nodes, "edges": [*begun, *drawn, *ended]}
    head = {"name": flow.name, **head_of(flow, "langgraph")}
    document[OURS] = head | _edge_facts(flow, import_langgraph(document, flow.name))
    derived = {step.name: step for step in import_langgraph(document, flow.name).steps}
    for step, node in zip(flow.steps, nodes[1:], strict=False):
        if ours := _step_facts(step, derived[step.name]):
            node["metadata"] = {**node.get("metadata", {}), OURS: ours}
    return document


def _link(source: str, target: str, condition: str | None, data: str | None = None) -> Document:
    edge: Document = {"source": source, "target": target}
    if label := data if condition is None else condition:
        edge["data"] = label
    return edge if condition is None else {**edge, "conditional": True}


def _told(step: ChainStep, fact: str, inner: set[str]) -> list[str | None]:
    """Return the conditions of the edges that lead from START to a step, or from it to END; None = unconditional."""
    told = step.metadata.get(fact, step.name not in inner)
    if isinstance(told, tuple):
        return list(dict.fromkeys(told))
    return [None] if told is True else []


def _node(step: ChainStep) -> Document:
    told = fields_of({key.removeprefix("metadata."): v for key, v in step.metadata.items() if key.startswith("metadata.")})
    kind, label = step.metadata.get("type"), step.metadata.get("label")
    node: Document = {"id": step.name}
    if isinstance(kind, str):
        node["type"] = kind
    if kind == "runnable" and isinstance(of := step.metadata.get("class"), tuple):
        node["data"] = {"id": list(of), "name": label if isinstance(label, str) else step.name}
    elif isinstance(label, str):
        node["data"] = label
    return {**node, "metadata": told} if told else node


def _edge_facts(flow: ChainDefinition, derived: ChainDefinition) -> Document:
    """Return what the edges of a graph cannot say: which are loops, where that is not plain, and types beside conditions."""
    found: Document = {}
    if {(e.source, e.target) for e in flow.edges or () if e.loop} != {(e.source, e.target) for e in derived.edges or () if e.loop}:
        found["loops"] = sorted({(e.source, e.target) for e in flow.edges or () if e.loop})
    types = [[e.source, e.target, e.condition, e.data] for e in flow.edges or () if e.condition is not None and e.data]
    return {**found, "data": types} if types else found


def _step_facts(step: ChainStep, derived: ChainStep) -> Document:
    """Return the fields of a step that its node does not say by itself."""
    told = {name: value for name in ("component", "optional") if (value := getattr(step, name)) != getattr(derived, name)}
    facts = kept_facts(step, derived)
    return {**told, **promises_of(step), **({"metadata": facts} if facts else {})}
