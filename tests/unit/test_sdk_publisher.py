"""The SDK never raises into, blocks or loses count in its host, whatever its channel does."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

import flowchain
from flowchain import Counts, FileChannel, KafkaChannel, MemoryChannel, Publisher
from flowchain.channels import Encoded

MOCK = {"bootstrap.servers": "ignored:1", "test.mock.num.brokers": 1}
UNREACHABLE = {"bootstrap.servers": "127.0.0.1:9"}


class Broken:
    """A channel whose every method may fail."""

    def __init__(self, fails: set[str]) -> None:
        self._fails = fails

    def _maybe(self, method: str) -> None:
        if method in self._fails:
            raise OSError(f"{method} fails")

    def send(self, events: list[Encoded]) -> list[Encoded]:
        self._maybe("send")
        return []

    def poll(self, timeout_s: float) -> None:
        self._maybe("poll")

    def close(self, timeout_s: float) -> int:
        self._maybe("close")
        return 0


class Full:
    """A channel without room until `room` is set."""

    def __init__(self, counts: Counts, room: threading.Event) -> None:
        self._counts = counts
        self._room = room
        self.events: list[Encoded] = []

    def send(self, events: list[Encoded]) -> list[Encoded]:
        if not self._room.is_set():
            return events
        self.events.extend(events)
        self._counts.delivered(len(events))
        return []

    def poll(self, timeout_s: float) -> None:
        self._room.wait(timeout_s)

    def close(self, timeout_s: float) -> int:
        return 0


def publish(publisher: Publisher, events: int) -> None:
    for number in range(events):
        publisher.publish(b"k%d" % number, b"%d" % number)


def test_events_arrive_in_order() -> None:
    kept: list[Encoded] = []
    publisher = Publisher(lambda counts: MemoryChannel(counts, kept))
    publish(publisher, 1000)
    assert publisher.flush(5.0)
    assert [int(value) for _, value in kept] == list(range(1000))
    assert publisher.stats() == flowchain.Stats(1000, 1000, 0, {})
    assert publisher.close(5.0)


def test_a_full_queue_drops_the_oldest_and_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    room = threading.Event()
    channels: list[Full] = []

    def make(counts: Counts) -> Full:
        channels.append(Full(counts, room))
        return channels[-1]

    publisher = Publisher(make, queue_size=100)
    with caplog.at_level(logging.WARNING, "flowchain"):
        publish(publisher, 1000)
    room.set()
    assert publisher.flush(5.0)
    stats = publisher.stats()
    assert stats.published == 1000 and stats.delivered + stats.dropped["queue_full"] == 1000
    # The thread may have held a chunk while the queue overflowed.
    assert 100 <= stats.delivered <= 164
    assert channels[0].events[-1] == (b"k999", b"999")
    assert sum("queue_full" in record.message for record in caplog.records) == 1
    assert publisher.close(5.0)


@pytest.mark.parametrize("method", ["send", "poll", "close"])
def test_a_channel_that_raises_costs_events_but_no_error(method: str) -> None:
    publisher = Publisher(lambda counts: Broken({method}))
    publish(publisher, 200)
    publisher.flush(0.1)
    publisher.close(1.0)
    if method == "send":
        assert publisher.stats().dropped == {"channel_error": 200}


def test_a_channel_that_cannot_be_made_costs_events_but_no_error() -> None:
    def make(counts: Counts) -> flowchain.Channel:
        raise OSError("no such thing")

    publisher = Publisher(make)
    publish(publisher, 50)
    assert publisher.flush(5.0)
    assert publisher.stats().dropped == {"channel_not_opened": 50}
    publisher.close(1.0)


def test_a_wrong_kafka_setting_is_told_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    flowchain.init("shop", "ignored:1", no_such_setting="x")
    with flowchain.execution("order"):
        pass
    flowchain.shutdown(2.0)
    assert "no.such.setting" in caplog.text


def test_a_publisher_that_raises_does_not_reach_the_host() -> None:
    class Raising:
        counts = Counts()

        def publish(self, key: bytes, value: bytes) -> None:
            raise MemoryError("nothing left")

    outlet = Raising()
    tracker = flowchain.Tracker("shop", outlet)
    with flowchain.Execution(tracker, "order", {}), flowchain.Step(tracker, "validate"):
        pass
    assert outlet.counts.snapshot() == (0, {"publish_error": 4})


def test_a_clock_that_raises_does_not_reach_the_host() -> None:
    class Stopped:
        def now_us(self) -> int:
            raise OSError("no clock")

        elapsed_us = now_us

    kept: list[Encoded] = []
    publisher = Publisher(lambda counts: MemoryChannel(counts, kept))
    tracker = flowchain.Tracker("shop", publisher, Stopped())
    done = []
    with flowchain.Execution(tracker, "order", {"execution": "e1"}), flowchain.Step(tracker, "validate"):
        done.append(True)
    assert done and publisher.counts.snapshot()[1]["internal_error"] >= 1


def test_a_broken_str_of_the_host_s_error_is_no_error_of_ours() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("cannot say")

    kept: list[Encoded] = []
    flowchain.init("shop", channel=lambda counts: MemoryChannel(counts, kept))
    with pytest.raises(Odd), flowchain.execution("order"):
        raise Odd
    flowchain.shutdown(5.0)
    assert orjson.loads(kept[-1][1])["error_type"] == "Odd"


def test_an_unreachable_broker_is_neither_waited_for_nor_an_error() -> None:
    publisher = Publisher(lambda counts: KafkaChannel(counts, "events", UNREACHABLE), queue_size=1000)
    publish(publisher, 30_000)
    assert not publisher.flush(0.05)
    assert not publisher.close(0.2)
    stats = publisher.stats()
    assert stats.delivered == 0 and stats.lost == stats.published == 30_000


def test_what_kafka_gives_up_is_counted() -> None:
    settings = {**UNREACHABLE, "delivery.timeout.ms": 100, "linger.ms": 0}
    publisher = Publisher(lambda counts: KafkaChannel(counts, "events", settings))
    publish(publisher, 10)
    assert publisher.flush(10.0)
    assert publisher.stats().dropped == {"delivery_failed": 10}
    publisher.close(1.0)


def test_kafka_delivers_and_refuses_only_what_is_too_big() -> None:
    publisher = Publisher(lambda counts: KafkaChannel(counts, "events", MOCK))
    publish(publisher, 500)
    publisher.publish(b"big", b"x" * 2_000_000)
    publish(publisher, 500)
    assert publisher.flush(20.0)
    assert publisher.stats() == flowchain.Stats(1001, 1000, 0, {"refused": 1})
    assert publisher.close(5.0)


def test_a_full_kafka_buffer_loses_and_repeats_nothing() -> None:
    settings = {**MOCK, "queue.buffering.max.messages": 10}
    publisher = Publisher(lambda counts: KafkaChannel(counts, "events", settings))
    publish(publisher, 2000)
    assert publisher.flush(30.0)
    assert publisher.stats() == flowchain.Stats(2000, 2000, 0, {})
    assert publisher.close(5.0)


def test_a_file_gets_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    flowchain.init("shop", channel=lambda counts: FileChannel(counts, path))
    with flowchain.execution("order"), flowchain.step("validate"):
        pass
    assert flowchain.shutdown(5.0)
    assert [orjson.loads(line)["type"] for line in path.read_bytes().splitlines()] == [
        "execution.started",
        "step.started",
        "step.completed",
        "execution.completed",
    ]


def test_a_closed_publisher_begins_anew_with_the_next_event() -> None:
    kept: list[Encoded] = []
    publisher = Publisher(lambda counts: MemoryChannel(counts, kept))
    for _ in range(2):
        publish(publisher, 10)
        assert publisher.close(5.0)
    assert len(kept) == 20


def test_many_threads_lose_no_event() -> None:
    kept: list[Encoded] = []
    publisher = Publisher(lambda counts: MemoryChannel(counts, kept))
    threads = [threading.Thread(target=publish, args=(publisher, 2000)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.flush(10.0)
    assert len(kept) == 16_000 and publisher.stats().published == 16_000
    publisher.close(5.0)


def run_python(code: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=60)


INIT_FILE = """
import os, sys, flowchain
from pathlib import Path
flowchain.init("shop", channel=lambda counts: flowchain.FileChannel(counts, Path(sys.argv[1])))
"""


def test_events_are_flushed_at_exit(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    run_python(INIT_FILE + "with flowchain.execution('order'): pass", str(path))
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_reports_by_itself_with_ids_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    forks = """
with flowchain.execution('before'): pass
for _ in range(3):
    if os.fork() == 0:
        with flowchain.execution('child'): pass
        assert flowchain.stats().published == 2
        os._exit(0 if flowchain.shutdown(5.0) else 1)
