"""Order, shift, speed, and delivery to Kafka (the broker that librdkafka itself brings for tests)."""

from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer
from hypothesis import given
from hypothesis import strategies as st

from connectors.spans import (
    Event,
    Options,
    SpanImportError,
    import_spans,
    load,
    publish_timeline,
    read_events,
)
from connectors.spans.events import Encoder, in_order
from connectors.spans.model import Audit, Item, LogLine, ParentRef, Sample, Span
from connectors.spans.publish import DISORDER_US, Timeline, paced
from connectors.spans.traces import collect
from schemas.events import CHAIN_EVENT

BAKERY = Path(__file__).parents[1] / "fixtures" / "spans" / "bakery"

NAMES = st.text(max_size=200)
IDS = st.sampled_from(["a", "b", "c", "d", "x" * 80])
TIMES_NS = st.integers(-1000, 10**18)
SPANS = st.builds(
    Span,
    IDS,
    IDS,
    NAMES,
    NAMES,
    TIMES_NS,
    TIMES_NS,
    st.lists(st.builds(ParentRef, IDS, st.sampled_from(["", "a", "z" * 70])), max_size=3).map(tuple),
    st.sampled_from(["", "server", "consumer", "producer"]),
    st.booleans(),
    NAMES,
    st.text(max_size=3000),
    NAMES,
    NAMES,
)
LINES = st.builds(
    LogLine,
    st.integers(-5, 10**15),
    NAMES,
    st.just("info"),
    st.just("a#1"),
    IDS | st.just(""),
    IDS | st.just(""),
)
SAMPLES = st.builds(Sample, st.integers(-5, 10**15), NAMES, NAMES, st.none() | st.floats(0, 1))


@given(st.lists(SPANS | LINES | SAMPLES, max_size=12))
def test_any_items_give_valid_events_in_time_order_and_nothing_is_lost(items: list[Item]) -> None:
    audit = Audit()
    collected = collect(items, Options(), audit)
    assert collected.items + sum(audit.skipped.values()) == len(items)
    events = list(Encoder(collected.traces, collected.options.tenant).events(in_order(collected)))
    assert len(events) == collected.items + 2 * len(collected.traces)
    assert [event.time_unix_us for event in events] == sorted(event.time_unix_us for event in events)
    open_executions: set[str] = set()
    for event in events:
        record = CHAIN_EVENT.validate_json(event.value)
        if record.type == "execution.started":
            open_executions.add(event.key)
        elif record.type.startswith("execution."):
            open_executions.remove(event.key)
        elif record.type.startswith("step."):
            assert event.key in open_executions
    assert not open_executions


def test_a_shift_moves_everything_alike() -> None:
    plain = list(read_events(BAKERY))
    begun = load(BAKERY, shift_to_us=5_000_000)
    ended = load(BAKERY, end_at_us=1_800_000_000_000_000)
    assert begun.summary.first_unix_us == 5_000_000
    assert ended.summary.last_unix_us == 1_800_000_000_000_000
    for moved in (list(begun.events()), list(ended.events())):
        assert (
            len(
                {after.time_unix_us - before.time_unix_us for before, after in zip(plain, moved, strict=True)}
            )
            == 1
        )
        for event in moved:
            assert CHAIN_EVENT.validate_json(event.value).time_unix_us == event.time_unix_us
    with pytest.raises(SpanImportError, match="outside 1970 to 2100"):
        load(BAKERY, end_at_us=5)
    with pytest.raises(SpanImportError, match="not both"):
        load(BAKERY, shift_to_us=1, end_at_us=5)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize(("speed", "seconds"), [(1.0, 10.0), (4.0, 2.5), (None, 0.0)])
def test_events_come_when_they_are_due(speed: float | None, seconds: float) -> None:
    clock = Clock()
    events = [Event("k", 100_000_000 + second * 1_000_000, b"") for second in range(11)]
    due = [clock.now_s for _ in paced(events, speed, lambda: clock.now_s, clock.sleep)]
    assert due[-1] == pytest.approx(seconds, abs=0.01)
    assert due == sorted(due)


