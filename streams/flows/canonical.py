"""The canonical form of a definition, and its content address: the same contract, however written, has the same id."""

from collections.abc import Iterable
from hashlib import sha256
from heapq import heapify, heappop, heappush
from typing import TypeGuard

import orjson

from schemas.definitions import ChainDefinition, Fact, Facts, FlowEdge, order
from schemas.order import successors


def canonical(definition: ChainDefinition) -> ChainDefinition:
    """Return a definition with its order as sorted edges, and its steps so that each comes after those before it.

    Steps that have no order between them stand by name; so do required flows. A whole number among the facts is an int.
    """
    edges = sorted(order(definition), key=edge_key)
    steps = {step.name: step for step in definition.steps}
    placed = [
        steps[name].model_copy(update={"after": None, "metadata": _facts(steps[name].metadata)})
        for name in placed_names(steps, edges)
    ]
    return definition.model_copy(
        update={
            "steps": tuple(placed),
            "edges": tuple(edges),
            "requires": tuple(sorted(definition.requires)),
            "metadata": _facts(definition.metadata),
        }
    )


def edge_key(edge: FlowEdge) -> tuple[str, str, bool, str]:
    """Return what edges are sorted by."""
    return edge.source, edge.target, edge.condition is not None, edge.condition or ""


def placed_names(names: Iterable[str], edges: Iterable[FlowEdge]) -> list[str]:
    """Return names in the order that the edges give them, by name where they give none."""
    arrows = {(edge.source, edge.target) for edge in edges if not edge.loop}
    after = successors(arrows)
    waits = dict.fromkeys(names, 0)
    for _, target in arrows:
        waits[target] += 1
    free = [name for name, count in waits.items() if not count]
    heapify(free)
    placed: list[str] = []
    while free:
        name = heappop(free)
        placed.append(name)
        for target in after.get(name, ()):
            waits[target] -= 1
            if not waits[target]:
                heappush(free, target)
    return placed


def _facts(facts: Facts) -> dict[str, Fact]:
    """Databases that know one kind of number only give 2.0 back as 2."""
    return {name: int(value) if _is_whole(value) else value for name, value in sorted(facts.items())}


def _is_whole(value: Fact) -> TypeGuard[float]:
    return isinstance(value, float) and value.is_integer() and abs(value) < 2**63


def content(definition: ChainDefinition) -> bytes:
    """Return the canonical form as JSON: sorted keys, without what has its default, so that a new field changes no id."""
    document = canonical(definition).model_dump(mode="json", exclude_defaults=True)
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def content_id(definition: ChainDefinition) -> str:
    """Return the content address of a definition."""
    return f"sha256:{sha256(content(definition)).hexdigest()[:32]}"
