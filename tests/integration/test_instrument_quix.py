"""A Quix Streams app started by `flowchain-instrument`, in an environment of its own: its confluent-kafka is older than ours."""

import os
import subprocess
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

import flowchain
from connectors.settings import Settings
from connectors.topics import apply_topics
from flowchain.context import Context, Flow, to_headers
from infra.bench.baselines import quix_python
from infra.devstack import Stack
from schemas.events import CHAIN_EVENT
from schemas.topics import EVENTS

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "tests" / "fixtures" / "services" / "prices.py"


def read(servers: str, topic: str) -> list[Any]:
    """Return the messages that a topic has now."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test"})
    partitions = [TopicPartition(topic, number, 0) for number in consumer.list_topics(topic, timeout=20).topics[topic].partitions]
    wanted = sum(consumer.get_watermark_offsets(partition, timeout=20)[1] for partition in partitions)
    consumer.assign(partitions)
    found: list[Any] = []
    for _ in range(40):
        found.extend(consumer.consume(100, timeout=0.5))
        if len(found) >= wanted:
            break
    consumer.close()
    return [message for message in found if message.value() is not None]


def test_each_row_is_a_step_and_what_it_produces_carries_it(stack: Stack) -> None:
    settings = Settings(bootstrap_servers=stack.bootstrap_servers, topic_prefix="quix-instrument.")
    apply_topics(settings)
    admin = AdminClient(settings.kafka())
    for future in admin.create_topics([NewTopic("quix-orders", 1, 1), NewTopic("quix-priced", 1, 1)]).values():
        future.result(20)
    producer = Producer(settings.kafka())
    for number in (1, 2):
        flow = Flow("order", f"e{number}", "acme")
        headers: Any = to_headers(Context(flow, flow.fields(), f"{number}" * 16, "shop"))
        producer.produce("quix-orders", b"%d" % number, key=b"k", headers=headers)
    assert producer.flush(20) == 0
    python = str(quix_python(lambda *_: None))
    command = [python, "-m", "flowchain.integrations.command", "--topic-prefix", settings.topic_prefix, "--bootstrap-servers",
               stack.bootstrap_servers, python, str(SERVICE)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "sdk"), "KAFKA": stack.bootstrap_servers}
    subprocess.run(command, env=environment, check=True, timeout=120)
    events = [message.value() for message in read(stack.bootstrap_servers, settings.topic(EVENTS.name))]
    for value in events:
        CHAIN_EVENT.validate_json(value)
    begun = [event for event in map(orjson.loads, events) if event["type"] == "step.started"]
    assert {event["execution"]: event["parents"] for event in begun} == {
        f"e{number}": [{"span": f"{number}" * 16, "component": "shop"}] for number in (1, 2)
    }
    assert len(events) == 4
    priced = read(stack.bootstrap_servers, "quix-priced")
    assert [message.value() for message in priced] == [b"1 9.99", b"2 9.99"]
    contexts = [flowchain.extract(message.headers()) for message in priced]
    assert [context.span for context in contexts if context] == [event["span"] for event in begun]
