"""What the edges of the pipeline hold: entries larger than a message, requests, questions, the SDK's queue."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from agents import ingest_progress, pieces
from agents.ingest_progress import ProgressDesk
from agents.pieces import Pieces
from connectors.settings import Settings
from connectors.telemetry import Health, serve
from flowchain import MemoryChannel, Publisher, Tracker
from schemas.definitions import ChainDefinition, ChainStep
from streams.progress import Typical
from streams.rules import RuleBook


def reached(bound: str) -> float:
    return REGISTRY.get_sample_value("flowchain_limit_reached_total", {"bound": bound}) or 0.0


@given(st.lists(st.dictionaries(st.sampled_from([b"a", b"b"]), st.none() | st.binary(max_size=40)), max_size=6), st.integers(0, 6))
def test_entries_in_pieces_are_read_back_whole_after_any_change(changes: list[dict[bytes, bytes | None]], restart: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", 7)
        topic: dict[bytes, bytes] = {}
        wanted: dict[bytes, bytes] = {}
        cutter = Pieces()
        for number, change in enumerate(changes):
            if number == restart:
                cutter = Pieces()
                cutter.join(topic)
            for key, value in change.items():
                for name, piece in cutter.cut(key, value):
                    assert piece is None or len(piece) <= 7
                    if piece is None:
                        topic.pop(name, None)
                    else:
                        topic[name] = piece
                wanted = {name: held for name, held in {**wanted, key: value}.items() if held is not None}
        assert Pieces().join(topic) == wanted


@pytest.fixture
def asked() -> Iterator[tuple[int, threading.Event, threading.Event]]:
    """A server that answers one request at a time: (port, one has begun, it may go on)."""
    begun, go_on = threading.Event(), threading.Event()

    def ask(tenant: str, execution: str) -> None:
        begun.set()
        go_on.wait(10)

    server = serve(Health("test"), Settings(http_requests=1), ask)
    yield server.server_address[1], begun, go_on
    go_on.set()
    server.shutdown()
    server.server_close()


def test_more_requests_than_are_answered_at_a_time_are_refused_at_once(asked: tuple[int, threading.Event, threading.Event]) -> None:
    port, begun, go_on = asked
    before = reached("requests_over_limit")
    first = threading.Thread(target=lambda: httpx.get(f"http://127.0.0.1:{port}/executions/t/e", timeout=10))
    first.start()
    assert begun.wait(10)
    refused = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10)
    assert (refused.status_code, "http_requests" in refused.json()["detail"]) == (503, True)
    go_on.set()
    first.join(10)
    assert reached("requests_over_limit") == before + 1


def test_questions_that_nobody_answers_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_progress, "WAIT_S", 0.001)
    monkeypatch.setattr(ingest_progress, "MAX_QUESTIONS", 3)
    desk, before = ProgressDesk({}), reached("questions_over_limit")
    for _ in range(5):
        with pytest.raises(TimeoutError):
            desk.ask("t", "e")
    assert len(desk._questions) == 3
    assert reached("questions_over_limit") == before + 2


def test_typical_durations_are_those_of_so_many_chains() -> None:
    typical = Typical(max_chains=3)
    for number in range(10):
        typical.learn("t", f"c{number}", number)
    assert [typical.find("t", f"c{number}") for number in (6, 7, 9)] == [None, 7, 9]


@given(st.permutations([(chain, tenant) for chain in "abc" for tenant in (None, "t")]))
def test_definitions_beyond_the_limit_are_the_same_whatever_the_order(order: list[tuple[str, str | None]]) -> None:
    step = ChainStep(name="s", component="x")
    rules = RuleBook([ChainDefinition(name=chain, tenant=tenant, steps=(step,)) for chain, tenant in order], limit=3)
    assert (len(rules), rules.refused) == (3, 3)
    assert [rules.find("t", chain, 0) is not None for chain in "abc"] == [True, True, False]
    assert rules.find("u", "b", 0) is not None


class Stuck(MemoryChannel):
    """Takes nothing."""

    def send(self, events: list[Any]) -> list[Any]:
        return events


def test_the_queue_of_the_sdk_is_bounded_by_bytes() -> None:
    publisher = Publisher(lambda counts: Stuck(counts, []), queue_size=1_000, queue_bytes=10_000)
    for _ in range(200):
        publisher.publish(b"k", b"x" * 1_000)
    stats = publisher.stats()
    held = len(publisher._queue)
    assert held <= 10 + 64  # and the chunk that is on its way
    assert stats.dropped["queue_full"] >= 200 - held - 64
    publisher.close(0.1)
    assert publisher._bytes == sum(len(value) for _, value in publisher._queue)


def test_an_event_that_the_pipeline_would_refuse_for_its_size_is_not_sent() -> None:
    events: list[Any] = []
    publisher = Publisher(lambda counts: MemoryChannel(counts, events))
    tracker = Tracker("service", publisher)
    tracker.execution_started(tracker.new_flow("c"), attributes={f"a{n}": "x" * 20_000 for n in range(32)})
    tracker.execution_started(tracker.new_flow("c"))
    assert publisher.close(5.0)
    assert (len(events), publisher.stats().dropped) == (1, {"oversize": 1})
