"""Kafka clients on a real broker: what one produces another continues; batches join; headers that are refused are left out."""

import asyncio
import inspect
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import aiokafka
import confluent_kafka
import kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from instrument_world import Reported, reporting

import flowchain
from flowchain import records
from flowchain.integrations import aiokafka as aiokafka_wrapped
from flowchain.integrations import carrying, confluent, consuming, injecting, kafka_python, work
from infra.devstack import Stack

Produce = Callable[[str, str, list[bytes]], None]
Consume = Callable[[str, str, int], list[bytes]]


@pytest.fixture(autouse=True, scope="module")
def instrumented() -> None:
    flowchain.instrument()


@pytest.fixture
def reported() -> Iterator[Reported]:
    with reporting("shop") as found:
        yield found


@pytest.fixture
def topic(stack: Stack) -> str:
    return create(stack, f"orders-{uuid.uuid4().hex[:8]}")


def create(stack: Stack, name: str, **config: str) -> str:
    topic = NewTopic(name, 1, 1, config=config)
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    admin.create_topics([topic])[name].result(20)
    return name


def produce_confluent(servers: str, topic: str, values: list[bytes]) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": servers})
    for value in values:
        producer.produce(topic, value, headers={"own": b"1"})
    assert producer.flush(20) == 0


def produce_aiokafka(servers: str, topic: str, values: list[bytes]) -> None:
    async def run() -> None:
        async with aiokafka.AIOKafkaProducer(bootstrap_servers=servers) as producer:
            for value in values:
                await producer.send_and_wait(topic, value, headers=[("own", b"1")])

    asyncio.run(run())


def produce_kafka_python(servers: str, topic: str, values: list[bytes]) -> None:
    # kafka-python 3 gives an idempotent producer up for good when a broker refuses any record of it.
    producer = kafka.KafkaProducer(bootstrap_servers=servers, enable_idempotence=False)
    for sent in [producer.send(topic, value, headers=[("own", b"1")]) for value in values]:
        assert sent.get(20).topic == topic
    producer.close()


def consume_confluent(servers: str, topic: str, wanted: int) -> list[bytes]:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": servers, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[bytes] = []
    while len(found) < wanted:
        message = consumer.poll(1.0)
        if message is not None:
            found.append(worked_on(message.value(), message.headers()))
    consumer.close()
    return found


def consume_aiokafka(servers: str, topic: str, wanted: int) -> list[bytes]:
    async def run() -> list[bytes]:
        found: list[bytes] = []
        consumer = aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
        async with consumer:
            async for record in consumer:
                found.append(worked_on(record.value, record.headers))
                if len(found) == wanted:
                    break
        return found

    return asyncio.run(run())


def consume_kafka_python(servers: str, topic: str, wanted: int) -> list[bytes]:
    consumer = kafka.KafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest", consumer_timeout_ms=20_000)
    found: list[bytes] = []
    for record in consumer:
        found.append(worked_on(record.value, record.headers))
        if len(found) == wanted:
            break
    consumer.close()
    return found


def worked_on(value: bytes | None, headers: Any) -> bytes:
    assert ("own", b"1") in list(headers)
    with flowchain.step("work"):
        return value or b""


@pytest.mark.parametrize("produce", [produce_confluent, produce_aiokafka, produce_kafka_python])
@pytest.mark.parametrize("consume", [consume_confluent, consume_aiokafka, consume_kafka_python])
def test_a_record_is_a_step_of_the_execution_that_produced_it(
    stack: Stack, topic: str, reported: Reported, produce: Produce, consume: Consume
) -> None:
    for value in (b"a", b"b"):
        with flowchain.execution("order", id=value.decode()), flowchain.step("send"):
            produce(stack.bootstrap_servers, topic, [value])
    assert consume(stack.bootstrap_servers, topic, 2) == [b"a", b"b"]
    assert flowchain.current() is None
    sent, worked = reported("step.started", "send"), reported("step.started", "work")
    processed = reported("step.started", f"process {topic}")
    for number, execution in enumerate(("a", "b")):
        thread = [sent[number], processed[number], worked[number]]
        assert {event["execution"] for event in thread} == {execution}
        assert processed[number]["parents"] == [{"span": sent[number]["span"], "component": "shop"}]
        assert worked[number]["parents"] == [{"span": processed[number]["span"], "component": "shop"}]
    ended = reported("step.completed", f"process {topic}")
    assert [event["consumed"]["offset"] for event in ended] == [0, 1]
    assert all(event["consumed"]["broker_us"] > 0 for event in ended)


def batch_confluent(servers: str, topic: str, wanted: int) -> list[bytes]:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": servers, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found = consumer.consume(wanted, timeout=20.0)
    with flowchain.step("join"):
        values = [message.value() or b"" for message in found]
    consumer.close()
    return values


