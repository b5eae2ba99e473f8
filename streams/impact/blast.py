"""Who else is or will be hurt: the way of a fault from its suspect along the dependency graph.

A caller suffers by what it waits for, a successor by what never arrives, a topic by what nobody writes to it or reads from
it, a chain by a component that it passes through. The probability of a path is the product over its edges of
`SPREAD * sqrt(share)`, share = how much of the victim's work goes over the edge; the best path counts (Dijkstra on -ln p).
A topic only hands on what it lacks: from it on the share alone counts. A path names the topics that it passes.
It is a rule of thumb with the right order; calibration is a stage of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from math import sqrt

from msgspec import Struct

from schemas.analysis import Hurt
from streams.graph import TOPIC_NODE, Edge, Graph, is_topic
from streams.impact.incident import OpenIncident
from streams.impact.settings import ImpactSettings
from streams.rootcause.memory import Memory

SPREAD = 0.9
"""Chance that a fault gets over an edge that all of the victim's work goes over."""


DECLARED_SHARE = 0.25
"""Of an edge that a definition declares and nobody has seen."""


class Place(Struct, frozen=True):
    """Where a fault gets to: how probably, how long after, over which nodes."""

    probability: float
    delay_us: float
    path: tuple[str, ...]


def blast_radius(
    state: OpenIncident, suspect: str, graph: Graph, memory: Memory, settings: ImpactSettings
) -> list[Hurt]:
    """Return what is or will be hurt, most likely first."""
    places = spread(suspect, graph, settings)
    seen = {item.component: item.first_us for item in sorted(state.faulty, key=lambda item: -item.first_us)}
    found = [_node(state, name, place, seen) for name, place in places.items() if name != suspect]
    found += [_unforeseen(name, first) for name, first in seen.items() if name and name not in places]
    found += _unread(state, suspect, places, graph)
    found += _chains(state, suspect, places, memory)
    likely = [hurt for hurt in found if hurt.probability >= settings.min_hurt_probability]
    likely.sort(key=lambda hurt: (not hurt.observed, -hurt.probability, hurt.hops, hurt.kind, hurt.name))
    return likely[: settings.max_hurt]


def spread(suspect: str, graph: Graph, settings: ImpactSettings) -> dict[str, Place]:
    """Return the most probable path to each component and topic that suffers when the suspect is ill."""

    def victims(name: str) -> Iterator[Next]:
        for victim, edge in graph.hurt_by(name):
            yield victim, _chance(graph, name, victim, edge), edge.latency_us

    return best_paths(suspect, victims, settings)


def causes(victim: str, graph: Graph, settings: ImpactSettings) -> dict[str, Place]:
    """Return the most probable path to each component and topic by whose illness the victim suffers; paths begin at the victim."""

    def sources(name: str) -> Iterator[Next]:
        for cause, edge in graph.hurting(name):
            yield cause, _chance(graph, cause, name, edge), edge.latency_us

    return best_paths(victim, sources, settings)


Next = tuple[str, float, float]
"""(node, chance that a fault gets over the edge to it, latency of the edge in µs)"""


def best_paths(start: str, ahead: Callable[[str], Iterable[Next]], settings: ImpactSettings) -> dict[str, Place]:
    """Return the most probable path to each node: Dijkstra on -ln p."""
    done: dict[str, Place] = {}
    todo: list[tuple[float, str, float, tuple[str, ...]]] = [(-1.0, start, 0.0, (start,))]
    while todo:
        minus, name, delay, path = heappop(todo)
        if name in done:
            continue
        done[name] = Place(-minus, delay, path)
        if hops(path) >= settings.blast_hops:
            continue
        for following, chance, latency_us in ahead(name):
            probability = -minus * chance
            if following not in done and probability >= settings.min_hurt_probability:
                heappush(todo, (-probability, following, delay + latency_us, (*path, following)))
    return done


def _chance(graph: Graph, cause: str, victim: str, edge: Edge) -> float:
    return (1.0 if is_topic(cause) else SPREAD) * sqrt(_share(graph, victim, edge))


def _share(graph: Graph, victim: str, edge: Edge) -> float:
    """Return how much of the victim's work goes over an edge, against its busiest edge."""
    if not edge.count:
        return DECLARED_SHARE
    busiest = max(other.count for other in (*graph.incoming(victim), *graph.outgoing(victim)))
    return min(1.0, edge.count / busiest)


def hops(path: tuple[str, ...]) -> int:
    """Return how many dependencies between components a path has."""
    return sum(not is_topic(node) for node in path) - 1


def _node(state: OpenIncident, name: str, place: Place, seen: dict[str, int]) -> Hurt:
    observed = name in seen
    arrival = seen[name] if observed else state.first_us + round(place.delay_us)
    kind = "topic" if is_topic(name) else "component"
    return _hurt(kind, name, 1.0 if observed else place.probability, observed, arrival, place.path)


def _unforeseen(name: str, first_us: int) -> Hurt:
    """Return a component in trouble that no known path leads to."""
    return _hurt("component", name, 1.0, True, first_us, (name,))


def _unread(state: OpenIncident, suspect: str, places: dict[str, Place], graph: Graph) -> list[Hurt]:
    """Return the topics that nobody reads while the suspect is ill."""
    nodes = [edge.source for edge in graph.incoming(suspect, "topic") if edge.source not in places]
    return [_hurt("topic", node, SPREAD, False, state.first_us, (suspect, node)) for node in nodes]


def _chains(state: OpenIncident, suspect: str, places: dict[str, Place], memory: Memory) -> list[Hurt]:
    """Return the chains that pass through the suspect; those in trouble are observed."""
    hurt = {
        chain: min(item.first_us for item in state.faulty if item.chain == chain) for chain in state.chains()
    }
    found = [_hurt("chain", chain, 1.0, True, first, (suspect, chain)) for chain, first in hurt.items()]
    passing = {chain for chain, _ in memory.components[suspect].contexts()} if suspect in memory.components else set()
    for chain in sorted(passing - hurt.keys() - {""}):
        found.append(_hurt("chain", chain, SPREAD, False, state.first_us, (suspect, chain)))
    return found


def _hurt(kind: str, name: str, probability: float, observed: bool, arrival_us: int, path: tuple[str, ...]) -> Hurt:
    """Return one entry; without a suspect its place at the beginning of the path is empty, and left out."""
    nodes = [node.removeprefix(TOPIC_NODE)[:128] for node in path if node]
    return Hurt.model_validate(
        {
            "kind": kind,
            "name": name.removeprefix(TOPIC_NODE)[:128],
            "probability": round(probability, 4),
            "observed": observed,
            "expected_arrival_unix_us": arrival_us,
            "hops": max(0, hops(tuple(filter(None, path)))),
            "path": nodes,
        }
    )