def test_a_speed_of_zero_is_refused() -> None:
    with pytest.raises(SpanImportError, match="speed 0"):
        list(paced([Event("k", 1, b"")], 0))


class Kept:
    """A sender that keeps what it is sent, one list per flush."""

    def __init__(self) -> None:
        self.flushed: list[list[tuple[str, bytes]]] = []
        self._queue: list[tuple[str, bytes]] = []

    def send(self, key: str, value: bytes) -> None:
        self._queue.append((key, value))

    def flush(self) -> None:
        self.flushed.append(self._queue)
        self._queue = []


def test_publish_sends_all_in_order_and_flushes() -> None:
    sender, timeline = Kept(), load(BAKERY)
    summary = publish_timeline(timeline, sender)
    sent = [record for batch in sender.flushed for record in batch]
    assert sent == [(event.key, event.value) for event in timeline.events()]
    assert summary.events == len(sent) == len(timeline)


def test_partitions_cannot_drift_apart_in_event_time() -> None:
    sender = Kept()
    publish_timeline(load(BAKERY), sender)
    times = [
        [CHAIN_EVENT.validate_json(value).time_unix_us for _, value in batch] for batch in sender.flushed
    ]
    assert len(times) == 4
    assert all(max(batch) - min(batch) < DISORDER_US for batch in times)


@pytest.fixture
def broker() -> tuple[Producer, str]:
    """The handle keeps the broker alive."""
    handle = Producer({"test.mock.num.brokers": 1})
    brokers = handle.list_topics(timeout=10).brokers
    return handle, ",".join(f"{each.host}:{each.port}" for each in brokers.values())


def test_import_spans_delivers_every_event_once_to_the_partition_of_its_key(
    broker: tuple[Producer, str],
) -> None:
    topic = f"events-{uuid4().hex}"
    summary = import_spans(BAKERY, broker[1], topic)
    consumer = Consumer(
        {
            "bootstrap.servers": broker[1],
            "group.id": "test",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": False,
        }
    )
    consumer.subscribe([topic])
    got: list[tuple[str, int | None, bytes | None]] = []
    while len(got) < summary.events:
        message = consumer.poll(20)
        assert message is not None, f"{len(got)} of {summary.events} events came"
        assert message.error() is None
        got.append(((message.key() or b"").decode(), message.partition(), message.value()))
    consumer.close()
    assert sorted((key, value) for key, _, value in got) == sorted(
        (event.key, event.value) for event in read_events(BAKERY)
    )
    assert len({(key, partition) for key, partition, _ in got}) == len({key for key, _, _ in got})
    for key in {key for key, _, _ in got}:
        assert [value for k, _, value in got if k == key] == [
            e.value for e in read_events(BAKERY) if e.key == key
        ]


def test_what_was_not_delivered_is_an_error() -> None:
    config = {"delivery.timeout.ms": 300, "request.timeout.ms": 200, "linger.ms": 0, "log_level": 0}
    with pytest.raises(SpanImportError, match="topic t: an event was not delivered"):
        import_spans(BAKERY, "127.0.0.1:1", "t", producer_config=config)


def test_unusable_settings_are_an_error() -> None:
    with pytest.raises(SpanImportError, match="unusable settings"):
        import_spans(BAKERY, "127.0.0.1:1", "t", producer_config={"no.such.setting": 1})


def test_an_import_without_anything_usable_is_an_error() -> None:
    collected = collect([Span("", "", "s", "o", 1, 2)], Options(), audit := Audit())
    assert collected.items == 0
    assert audit.skipped == {"span: no trace id or no span id": 1}
    with pytest.raises(SpanImportError, match="nothing to import"):
        load(BAKERY, Options(inputs=frozenset(["traces"]), from_unix_us=4 * 10**15))
    assert len(Timeline(collect([LogLine(1, "c", "info", "t")], Options(), Audit()), Audit())) == 1
