"""`flowchain bench middleware` measures what it says: requests that are answered, and events of those that are tracked."""

import asyncio

import pytest
from instrument_world import reporting

from infra.bench import middleware
from infra.bench.tracked_app import APPS, tracked


@pytest.mark.parametrize("name", APPS)
def test_only_tracked_requests_report(name: str) -> None:
    with reporting("bench") as reported:
        asyncio.run(middleware._serve(APPS[name](), middleware.HEADERS, 3))
        assert reported() == []
        asyncio.run(middleware._serve(tracked(name), middleware.HEADERS, 3))
        assert len(reported("execution.started")) == len(reported("execution.completed")) == 3
        assert {event["step"].split("{")[0] for event in reported("step.completed")} == {"GET /orders/"}
        asyncio.run(middleware._serve(tracked(name), middleware.HEADERS | middleware.CARRIED, 3))
        assert len(reported("execution")) == 6
        assert [event["parents"][0]["component"] for event in reported("step.started")[3:]] == ["gate"] * 3


def test_figures_are_medians_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "ROUNDS", 3)
    with reporting("bench"):
        found = asyncio.run(middleware._compare("bare", 20, lambda *_: None))
    assert set(found) == {"plain", "begins", "continues", "dropped"}
    assert found["plain"]["overhead_us"] == 0 and found["dropped"] == {}
