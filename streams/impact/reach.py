"""What a component's trouble would do, before there is any: whom it would hurt, and whose trouble would hurt it."""

from msgspec import Struct

from streams.graph import TOPIC_NODE, Graph, is_topic
from streams.impact.blast import Place, causes, hops, spread
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
    places = causes(component, graph, settings)
    return _sorted(component, {name: Place(x.probability, x.delay_us, x.path[::-1]) for name, x in places.items()})


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
