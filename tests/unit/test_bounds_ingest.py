"""What ingest holds stays within its limits, also what nobody looks at: timers, the order of opening."""

from typing import Any

import pytest
from test_tracker import Feed, S, T, ended, event, failed

from streams import lifecycle


def finish(number: int) -> dict[str, Any]:
    return event("execution.failed", number, f"e{number}", error_type="E")


def test_what_is_forgotten_is_not_held_by_its_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "SPARE", 10)
    feed = Feed(max_finished=5, idle_us=3_600 * S, linger_us=3_600 * S)
    for number in range(400):
        feed.send(finish(number)).take()
    assert len(feed.tracker.executions) == 5
    assert len(feed.tracker._life.timers) <= 2 * 5 + 10
    assert len(feed.tracker._life._opened) <= 10


def test_counted_when_finished_ones_are_forgotten_early() -> None:
    out = Feed(max_finished=2).send(*map(finish, range(5))).take()
    assert out.counts["finished_over_limit"] == 3


def test_the_oldest_is_found_without_a_look_at_all_that_are_remembered() -> None:
    """Such a look took 7 ms per event at 40,000 executions."""
    looks: list[int] = []

    class Counting(dict[Any, Any]):
        def values(self) -> Any:
            looks.append(len(self))
            return super().values()

    feed = Feed(max_open=3, max_finished=1_000)
    feed.tracker._life.executions = Counting()
    feed.send(*(ended("a", number, execution=f"e{number}") for number in range(500)))
    assert (feed.tracker.open_executions, looks) == (3, [])


def test_texts_and_parents_of_an_execution_are_kept_up_to_a_sum() -> None:
    feed = Feed(max_evidence=600)
    parents = [{"span": f"p{number}"} for number in range(5)]
    step = {**ended("a", 10), "parents": parents}
    message = {**failed("b", 20), "error_message": "m" * 80}
    lines = [
        {"type": "log.observed", "component": "A", "level": "info", "template": f"{number}" * 5, "span": "a#1", "execution": "e",
         "time_unix_us": T + number} for number in range(4)
    ]  # fmt: skip
    out = feed.send(step, message, *lines).take()
    (execution,) = feed.tracker.executions
    assert len(execution.steps["a#1"].parents) == 3
    assert (execution.steps["b#1"].error_message, execution.steps["a#1"].logs) == ("m" * 80, [])
    assert execution.evidence == 2 * 256 + 80 <= 600
    assert out.counts["evidence_over_limit"] == 1 + len(lines)
    assert sum(found.events for piece in out.slices for found in piece.deltas) == 2 + len(lines)


def test_a_random_tenant_and_component_per_event_do_not_grow_what_is_booked() -> None:
    feed = Feed(max_series=3, max_open=10)
    for number in range(200):
        names = {"tenant": f"t{number}", "chain": f"c{number}", "component": f"x{number}", "execution": f"e{number}"}
        feed.send({**ended("a", number), **names})
    out = feed.take()
    booked = {(found.tenant, found.chain) for piece in out.slices for found in piece.deltas}
    assert len(booked) <= 3 + 3 + 1
    assert ("~overflow", "~overflow") in booked
    assert len({found.tenant for found in out.violations if found.type == "cardinality.exceeded"}) <= 3 + 1
    assert sum(found.events for piece in out.slices for found in piece.deltas) == 200
    assert len(feed.tracker.series) == 3


def test_a_random_caller_per_event_does_not_grow_the_graph() -> None:
    feed = Feed(max_series=4)
    for number in range(50):
        parents = [{"span": "elsewhere", "execution": "other", "component": f"caller{number}"}]
        feed.send({**ended("a", number, execution=f"e{number}"), "parents": parents})
        feed.send(event("execution.failed", number, f"e{number}", error_type="E"))
    out = feed.take()
    assert len({(edge.source, edge.target) for piece in out.slices for edge in piece.edges}) == 4 == len(out.new_edges)
    assert out.counts["edges_over_limit"] == 46
