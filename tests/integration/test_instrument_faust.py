"""A Faust worker started by `flowchain-instrument`: events, batches and failures of its agents, on a real broker."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from connectors.settings import Settings
from connectors.topics import apply_topics
from flowchain.context import Context, Flow, to_headers
from infra.devstack import Stack
from schemas.events import CHAIN_EVENT
from schemas.topics import EVENTS

SERVICES = Path(__file__).parents[1] / "fixtures" / "services"
PYTHONPATH = os.pathsep.join([str(SERVICES), str(Path(__file__).parents[2] / "sdk")])
PREFIX = "faust-instrument."
SPANS = {"e1": "1" * 16, "e2": "2" * 16, "e3": "3" * 16}


def read(servers: str, topic: str, enough: int) -> list[dict[str, Any]]:
    """Return the values of a topic once there are enough."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test"})
    partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found: list[Any] = []
    until = time.monotonic() + 60
    while len(found) < enough and time.monotonic() < until:
        found.extend(message.value() for message in consumer.consume(100, timeout=0.5))
    consumer.close()
    return found


@pytest.fixture(scope="module")
def reported(stack: Stack) -> list[dict[str, Any]]:
    """What the worker reported on three orders, and one that it does not know."""
    settings = Settings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=PREFIX)
    apply_topics(settings)
    admin = AdminClient(settings.kafka())
    topics = [NewTopic(f"stock-{name}", 1, 1) for name in ("orders", "reserved", "packed")]
    for future in admin.create_topics(topics).values():
        future.result(20)
    producer = Producer(settings.kafka())
    for value, (execution, span) in zip([*SPANS, "unknown"], [*SPANS.items(), ("e4", "4" * 16)], strict=True):
        flow = Flow("order", execution, "acme")
        headers: Any = to_headers(Context(flow, flow.fields(), span, "shop"))
        producer.produce("stock-orders", value, headers=headers)
    assert producer.flush(20) == 0
    command = [sys.executable, "-m", "flowchain.integrations.command", "--topic-prefix", PREFIX, "--bootstrap-servers",
               stack.bootstrap_servers, sys.executable, "-m", "faust", "-A", "stock", "worker", "-l", "error"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "KAFKA": stack.bootstrap_servers}
    worker = subprocess.Popen(command, env=environment)
    try:
        assert read(stack.bootstrap_servers, "stock-packed", 1) == [b"e1,e2,e3"]
        time.sleep(1.0)
    finally:
        worker.terminate()
        worker.wait(30)
    values = read(stack.bootstrap_servers, settings.topic(EVENTS.name), 10)
    for value in values:
        CHAIN_EVENT.validate_json(value)  # type: ignore[arg-type]
    return [orjson.loads(value) for value in values]  # type: ignore[arg-type]


def of(reported: list[dict[str, Any]], kind: str, step: str) -> list[dict[str, Any]]:
    return [event for event in reported if event["type"] == kind and event["step"] == step]


def test_each_event_of_an_agent_is_a_step(reported: list[dict[str, Any]]) -> None:
    assert {event["component"] for event in reported} == {"stock"}
    begun = of(reported, "step.started", "process stock-orders")
    parents = {event["execution"]: event["parents"] for event in begun}
    assert parents == {
        **{execution: [{"span": span, "component": "shop"}] for execution, span in SPANS.items()},
        "e4": [{"span": "4" * 16, "component": "shop"}],
    }
    ended = of(reported, "step.completed", "process stock-orders")
    assert sorted(event["execution"] for event in ended) == list(SPANS)
    assert all(event["consumed"]["broker_us"] > 0 for event in ended)


def test_an_error_that_leaves_an_agent_fails_its_step(reported: list[dict[str, Any]]) -> None:
    (failed,) = [event for event in reported if event["type"] == "step.failed"]
    assert (failed["execution"], failed["error_type"]) == ("e4", "KeyError")


def test_a_batch_joins_what_the_agent_before_sent(reported: list[dict[str, Any]]) -> None:
    senders = {event["execution"]: event["span"] for event in of(reported, "step.started", "process stock-orders")}
    (batch,) = of(reported, "step.started", "process stock-reserved")
    assert [parent["span"] for parent in batch["parents"]] == [senders[execution] for execution in SPANS]
    assert {parent["component"] for parent in batch["parents"]} == {"stock"}
    assert len(of(reported, "step.completed", "process stock-reserved")) == 1
