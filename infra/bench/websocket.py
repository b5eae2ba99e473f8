"""How long an alert takes from Kafka to thousands of WebSocket clients, while some of them never read.

The clients run in processes of their own, so that what is measured is the API and not who measures it; times are of one
machine's clock. "last client" is the slowest of all clients per alert.
"""

import asyncio
import json
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import Producer, TopicPartition
from websockets.asyncio.client import connect

from connectors.log import partitions_held, reader
from connectors.settings import Settings
from infra.bench.figures import spread
from infra.bench.loading import Tell
from infra.bench.machine import machine
from infra.bench.processes import BenchError, python, tail, until
from infra.bench.serving import served
from schemas.analysis import Alert
from schemas.topics import ALERTS

TENANT, PROCESSES, PAUSE_S = "acme", 2, 0.1
OPENING = 100
"""Connections that a process opens at the same time."""


def measure(settings: Settings, home: Path, clients: int, alerts: int, slow: int, tell: Tell) -> dict[str, Any]:
    """Return quantiles, in ms, of delivery to every client, to the last client of each alert, and to a bare consumer."""
    with served(settings, home, TENANT) as (port, key), ExitStack() as stack:
        stuck = [stack.enter_context(_stuck(port, key)) for _ in range(slow)]
        results = [home / f"clients-{number}.json" for number in range(PROCESSES)]
        for number, result in enumerate(results):
            count = clients // PROCESSES + (number < clients % PROCESSES)
            stack.enter_context(
                python("infra.bench.websocket", str(port), key, str(count), str(alerts), str(result), log=home / f"clients-{number}.log")
            )
        until(lambda: all(path.with_suffix(".ready").exists() for path in results), f"not all clients could connect: {tail(home / 'api.log')}")
        sent, bare = _publish(settings, alerts, tell)
        until(lambda: all(path.exists() for path in results), "not every client got every alert")
    heard = [x for path in results for x in json.loads(path.read_text())]
    return {
        "clients": len(heard), "slow_clients": len(stuck), "alerts": alerts, "delivery_ms": spread([(t - sent[n]) * 1000 for times in heard for n, t in enumerate(times)]),
        "last_client_ms": spread([(max(times[n] for times in heard) - sent[n]) * 1000 for n in range(alerts)]), "bare_consumer_ms": spread(bare),
        "delivered_per_s": round(len(heard) * alerts / (max(max(times) for times in heard) - sent[0])), "machine": machine(),
    }  # fmt: skip


def _publish(settings: Settings, alerts: int, tell: Tell) -> tuple[list[float], list[float]]:
    """Publish alerts one after the other; return (when each was handed to Kafka, how long a bare consumer waited for it in ms)."""
    producer = Producer({**settings.kafka(), "linger.ms": 0})
    topic = settings.topic(ALERTS.name)
    consumer = reader(settings)  # at exact offsets: one that begins at "latest" may look for it after the first alert
    ends = {partition: high for partition, (_, high) in partitions_held(settings, topic).items()}
    consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in ends.items()])
    heard: list[float] = []

    def listen() -> None:
        while len(heard) < alerts:
            message = consumer.poll(10.0)
            if message is None:
                return
            if message.error() is None:
                heard.append(time.time())

    listener = threading.Thread(target=listen)
    listener.start()
    sent: list[float] = []
    for number in range(alerts):
        value = _alert(number).encode()
        sent.append(time.time())
        producer.produce(topic, value, TENANT)
        producer.flush(10)
        tell("alerts", number + 1, alerts)
        time.sleep(PAUSE_S)
    listener.join()
    consumer.close()
    if len(heard) < alerts:
        raise BenchError("the bare consumer did not get every alert")
    return sent, [(got - began) * 1000 for got, began in zip(heard, sent, strict=True)]


def _alert(number: int) -> Alert:
    return Alert(
        id=f"bench-{number}", revision=number, status="opened", severity="critical", tenant=TENANT, incident="bench", title="payments fails",
        summary="payments/charge_card fails in order_to_cash", suspects=[], affected=[], affected_chains=["order_to_cash"], affected_executions=12,
        affected_sample=[f"order-{n}" for n in range(12)], violations={"step.failed": 12}, first_fault_unix_us=1, opened_unix_us=1, updated_unix_us=1, evidence=[],
    )  # fmt: skip


def _stuck(port: int, key: str) -> socket.socket:
    """Return a client that asks for alerts and never reads one."""
    found = socket.create_connection(("127.0.0.1", port))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    found.sendall(
        f"GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-API-Key: {key}\r\n\r\n".encode()
    )
    return found


async def _client(port: int, key: str, alerts: int, gate: asyncio.Semaphore, connected: asyncio.Event, count: list[int], all_: int) -> list[float]:
    """Return when each alert came."""
    async with gate:
        connection = await connect(f"ws://127.0.0.1:{port}/v1/live", additional_headers={"X-API-Key": key}, compression=None, open_timeout=60)
    count[0] += 1
    if count[0] == all_:
        connected.set()
    async with connection:
        times = []
        for _ in range(alerts):
            await connection.recv()
            times.append(time.time())
        return times


async def listen(port: int, key: str, clients: int, alerts: int, result: Path) -> None:
    """Run clients until each has got every alert; writes when they were all connected, and then their times."""
    gate, connected, count = asyncio.Semaphore(OPENING), asyncio.Event(), [0]
    tasks = [asyncio.create_task(_client(port, key, alerts, gate, connected, count, clients)) for _ in range(clients)]
    await connected.wait()
    result.with_suffix(".ready").touch()
    times = await asyncio.gather(*tasks)
    fresh = result.with_suffix(".part")
    fresh.write_text(json.dumps(times))
    fresh.replace(result)


if __name__ == "__main__":
    port_, key_, clients_, alerts_, result_ = sys.argv[1:]
    asyncio.run(listen(int(port_), key_, int(clients_), int(alerts_), Path(result_)))
