"""`flowchain-instrument` on services without a changed line: two over HTTP, one over Kafka; every hop, parents right."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import flowchain
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra.devstack import Stack
from infra.supervisor import free_port
from schemas.events import CHAIN_EVENT
from schemas.topics import EVENTS

SERVICES = Path(__file__).parents[1] / "fixtures" / "services"
INSTRUMENT = [sys.executable, "-m", "flowchain.integrations.command"]
PYTHONPATH = os.pathsep.join([str(SERVICES), str(Path(__file__).parents[2] / "sdk")])
PREFIX = "instrument."
ORDERS = 3


@contextmanager
def running(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*INSTRUMENT, *command], env={**os.environ, "PYTHONPATH": PYTHONPATH, "FLOWCHAIN_TOPIC_PREFIX": PREFIX, **environment}
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


def read_all(bootstrap_servers: str, topic: str) -> list[Message]:
    """Return what is on a topic now."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "test"})
    partitions = [TopicPartition(topic, number, 0) for number in consumer.list_topics(topic, timeout=20).topics[topic].partitions]
    missing = sum(consumer.get_watermark_offsets(partition, timeout=20)[1] for partition in partitions)
    consumer.assign(partitions)
    messages: list[Message] = []
    while len(messages) < missing:
        messages.extend(consumer.consume(missing - len(messages), timeout=1.0))
    consumer.close()
    return messages


@pytest.fixture(scope="module")
def reported(stack: Stack) -> list[dict[str, Any]]:
    """What the three services reported on `ORDERS` orders."""
    settings = Settings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=PREFIX)
    apply_topics(settings)
    admin = AdminClient(settings.kafka())
    for future in admin.create_topics([NewTopic("orders", 2, 1), NewTopic("shipments", 1, 1)]).values():
        future.result(20)
    ports = [free_port(), free_port()]
    payments, orders = (f"http://127.0.0.1:{port}" for port in ports)
    common = {"KAFKA": stack.bootstrap_servers, "PAYMENTS": payments, "FLOWCHAIN_BOOTSTRAP_SERVERS": stack.bootstrap_servers}
    with ExitStack() as services:
        uvicorn = [sys.executable, "-m", "uvicorn", "--log-level", "warning"]
        chain = "POST /orders/{order_id}=order_to_cash"
        services.enter_context(running(*uvicorn, "payments:app", "--port", str(ports[0]), **common))
        services.enter_context(running("--chain", chain, *uvicorn, "orders:app", "--port", str(ports[1]), **common))
        wait_for(payments + "/docs")
        wait_for(orders + "/docs")
        for number in range(ORDERS):
            assert httpx.post(f"{orders}/orders/{number}").json() == {"order": number}
        shipping = services.enter_context(running(sys.executable, str(SERVICES / "shipping.py"), str(ORDERS), **common))
        assert shipping.wait(60) == 0
    values = [message.value() for message in read_all(stack.bootstrap_servers, settings.topic(EVENTS.name))]
    for value in values:
        CHAIN_EVENT.validate_json(value or b"")
    return [event for event in map(orjson.loads, values) if event["chain"] == "order_to_cash"]  # type: ignore[arg-type]


def started(reported: list[dict[str, Any]], component: str) -> list[dict[str, Any]]:
    return [event for event in reported if event["type"] == "step.started" and event["component"] == component]


def test_every_execution_begins_and_ends_with_its_request(reported: list[dict[str, Any]]) -> None:
    assert sum(event["type"] == "execution.started" for event in reported) == ORDERS
    assert sum(event["type"] == "execution.completed" for event in reported) == ORDERS
    steps = {event["step"] for event in started(reported, "orders")}
    assert steps == {"POST /orders/{order_id}"} and len(started(reported, "orders")) == ORDERS


def test_the_called_service_has_the_calling_step_as_its_parent(reported: list[dict[str, Any]]) -> None:
    callers = {event["execution"]: event["span"] for event in started(reported, "orders")}
    called = started(reported, "payments")
    assert len(called) == ORDERS and {event["step"] for event in called} == {"POST /payments/{order_id}"}
    for event in called:
        assert event["parents"] == [{"span": callers[event["execution"]], "component": "orders"}]


def test_a_batch_has_the_producers_of_its_records_as_parents_and_its_time_in_the_broker(reported: list[dict[str, Any]]) -> None:
    spans = {event["span"] for event in started(reported, "orders")}
    batches = started(reported, "shipping")
    assert {event["step"] for event in batches} == {"process orders"}
    parents = [parent for event in batches for parent in event["parents"]]
    assert sorted(parent["span"] for parent in parents) == sorted(spans)
    assert {parent["component"] for parent in parents} == {"orders"}
    ended = [event for event in reported if event["type"] == "step.completed" and event["component"] == "shipping"]
    assert len(ended) == len(batches)
    assert all(event["consumed"]["topic"] == "orders" and event["consumed"]["broker_us"] > 0 for event in ended)


def test_what_a_batch_produces_carries_its_step(reported: list[dict[str, Any]], stack: Stack) -> None:
    contexts = [flowchain.extract(message.headers() or []) for message in read_all(stack.bootstrap_servers, "shipments")]
    spans = {event["span"] for event in started(reported, "shipping")}
    assert {context.span for context in contexts if context is not None} == spans
