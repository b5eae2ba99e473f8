"""How fast the real ingest worker is on a real broker, and a stock Faust agent on the same topic.

The worker is measured by what it has committed: the group's offsets are read every 50 ms, and the clock runs from the
first time they move to the moment they reach the end. So start-up and the join do not count, and what was applied but
not committed does not either.
"""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from connectors.definitions import publish_definitions
from connectors.log import offsets_committed, offsets_held, reader
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra.bench.processes import BenchError, python, tail
from infra.simulator import definitions, generate
from schemas.topics import CATALOGUE, EVENTS

POLL_S = 0.05
STALL_S = 60.0
"""A worker whose offsets have not moved for so long has failed; a start takes about 5 s."""
FAUST_START_S = 60.0
TELL_EVERY = 10_000

Tell = Callable[[str, int, int], None]
"""Told (stage, done, of how many) now and then."""


class Reading(NamedTuple):
    """So many events were committed at a moment."""

    at_s: float
    events: int


@dataclass(frozen=True)
class Outcome:
    """What was measured."""

    events: int
    events_per_s: float
    stock_faust_events_per_s: float

    @property
    def ratio(self) -> float:
        """How many times faster the worker is."""
        return self.events_per_s / self.stock_faust_events_per_s

    def document(self) -> dict[str, Any]:
        """Return the outcome for programs."""
        return {
            "events_per_s": round(self.events_per_s),
            "events": self.events,
            "stock_faust_events_per_s": round(self.stock_faust_events_per_s),
            "ratio": round(self.ratio, 1),
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        }


def measure(settings: Settings, events: int, faust_s: float, home: Path, tell: Tell) -> Outcome:
    """Create topics, load the events topic, measure the worker and then Faust; raises BenchError.

    `settings` has a fresh topic prefix; logs of the two processes go to `home`.
    """
    apply_topics(settings)
    publish_definitions(settings, definitions())
    preload(settings, generate(events), events, tell)
    return Outcome(events, _measure_ingest(settings, events, home, tell), _measure_faust(settings, events, faust_s, home, tell))


def remove_topics(settings: Settings) -> None:
    """Delete every topic under the prefix of the settings; for a cluster that outlives the measurement."""
    if not settings.topic_prefix:
        raise ValueError("only topics under a prefix are removed")
    futures = AdminClient(settings.kafka()).delete_topics([settings.topic(topic.name) for topic in CATALOGUE])
    for future in futures.values():
        try:
            future.result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise


def preload(settings: Settings, events: Iterable[tuple[bytes, bytes]], count: int, tell: Tell) -> None:
    """Put the events on their topic, one per message, and wait until the broker has them all."""
    producer = Producer(
        {
            **settings.kafka(), "compression.type": "lz4", "linger.ms": 20, "partitioner": "murmur2_random",
            "enable.idempotence": True, "queue.buffering.max.messages": 500_000,
        }
    )  # fmt: skip
    topic = settings.topic(EVENTS.name)
    for number, (key, value) in enumerate(events):
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.05)
        if number % TELL_EVERY == 0:
            tell("load", number, count)
            producer.poll(0)
    if left := producer.flush(60):
        raise BenchError(f"the brokers did not take {left} of {count} events within a minute")
    tell("load", count, count)


def throughput(readings: Iterable[Reading], total: int) -> float:
    """Return events/s between the first reading above 0 and the first that has reached `total`."""
    first: Reading | None = None
    for reading in readings:
        if reading.events and first is None:
            first = reading
        if first is not None and reading.events >= total:
            if reading.events == first.events:
                raise BenchError(f"{total} events are too few to measure: they were all committed at once")
            return (reading.events - first.events) / (reading.at_s - first.at_s)
    raise BenchError("the worker ended before it had read everything")


def _measure_ingest(settings: Settings, events: int, home: Path, tell: Tell) -> float:
    log = home / "ingest.log"
    environment = {"FLOWCHAIN_BOOTSTRAP_SERVERS": settings.bootstrap_servers, "FLOWCHAIN_HTTP_PORT": "0"}
    arguments = ("worker", "ingest", "--prefix", settings.topic_prefix)
    with python("infra.cli", *arguments, log=log, environment=environment) as process:
        try:
            return throughput(_told(_committed(settings, process), events, tell), events)
        except BenchError as error:
            raise BenchError(f"{error}; the end of its log: {tail(log)}") from error


def _told(readings: Iterator[Reading], total: int, tell: Tell) -> Iterator[Reading]:
    for reading in readings:
        tell("ingest", reading.events, total)
        yield reading


def _committed(settings: Settings, process: subprocess.Popen[bytes]) -> Iterator[Reading]:
    """Read the group's offsets every POLL_S as long as the worker runs; what it appends itself (ticks) is not counted."""
    topic = settings.topic(EVENTS.name)
    ends = _ends(settings, topic)
    # Never subscribed, so no member; uncommitted, so that it does not wait for the end of the running transaction.
    watcher = Consumer(
        {**settings.kafka(), "group.id": settings.group("ingest"), "isolation.level": "read_uncommitted"}
    )
    moved_s, before = time.monotonic(), 0
    try:
        while process.poll() is None:
            offsets = offsets_committed(watcher, topic, ends)
            now_s = time.monotonic()
            done = sum(min(ends[partition], max(0, offset)) for partition, offset in offsets.items())
            yield Reading(now_s, done)
            if done > before:
                moved_s, before = now_s, done
            elif now_s - moved_s > STALL_S:
                raise BenchError(f"the worker has committed nothing for {STALL_S:.0f} s")
            time.sleep(POLL_S)
    finally:
        watcher.close()


def _ends(settings: Settings, topic: str) -> dict[int, int]:
    consumer = reader(settings)
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        return {partition: offsets_held(consumer, topic, partition)[1] for partition in partitions}
    finally:
        consumer.close()


def _measure_faust(settings: Settings, events: int, seconds: float, home: Path, tell: Tell) -> float:
    log, report = home / "stock_faust.log", home / "stock_faust.json"
    arguments = (
        settings.bootstrap_servers, settings.topic(EVENTS.name), f"{settings.topic_prefix}stock-faust", str(seconds),
        str(events), str(report),
    )  # fmt: skip
    deadline_s = time.monotonic() + seconds + FAUST_START_S
    with python("infra.bench.stock_faust", *arguments, log=log) as process:
        while not report.exists():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise BenchError(f"stock Faust gave no figure; the end of its log: {tail(log)}")
            tell("faust", round(seconds - max(0.0, deadline_s - FAUST_START_S - time.monotonic())), round(seconds))
            time.sleep(0.25)
    read = orjson.loads(report.read_bytes())
    if read["events"] <= 0 or read["seconds"] <= 0:
        raise BenchError("stock Faust had read everything within its first second: give more --events")
    return float(read["events"] / read["seconds"])


def fresh_prefix() -> str:
    """Return a topic prefix that nobody uses."""
    return f"bench-{uuid4().hex[:8]}."