assert [os.wait()[1] for _ in range(3)] == [0, 0, 0]
with flowchain.execution('after'): pass
"""
    run_python(INIT_FILE + forks, str(path))
    events = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert sorted(event["chain"] for event in events) == ["after"] * 2 + ["before"] * 2 + ["child"] * 6
    assert len({event["execution"] for event in events}) == 5


def test_the_package_needs_nothing_of_the_pipeline() -> None:
    code = (
        "import sys, flowchain\n"
        "ours = {'schemas', 'streams', 'connectors', 'agents', 'infra', 'pydantic', 'msgspec'}\n"
        "sys.exit(bool(ours & {name.split('.')[0] for name in sys.modules}))"
    )
    run_python(code)


def test_the_helper_reads_a_kafka_message() -> None:
    class Message:
        topic: Callable[[], str] = staticmethod(lambda: "orders")
        partition: Callable[[], int] = staticmethod(lambda: 2)
        offset: Callable[[], int] = staticmethod(lambda: 9)
        timestamp: Callable[[], tuple[int, int]] = staticmethod(lambda: (1, 1_000))
        headers: Callable[[], None] = staticmethod(lambda: None)

    consumed = flowchain.consumed(Message())
    assert consumed[:3] == ("orders", 2, 9) and consumed.broker_us > 0


def test_what_reports_in_the_middle_of_a_report_does_not_wait_for_itself() -> None:
    """A signal handler, or a finalizer that closes a generator, may run while the host's thread holds one of our locks."""
    kept: list[Encoded] = []
    flowchain.init("shop", channel=lambda counts: MemoryChannel(counts, kept), sample_rate=0.5)
    publisher, sampler = flowchain._publisher, flowchain._tracker.sampler
    assert isinstance(publisher, Publisher) and sampler is not None
    with publisher._room, publisher._lock, publisher.counts._lock, sampler._lock, flowchain.execution("order"):
        flowchain._tracker.guard("no_reason", "")
    assert flowchain.shutdown(5.0) is True and len(kept) == 2
