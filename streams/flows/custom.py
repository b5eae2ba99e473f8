"""Custom flows: nodes and edges as graph tools write them, to a definition and back.

    {"name": "order", "nodes": [{"id": "check", "component": "shop", "label": "Check", "position": {"x": 0, "y": 50}},
                                {"id": "pay", "data": {"component": "payments", "deadline_ms": 900}}],
     "edges": [{"source": "check", "target": "pay", "label": "order"}]}

- Read are also node-link data of networkx (`links`), Cytoscape (`elements`, everything under `data`), the JSON Graph Format
  (`graph`, nodes by id, `label`), and edges with `from` and `to`.
- What a node, or its `data`, says under the name of a step's field is that field; its component is its id where it says none.
  Everything else is a fact of the step, that in `data` under `data.…`.
- An edge's `condition` is its condition, `label` or `data` the type of what passes. An edge that closes a cycle, seen from
  the nodes that nothing leads to, is a loop, whether it says `loop` or not. A node that only conditions lead to is optional
  where it says so: other tools do not mean that by their edges.

Normal form: the layout above, nodes in the order of the edges, loops marked, fields of a step at the node, no null, no
fields of edges that are not named here, no facts beyond 1,024 characters.
"""

from typing import Any

from schemas.definitions import ChainDefinition, ChainStep, FlowEdge, Problem
from streams.flows.canonical import canonical
from streams.flows.documents import (
    OURS,
    STEP_FIELDS,
    Document,
    ImportRefused,
    Place,
    build,
    facts_of,
    fields_of,
    head_of,
    kept_facts,
    loops,
    promises_of,
)

FIELDS = ("component", "optional", *STEP_FIELDS)
HEAD = ("version", "tenant", "description", "effective_from_unix_us", "requires", "error_budget_ratio", "slo", "kind")
TAKEN = ("id", "data", OURS, *FIELDS)


def import_custom(document: Any, name: str) -> ChainDefinition:
    """Return the canonical definition of a graph; `name` where it does not say one. Raises ImportRefused."""
    top, nodes, links = _layout(document)
    steps = [_step(node) for node in nodes.values()]
    edges = {place: _edge(link) for place, link in links.items()}
    names = [step["name"] for step in steps if isinstance(step["name"], str)]
    drawn = {(edge["source"], edge["target"]) for edge in edges.values() if not edge["loop"]}
    forth = {pair for pair in drawn if {*map(type, pair)} == {str}}
    back = loops(set(names) - {target for _, target in forth}, names, forth)
    for edge in edges.values():
        edge["loop"] = edge["loop"] or (edge["source"], edge["target"]) in back
    head = {key: top[key] for key in HEAD if top.get(key) is not None}
    if isinstance(told := top.get("metadata"), dict):
        head["metadata"] = facts_of(told)
    given = top.get("name")
    places = {"steps": list(nodes), "edges": list(edges)}
    return build("custom", given if isinstance(given, str) and given else name, head, steps, list(edges.values()), places)


def _layout(document: Any) -> tuple[Document, dict[Place, Document], dict[Place, Document]]:
    """Return the top of a document, its nodes and its edges by their places, whichever tool wrote it."""
    if not isinstance(document, dict):
        raise ImportRefused([Problem((), "is no object with nodes and edges")])
    inside: Place = next(((key,) for key in ("graph", "elements") if isinstance(document.get(key), dict) and "nodes" in document[key]), ())
    top = document[inside[0]] if inside else document
    links = "links" if "links" in top and "edges" not in top else "edges"
    nodes = _parts(top.get("nodes"), (*inside, "nodes"))
    return top, nodes, _parts(top.get(links, []), (*inside, links))


def _parts(parts: Any, place: Place) -> dict[Place, Document]:
    if isinstance(parts, dict):
        parts, keys = [{"id": key, **(value if isinstance(value, dict) else {})} for key, value in parts.items()], list(parts)
    elif isinstance(parts, list):
        keys = list(range(len(parts)))
    else:
        raise ImportRefused([Problem(place, "is neither a list nor an object")])
    if wrong := [(*place, key) for key, part in zip(keys, parts, strict=True) if not isinstance(part, dict)]:
        raise ImportRefused(Problem(found, "is no object") for found in wrong)
    return {(*place, key): part for key, part in zip(keys, parts, strict=True)}


def _text(value: Any) -> Any:
    """Tools number their nodes; a definition names its steps."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _step(node: Document) -> Document:
    data = node["data"] if isinstance(node.get("data"), dict) else {}
    step = {name: value for name in FIELDS if (value := node.get(name, data.get(name))) is not None}
    name = _text(node.get("id", data.get("id")))
    told = facts_of(node, TAKEN if data else {*TAKEN} - {"data"})
    inner = {f"data.{key}": value for key, value in facts_of(data, {*FIELDS, *(() if "id" in node else ("id",))}).items()}
    ours = node[OURS].get("metadata", {}) if isinstance(node.get(OURS), dict) else {}
    return {"component": name, **step, "name": name, "metadata": {**told, **inner, **ours}}


def _edge(link: Document) -> Document:
    data = link["data"] if isinstance(link.get("data"), dict) else {}
    seen = {**data, **link}
    label = seen.get("label") if not isinstance(seen.get("data"), str) else seen["data"]
    return {
        "source": _text(seen.get("source", seen.get("from"))), "target": _text(seen.get("target", seen.get("to"))),
        "condition": seen.get("condition"), "loop": seen.get("loop") is True,
        "data": label if isinstance(label, str) and 0 < len(label) <= 128 else None,
    }  # fmt: skip


# -- the way back -----------------------------------------------------------------------------------------------------


def export_custom(definition: ChainDefinition) -> Document:
    """Return a definition as nodes and edges, in normal form."""
    flow = canonical(definition)
    head = head_of(flow, "custom")
    if "metadata" in head:
        head["metadata"] = fields_of(flow.metadata)
    nodes = list(map(_node, flow.steps))
    document: Document = {"name": flow.name, **head, "nodes": nodes, "edges": list(map(_link, flow.edges or ()))}
    for step, derived, node in zip(flow.steps, import_custom(document, flow.name).steps, nodes, strict=True):
        if facts := kept_facts(step, derived):
            node[OURS] = {"metadata": facts}
    return document


def _node(step: ChainStep) -> Document:
    inner = {key.removeprefix("data."): value for key, value in step.metadata.items() if key.startswith("data.")}
    data = {key: value for key, value in fields_of(inner).items() if key not in ("id", *FIELDS)}
    own = {key: value for key, value in fields_of(step.metadata).items() if key not in TAKEN and not key.startswith("data.")}
    fields: Document = {"component": step.component} if step.component != step.name else {}
    if step.optional:
        fields["optional"] = True
    return {"id": step.name, **fields, **promises_of(step), **own, **({"data": data} if data else {})}


def _link(edge: FlowEdge) -> Document:
    link: Document = {"source": edge.source, "target": edge.target}
    if edge.condition is not None:
        link["condition"] = edge.condition
    if edge.data is not None:
        link["label"] = edge.data
    return {**link, "loop": True} if edge.loop else link
