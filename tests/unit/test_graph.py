"""The dependency graph."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.internal import EdgeDelta
from streams.graph import Graph, GraphSettings

HOUR = 3_600_000_000


def edge(kind: str, source: str, target: str, topic: str = "", at: int = 0, count: int = 1, chain: str = "c") -> EdgeDelta:
    return EdgeDelta("t", chain, kind, source, target, topic, at, count, 0, 1_000 * count, 1_000)


def graph(*edges: EdgeDelta, **settings: int) -> Graph:
    found = Graph(GraphSettings(**settings))
    for item in edges:
        found.observe(item)
    return found


def test_neighbours_and_topics() -> None:
    found = graph(edge("call", "a", "b"), edge("topic", "b", "c", "orders"), edge("flow", "c", "d"))
    assert (found.callees("a"), found.callers("b")) == (["b"], ["a"])
    assert (found.predecessors("c", "c"), found.predecessors("d")) == (["b"], ["c"])
    assert found.predecessors("d", "another chain") == []
    assert found.nodes() == ["a", "b", "c", "d", "topic:orders"]


def test_illness_goes_to_callers_and_successors() -> None:
    found = graph(edge("call", "a", "b"), edge("topic", "b", "c", "orders"))
    assert [name for name, _ in found.hurt_by("b")] == ["topic:orders", "a"]
    assert [name for name, _ in found.hurt_by("topic:orders")] == ["c"]
    assert found.distance("b", "c", 1) == 1
    assert found.distance("b", "a", 3) == 1
    assert found.distance("a", "b", 3) is None


def test_who_reads_a_topic_goes_on_with_all_who_write_to_it_in_the_same_chain() -> None:
    found = graph(edge("topic", "a", "c", "x"), edge("topic", "b", "c", "x"), edge("topic", "o", "p", "x", chain="other"))
    assert (found.predecessors("c"), found.predecessors("p")) == (["a", "b"], ["o"])


def test_declared_ends_of_a_topic_meet_whichever_chain_declares_them() -> None:
    found = graph(edge("topic", "a", "", "x", count=0), edge("topic", "", "b", "x", count=0, chain="other"))
    assert found.distance("a", "b", 3) == 1
    assert found.predecessors("b") == []  # of no common chain


def test_counts_decay_by_half_life() -> None:
    found = graph(edge("call", "a", "b", at=HOUR, count=8), edge("call", "a", "b", at=2 * HOUR, count=1))
    assert found.outgoing("a")[0].count == pytest.approx(5)
    assert found.outgoing("a")[0].latency_us == pytest.approx(1_000)


@given(st.permutations([edge("call", "a", "b", at=n * HOUR, count=n + 1) for n in range(4)]))
def test_order_of_deltas_does_not_matter(deltas: list[EdgeDelta]) -> None:
    item = graph(*deltas).outgoing("a")[0]
    assert item.count == pytest.approx(4 + 3 / 2 + 2 / 4 + 1 / 8)
    assert (item.first_us, item.last_us) == (0, 3 * HOUR)


def test_all_that_suffers_is_found_also_in_a_circle() -> None:
    found = graph(edge("call", "a", "b"), edge("topic", "b", "c", "x"), edge("flow", "c", "a"), edge("call", "c", "d"))
    assert found.hurt_with("b") == {"a", "b", "c", "topic:x"}
    assert found.hurt_with("d") == {"a", "c", "d"}


def test_edge_not_seen_for_longest_is_forgotten() -> None:
    found = graph(*(edge("call", f"s{n}", "b", at=n) for n in range(5)), max_edges=3)
    assert found.callers("b") == ["s2", "s3", "s4"]
    assert dict(found.changes())["s0"] is None


def test_at_the_limit_an_eighth_goes_so_that_not_every_new_edge_looks_at_all() -> None:
    reached: Counter[str] = Counter()
    found = Graph(GraphSettings(max_edges=80), reached)
    sizes = set()
    for number in range(300):
        found.observe(edge("call", f"s{number}", "b", at=number))
        sizes.add(len(found))
    assert max(sizes) == 80
    assert reached["graph_edges_over_limit"] == 300 - len(found)
    assert found.callers("b") == sorted(f"s{number}" for number in range(300 - len(found), 300))


def test_restored_graph_is_the_same() -> None:
    found = graph(edge("call", "a", "b"), edge("flow", "a", "c"))
    copy = Graph()
    for _, edges in found.changes():
        copy.restore(edges or [])
    assert copy.outgoing("a") == found.outgoing("a")
    assert copy.callers("b") == ["a"]
    assert list(found.changes()) == []
