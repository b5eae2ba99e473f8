"""What a component's trouble would do, and whose trouble would reach it."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.internal import EdgeDelta
from streams.graph import Graph
from streams.impact.reach import downstream, upstream
from streams.impact.settings import ImpactSettings

FAR = ImpactSettings(blast_hops=10, min_hurt_probability=0.0)


def graph(*edges: tuple[str, str, str, str]) -> Graph:
    found = Graph()
    for kind, source, target, topic in edges:
        found.observe(EdgeDelta("t", "c", kind, source, target, topic, 1, 10, 0, 20_000, 2_000))
    return found


def test_callers_and_readers_are_downstream_callees_and_writers_upstream() -> None:
    shop = graph(("call", "web", "orders", ""), ("topic", "orders", "billing", "placed"), ("flow", "billing", "mail", ""))
    below = {x.name: (x.kind, x.hops, x.path) for x in downstream(shop, "orders", FAR)}
    assert below == {
        "web": ("component", 1, ["orders", "web"]), "placed": ("topic", 0, ["orders", "topic:placed"]),
        "billing": ("component", 1, ["orders", "topic:placed", "billing"]), "mail": ("component", 2, ["orders", "topic:placed", "billing", "mail"]),
    }  # fmt: skip
    above = {x.name: x.path for x in upstream(shop, "billing", FAR)}
    assert above["orders"] == ["orders", "topic:placed", "billing"] and "web" not in above
    assert downstream(shop, "nobody", FAR) == []


@given(st.lists(st.tuples(st.sampled_from(("call", "flow")), st.sampled_from("abcd"), st.sampled_from("abcd"), st.just("")), max_size=10), st.sampled_from("abcd"))
def test_both_directions_tell_the_same(edges: list[tuple[str, str, str, str]], victim: str) -> None:
    """Whoever is upstream of a component has it downstream, at the same probability."""
    found = graph(*edges)
    for cause in upstream(found, victim, FAR):
        back = next(x for x in downstream(found, cause.name, FAR) if x.name == victim)
        assert abs(back.probability - cause.probability) < 1e-3 and back.hops == cause.hops
