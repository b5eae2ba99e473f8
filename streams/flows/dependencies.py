"""Which components a definition lets depend on each other, and how that differs from what was seen."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from schemas.definitions import ChainDefinition
from streams.flows.canonical import canonical


@dataclass(frozen=True, order=True)
class ComponentEdge:
    """A declared edge: target works on what source left. `topic`: the type or topic that passes, "" = not declared."""

    source: str
    target: str
    topic: str = ""


def declared_edges(definition: ChainDefinition) -> list[ComponentEdge]:
    """Return the edges between different components that a definition declares, loops included, sorted."""
    steps = {step.name: step for step in definition.steps}
    found = set()
    for edge in canonical(definition).edges or ():
        source, target = steps[edge.source], steps[edge.target]
        passed = edge.data or (source.output if source.output == target.input else None)
        if source.component != target.component:
            found.add(ComponentEdge(source.component, target.component, passed or ""))
    return sorted(found)


@dataclass(frozen=True)
class SeenEdge:
    """An observed edge of a chain; times in µs since 1970 UTC."""

    kind: Literal["call", "flow", "topic"]
    source: str
    target: str
    topic: str = ""
    events: int = 0
    first_unix_us: int = 0
    last_unix_us: int = 0


@dataclass(frozen=True)
class Drift:
    """One disagreement between a definition and what was seen of its chain."""

    what: Literal["undeclared", "never seen"]
    source: str
    target: str
    topic: str = ""
    kind: str = ""
    """Of an observed edge: call, flow or topic."""
    events: int = 0
    first_unix_us: int = 0
    last_unix_us: int = 0


def drift(definition: ChainDefinition, seen: Iterable[SeenEdge]) -> list[Drift]:
    """Return the edges that were seen and are not declared, and those that are declared and were never seen.

    A definition orders steps, it does not say who calls whom: a call between two components of the chain is no drift. Nor
    is what comes from outside of the chain through a topic that a step of the component declares as its input.
    """
    observed = list(seen)
    declared = {(edge.source, edge.target): edge for edge in declared_edges(definition)}
    members = {step.component for step in definition.steps}
    inputs = {(step.component, step.input) for step in definition.steps if step.input}
    undeclared = [
        Drift("undeclared", edge.source, edge.target, edge.topic, edge.kind, edge.events, edge.first_unix_us, edge.last_unix_us)
        for edge in observed
        if edge.source != edge.target
        and (edge.source, edge.target) not in declared
        and not (edge.kind == "call" and {edge.source, edge.target} <= members)
        and (edge.target, edge.topic) not in inputs
    ]
    known = {(edge.source, edge.target) for edge in observed}
    unseen = [Drift("never seen", edge.source, edge.target, edge.topic) for pair, edge in declared.items() if pair not in known]
    return sorted(undeclared, key=lambda found: (found.source, found.target, found.kind)) + unseen
