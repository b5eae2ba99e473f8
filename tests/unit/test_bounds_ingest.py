"""What ingest holds stays within its limits, also what nobody looks at: timers, the order of opening."""

from typing import Any

import pytest
from test_tracker import Feed, S, ended, event

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