def batch_aiokafka(servers: str, topic: str, wanted: int) -> list[bytes]:
    async def run() -> list[bytes]:
        async with aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
            found = await consumer.getmany(timeout_ms=20_000)
            with flowchain.step("join"):
                return [record.value for records in found.values() for record in records]

    return asyncio.run(run())


def batch_kafka_python(servers: str, topic: str, wanted: int) -> list[bytes]:
    consumer = kafka.KafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    until, found = time.monotonic() + 20, dict[Any, list[Any]]()
    while not found and time.monotonic() < until:
        found = consumer.poll(1000)
    with flowchain.step("join"):
        values = [record.value for records in found.values() for record in records]
    consumer.close()
    return values


@pytest.mark.parametrize("consume", [batch_confluent, batch_aiokafka, batch_kafka_python])
def test_a_batch_has_every_producer_as_a_parent(stack: Stack, topic: str, reported: Reported, consume: Consume) -> None:
    for number in range(5):
        with flowchain.execution("order", id=f"e{number}"), flowchain.step("send"):
            produce_confluent(stack.bootstrap_servers, topic, [b"%d" % number])
    assert consume(stack.bootstrap_servers, topic, 5) == [b"0", b"1", b"2", b"3", b"4"]
    sent = reported("step.started", "send")
    (batch,), (join,) = reported("step.started", f"process {topic}"), reported("step.started", "join")
    first, *others = [{"span": event["span"], "component": "shop"} for event in sent]
    expected = [first, *({**parent, "execution": f"e{number}"} for number, parent in enumerate(others, 1))]
    assert batch["parents"] == expected and batch["execution"] == "e0"
    assert join["parents"][0]["span"] == batch["span"]


def test_records_can_be_joined_by_hand(stack: Stack, topic: str, reported: Reported) -> None:
    for number in range(2):
        with flowchain.execution("order", id=f"e{number}"), flowchain.step("send"):
            produce_confluent(stack.bootstrap_servers, topic, [b"%d" % number])
    consumer = kafka.KafkaConsumer(topic, bootstrap_servers=stack.bootstrap_servers, auto_offset_reset="earliest")
    records = [next(consumer), next(consumer)]
    consumer.close()
    with flowchain.joined(records, "join"):
        pass
    sent, (join,) = reported("step.started", "send"), reported("step.started", "join")
    assert [parent["span"] for parent in join["parents"]] == [event["span"] for event in sent]
    assert reported("step.completed", "join")[0]["consumed"]["topic"] == topic


@pytest.mark.parametrize("produce", [produce_confluent, produce_aiokafka, produce_kafka_python])
def test_where_headers_make_a_record_too_large_it_goes_without_them(
    stack: Stack, produce: Produce, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(injecting, "_refused", set())
    topic = create(stack, f"small-{uuid.uuid4().hex[:8]}", **{"max.message.bytes": "500"})
    kept: list[tuple[bytes, bytes]] = []
    flowchain.init("shop", channel=lambda counts: flowchain.MemoryChannel(counts, kept))
    with flowchain.execution("order"), flowchain.step("send"):
        for value in (b"a" * 100, b"b" * 100):
            produce(stack.bootstrap_servers, topic, [value])
    assert flowchain.stats().dropped == {"headers_refused": 1}
    assert caplog.text.count("headers_refused") == 1
    flowchain.shutdown(5.0)
    consumer = kafka.KafkaConsumer(topic, bootstrap_servers=stack.bootstrap_servers, auto_offset_reset="earliest")
    records = [next(consumer), next(consumer)]
    consumer.close()
    assert [record.value[:1] for record in records] == [b"a", b"b"]
    assert [list(record.headers) for record in records] == [[("own", b"1")]] * 2


@pytest.mark.parametrize("produce", [produce_confluent, produce_aiokafka, produce_kafka_python])
@pytest.mark.parametrize("consume", [consume_confluent, consume_aiokafka, consume_kafka_python])
def test_whatever_fails_inside_records_come_and_go_as_before(
    stack: Stack, topic: str, produce: Produce, consume: Consume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("ours")

    for module in (carrying, consuming, injecting, records, work):
        for name, function in list(vars(module).items()):
            if inspect.isfunction(function) and name not in ("attempt", "wrap", "tracker"):
                for user in (aiokafka_wrapped, carrying, confluent, consuming, injecting, kafka_python, records, work):
                    if getattr(user, name, None) is function:
                        monkeypatch.setattr(user, name, failing)
    flowchain.init("shop", channel=lambda counts: flowchain.MemoryChannel(counts, []))
    with flowchain.execution("order"), flowchain.step("send"):
        produce(stack.bootstrap_servers, topic, [b"a", b"b"])
        assert consume(stack.bootstrap_servers, topic, 2) == [b"a", b"b"]
    assert flowchain.stats().dropped["integration_error"] >= 4
    flowchain.shutdown(5.0)
