"""A real ingest worker as a process, topics of its own, and what it left on them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from connectors.deadletters import StoredLetter, read_dead_letters
from connectors.log import offsets_held, reader
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra.devstack import Stack
from schemas import topics
from schemas.internal import Delta, Execution, Partial, TraceBatch

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
MS = 1_000


@dataclass
class Pipeline:
    """Topics under a prefix of their own, and the workers on them."""

    settings: Settings
    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, worker_name: str = "ingest", **env: str) -> subprocess.Popen[bytes]:
        """Start a worker as `flowchain worker` does."""
        given = {name: plain(getattr(self.settings, name)) for name in self.settings.model_fields_set}
        variables = {f"FLOWCHAIN_{name.upper()}": value for name, value in {**given, **env}.items()}
        with self.log(len(self.workers)).open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", "worker", worker_name], cwd=self.folder, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "1000", **variables},
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    def log(self, number: int = -1) -> Path:
        return self.folder / f"worker{number % max(1, len(self.workers)) if number < 0 else number}.log"

    def end(self) -> None:
        """End the workers that this pipeline started, by their own handles."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait(10)

    # -- in -------------------------------------------------------------------------------------------------------

    def send(self, records: Sequence["Raw"], **config: Any) -> None:
        """Put records on the events topic, all of them acknowledged."""
        producer = Producer({**self.settings.kafka(), "acks": "all", "linger.ms": 5, "message.max.bytes": 8_000_000, **config})
        failures: list[str] = []
        for record in records:
            producer.produce(
                self.settings.topic(topics.EVENTS.name), record.value, record.key, record.partition, headers=record.headers,
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )  # fmt: skip
        assert producer.flush(30) == 0
        assert failures == []

    def put(self, topic: topics.Topic, records: dict[bytes, bytes], headers: Any = None) -> None:
        """Put records on partition 0 of a topic of ours, as another version may have written them."""
        producer = Producer({**self.settings.kafka(), "acks": "all"})
        for key, value in records.items():
            producer.produce(self.settings.topic(topic.name), value, key, 0, headers=headers)
        assert producer.flush(30) == 0

    def delete_before(self, partition: int, offset: int) -> None:
        """Have the broker forget the head of a partition."""
        admin = AdminClient(self.settings.kafka())
        target = TopicPartition(self.settings.topic(topics.EVENTS.name), partition, offset)
        for future in admin.delete_records([target]).values():
            future.result(30)

    # -- out ------------------------------------------------------------------------------------------------------

    def read(self, topic: topics.Topic) -> Iterator[Message]:
        """Everything committed on a topic up to where it ended when this was called."""
        name = self.settings.topic(topic.name)
        consumer = reader(self.settings, **{"fetch.wait.max.ms": 10})
        try:
            for partition in sorted(consumer.list_topics(name, timeout=30).topics[name].partitions):
                low, high = offsets_held(consumer, name, partition)
                if low < high:
                    consumer.assign([TopicPartition(name, partition, low)])
                    yield from _until(consumer, high)
        finally:
            consumer.close()

    def deltas(self) -> list[Delta]:
        return [
            delta for message in self.read(topics.PARTIALS)
            for piece in msgspec.json.decode(message.value() or b"", type=Partial).slices for delta in piece.deltas
        ]  # fmt: skip

    def events_counted(self) -> int:
        """The sum over all partials."""
        return sum(delta.events for delta in self.deltas())

    def executions(self) -> list[Execution]:
        return [
            execution for message in self.read(topics.TRACES)
            for execution in msgspec.json.decode(message.value() or b"", type=TraceBatch).executions
        ]  # fmt: skip

    def refused(self) -> int:
        """How many dead letters there are."""
        return sum(1 for _ in self.read(topics.EVENTS_DLQ))

    def dead_letters(self) -> list[StoredLetter]:
        return list(read_dead_letters(self.settings))

    def eventually(self, what: Callable[[], bool], describe: Callable[[], object] = str) -> None:
        """Wait until something is so; fail with the worker's log when it does not come, or when the worker has gone."""
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            gone = self.workers and self.workers[-1].poll() is not None
            if gone or time.monotonic() > deadline:
                raise AssertionError(f"{describe()}\n{self.log().read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    def settles_at(self, counted: int) -> None:
        """Wait until so many events are counted."""
        self.eventually(lambda: self.events_counted() >= counted, lambda: f"{self.events_counted()} of {counted} counted")


def _until(consumer: Consumer, high: int) -> Iterator[Message]:
    """Yield what comes before `high`; ends at the partition's end too, where control records are the last."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for message in consumer.consume(500, 0.05):
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                return
            assert error is None, error.str()
            if (message.offset() or 0) >= high:
                return
            yield message
    raise AssertionError("the end of the partition did not come")


@dataclass
class Raw:
    """A record for the events topic."""

    value: bytes | None
    key: bytes | None = None
    partition: int = 0
    headers: list[tuple[str, bytes]] | None = None


def plain(value: Any) -> str:
    """Return a setting as an environment variable holds it."""
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


def metrics(port: int) -> dict[str, float]:
    """Return what a worker tells, as {name{label="value",…}: value}."""
    families = text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text)
    return {
        sample.name + "{" + ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items())) + "}": sample.value
        for family in families
        for sample in family.samples
    }


def now_us() -> int:
    return time.time_ns() // 1000


def event(kind: str, time_us: int, execution: str = "e", chain: str = "c", **more: Any) -> bytes:
    return orjson.dumps({"type": kind, "chain": chain, "execution": execution, "time_unix_us": time_us, **more})


def completed(execution: str, time_us: int, step: str = "a", **more: Any) -> bytes:
    return event("step.completed", time_us, execution, step=step, component=step.upper(), duration_us=5 * MS, **more)


def _await_leaders(settings: Settings, names: Sequence[str]) -> None:
    """Wait until every partition answers: a topic that was just created may have no leader yet."""
    consumer = reader(settings)
    deadline = time.monotonic() + PATIENCE_S
    for name in names:
        while time.monotonic() < deadline:
            try:
                for partition in range(len(consumer.list_topics(name, timeout=30).topics[name].partitions)):
                    offsets_held(consumer, name, partition)
                break
            except KafkaException:
                time.sleep(0.05)
    consumer.close()


@contextlib.contextmanager
def pipeline(stack: Stack, folder: Path, **settings: Any) -> Iterator[Pipeline]:
    """A pipeline with topics of its own; its workers end with the block."""
    small = {"source_partitions": 2, "analysis_partitions": 2, "commit_interval_s": 0.05, "session_timeout_s": 6, "log_format": "json"}
    found = Pipeline(
        Settings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=f"t{uuid.uuid4().hex[:12]}-", **{**small, **settings}),
        folder,
    )
    _await_leaders(found.settings, list(apply_topics(found.settings)))
    try:
        yield found
    finally:
        found.end()


def stop(worker: subprocess.Popen[bytes]) -> int:
    """Ask a worker to stop; return its exit code."""
    worker.send_signal(signal.SIGTERM)
    return worker.wait(30)
