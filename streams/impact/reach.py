"""What a component's trouble would do, before there is any: whom it would hurt, and whose trouble would hurt it."""

from heapq import heappop, heappush
from math import sqrt

from msgspec import Struct

from streams.graph import TOPIC_NODE, Graph, is_topic
from streams.impact.blast import SPREAD, Place, hops, share, spread
from streams.impact.settings import ImpactSettings

DEFAULTS = ImpactSettings()


class Reached(Struct, frozen=True):
    """One component or topic on the way of a fault."""

    kind: str
    """component or topic"""
    name: str
    hops: int
    """Dependencies between components; topics do not count."""
    probability: float
    delay_us: int
    """Until it would be felt: the latencies of the way added up."""
    path: list[str]
    """From where the fault is to where it hurts, topics as `topic:<name>`."""


def downstream(graph: Graph, component: str, settings: ImpactSettings = DEFAULTS) -> list[Reached]:
    """Return whom the component's trouble would hurt, most probable first."""
    return _sorted(component, spread(component, graph, settings))


def upstream(graph: Graph, component: str, settings: ImpactSettings = DEFAULTS) -> list[Reached]:
    """Return whose trouble would hurt the component, most probable first; paths end at the component."""
    return _sorted(component, _causes(component, graph, settings))


def _causes(victim: str, graph: Graph, settings: ImpactSettings) -> dict[str, Place]:
    """Return the most probable path from each node to the victim: `spread` walked the other way."""
    done: dict[str, Place] = {}
    todo: list[tuple[float, str, float, tuple[str, ...]]] = [(-1.0, victim, 0.0, (victim,))]
    while todo:
        minus, name, delay, path = heappop(todo)
        if name in done:
            continue
        done[name] = Place(-minus, delay, path)
        if hops(path) >= settings.blast_hops:
            continue
        for cause, edge in graph.hurting(name):
            over = 1.0 if is_topic(cause) else SPREAD
            probability = -minus * over * sqrt(share(graph, name, edge))
            if cause not in done and probability >= settings.min_hurt_probability:
                heappush(todo, (-probability, cause, delay + edge.latency_us, (cause, *path)))
    return done


def _sorted(start: str, places: dict[str, Place]) -> list[Reached]:
    found = [
        Reached(
            "topic" if is_topic(name) else "component", name.removeprefix(TOPIC_NODE), hops(place.path),
            round(place.probability, 4), round(place.delay_us), list(place.path),
        )
        for name, place in places.items()
        if name != start
    ]  # fmt: skip
    return sorted(found, key=lambda x: (-x.probability, x.hops, x.kind, x.name))
