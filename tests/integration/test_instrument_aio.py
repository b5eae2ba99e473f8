"""confluent-kafka's AIOConsumer: its work begins in the caller's task, though a thread waits for the records."""

import asyncio
import uuid
from typing import Any

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from instrument_world import reporting

import flowchain
from infra.devstack import Stack


def test_what_is_awaited_is_a_step_of_the_task_that_asked(stack: Stack) -> None:
    flowchain.instrument()
    from confluent_kafka.aio import AIOConsumer

    topic = f"aio-{uuid.uuid4().hex[:8]}"
    servers: dict[str, Any] = {"bootstrap.servers": stack.bootstrap_servers}
    admin = AdminClient(servers)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)

    async def consume() -> list[bytes | None]:
        consumer = AIOConsumer({**servers, "group.id": topic, "auto.offset.reset": "earliest"})
        await consumer.subscribe([topic])
        first = await consumer.poll(20.0)
        with flowchain.step("work"):
            values = [first.value()]
        rest = await consumer.consume(2, timeout=20.0)
        with flowchain.step("join"):
            values.extend(message.value() for message in rest)
        await consumer.close()
        return values

    with reporting("shop") as reported:
        producer = confluent_kafka.Producer(servers)
        for number in range(3):
            with flowchain.execution("order", id=f"e{number}"), flowchain.step("send"):
                producer.produce(topic, b"%d" % number)
        assert producer.flush(20) == 0
        assert asyncio.run(consume()) == [b"0", b"1", b"2"]
        sent, processed = reported("step.started", "send"), reported("step.started", f"process {topic}")
        work, join = reported("step.started", "work") + reported("step.started", "join")
        assert [len(event["parents"]) for event in processed] == [1, 2]
        assert [parent["span"] for event in processed for parent in event["parents"]] == [event["span"] for event in sent]
        assert [event["parents"][0]["span"] for event in (work, join)] == [event["span"] for event in processed]
        assert len(reported("step.completed", f"process {topic}")) == 2
