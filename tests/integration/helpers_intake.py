"""A real intake worker on topics of its own, and what it left on the events topic."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from helpers_ingest import Pipeline, pipeline

from connectors.deadletters import StoredLetter, read_dead_letters
from infra.devstack import Stack
from infra.supervisor import free_port
from schemas.events import CHAIN_MESSAGE
from schemas.topics import EVENTS, INTAKE_DLQ


@contextmanager
def running_intake(stack: Stack, folder: Path, **settings: Any) -> Iterator[Pipeline]:
    """Run an intake worker that waits a second for roots; it is ready when the block begins."""
    ports = {"http_port": free_port(), "intake_http_port": free_port(), "intake_grpc_port": free_port()}
    with pipeline(stack, folder, **{"intake_spans_topic": "", "intake_hold_s": 1, "intake_linger_s": 2, **ports, **settings}) as pipe:
        start(pipe)
        yield pipe


def start(pipe: Pipeline) -> None:
    """Start a worker, and wait until it is ready."""
    pipe.start("intake")
    pipe.eventually(lambda: is_ready(pipe))


def is_ready(pipe: Pipeline) -> bool:
    """Whether the worker has its partitions."""
    try:
        return httpx.get(f"http://127.0.0.1:{pipe.settings.http_port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def events(pipe: Pipeline) -> list[dict[str, Any]]:
    """Return all events in their order, each held against the contract."""
    found: list[dict[str, Any]] = []
    for message in pipe.read(EVENTS):
        CHAIN_MESSAGE.validate_json(message.value() or b"")
        value = orjson.loads(message.value() or b"")
        found += value if isinstance(value, list) else [value]
    return found


def kinds(pipe: Pipeline) -> Counter[str]:
    """Return how many events there are of each type."""
    return Counter(event["type"] for event in events(pipe))


def letters(pipe: Pipeline) -> list[StoredLetter]:
    """Return what intake has refused."""
    return list(read_dead_letters(pipe.settings, INTAKE_DLQ))


def foreign_topic(stack: Stack, name: str, partitions: int = 2) -> str:
    """Make a topic that is not of the catalogue; return its name."""
    topic = f"{name}-{uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    (made,) = admin.create_topics([NewTopic(topic, partitions, 1)]).values()
    made.result(30)
    return topic


def put(stack: Stack, topic: str, records: Sequence[tuple[bytes | None, bytes | None, Any]]) -> None:
    """Put (key, value, headers) on a topic, all of them acknowledged."""
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers})
    for key, value, headers in records:
        producer.produce(topic, value, key, headers=headers)
    assert producer.flush(30) == 0
