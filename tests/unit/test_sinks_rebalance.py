"""A write that ends after its partition was taken away says nothing about what the partition's next owner has read."""

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from agents.analysis import AnalysisWorker
from agents.sinks import SinkAgent
from agents.steady import SteadyConsumer
from connectors.clickhouse import Resume
from connectors.settings import Settings
from connectors.stores import Binding
from connectors.telemetry import Health
from schemas.topics import TRACES

PARTITION = TP("flowchain.traces.v1", 0)


class SlowStore:
    """Writes when it is let."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.written: list[tuple[int, int]] = []

    def resume(self, topic: str, partition: int) -> Resume:
        return Resume(None)

    def write(self, topic: str, partition: int, first: int, last: int, records: Any) -> None:
        self.begun.set()
        assert self.go_on.wait(30)
        self.written.append((first, last))


def an_app() -> Any:
    return SimpleNamespace(consumer_generation_id=1, consumer=SimpleNamespace(highwater=lambda tp: 1))


def a_sink(store: SlowStore, app: Any, **settings: Any) -> SinkAgent:
    binding = Binding(TRACES, "slow", lambda value: None, lambda settings, stop: store)  # type: ignore[arg-type,return-value]
    return SinkAgent(binding, Settings(**settings), app, Health("sinks"))


def an_event(app: Any, offset: int, ack: Callable[[], None] = lambda: None) -> Any:
    """What the app's current assignment delivers."""
    message = SimpleNamespace(generation_id=app.consumer_generation_id, partition=0, offset=offset, tp=PARTITION, value=b"")
    return SimpleNamespace(message=message, ack=ack)


def test_block_that_is_stored_after_it_was_dropped_is_not_acknowledged() -> None:
    store = SlowStore()
    app = an_app()
    agent = a_sink(store, app, sink_rows=1)
    acknowledged: list[int] = []

    def event(offset: int) -> Any:
        return an_event(app, offset, lambda: acknowledged.append(offset))

    async def rebalance() -> None:
        taking = asyncio.create_task(agent.take(event(5)))
        await asyncio.to_thread(store.begun.wait, 30)
        agent.drop()
        app.consumer_generation_id = 2
        store.go_on.set()
        await taking
        assert (store.written, acknowledged) == ([(5, 5)], [])
        await agent.take(event(5))

    asyncio.run(rebalance())
    assert (store.written, acknowledged) == ([(5, 5), (5, 5)], [5])


def test_what_stood_behind_a_dropped_block_is_not_taken_before_the_next_assignment() -> None:
    app = an_app()
    agent = a_sink(SlowStore(), app)

    async def take(offset: int) -> int:
        await agent.take(an_event(app, offset))
        return agent.waiting

    async def rebalance() -> None:
        assert [await take(5), await take(6)] == [1, 2]
        agent.drop()
        assert await take(7) == 0  # else 7 would be written, and 5 and 6 taken for written
        app.consumer_generation_id = 2
        assert await take(5) == 1

    asyncio.run(rebalance())


def test_partials_behind_dropped_ones_are_not_applied_before_the_next_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    app = an_app()
    worker = AnalysisWorker(Settings(), app)
    applied: list[int] = []

    async def load(number: int) -> Any:
        worker._partitions[number] = found = SimpleNamespace(take=lambda offset, value: applied.append(offset))
        return found

    monkeypatch.setattr(worker, "_load", load)

    async def rebalance() -> None:
        await worker.take(an_event(app, 5))
        await worker.drop()
        await worker.take(an_event(app, 6))
        app.consumer_generation_id = 2
        await worker.take(an_event(app, 5))

    asyncio.run(rebalance())
    assert applied == [5, 5]


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> SteadyConsumer:
    monkeypatch.setattr(driver.Consumer, "ack", lambda self, message: True)
    made = SteadyConsumer.__new__(SteadyConsumer)
    made.app = SimpleNamespace(consumer_generation_id=2)
    return made


def test_only_what_this_assignment_has_delivered_counts_as_done(consumer: SteadyConsumer) -> None:
    assert [consumer.ack(SimpleNamespace(generation_id=number)) for number in (1, 2)] == [False, True]


def test_end_of_a_partition_that_was_taken_away_is_unknown(consumer: SteadyConsumer) -> None:
    def highwater(tp: TP) -> int:
        assert tp != PARTITION, "Partition is not assigned"
        return 7

    consumer._thread = SimpleNamespace(highwater=highwater)
    assert [consumer.highwater(tp) for tp in (PARTITION, TP("t", 1))] == [None, 7]
