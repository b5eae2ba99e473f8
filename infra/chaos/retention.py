"""A consumer so slow that retention passes it: is exactly what was deleted unread reported as lost?

Under a topic prefix of its own, with real retention. Every record is an execution that is over with it, so the traces say
which offsets were worked on; what was sent and is not there must be what was reported, record by record.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from connectors.log import partitions_held, read_topic
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra.supervisor import POLL_S, Supervisor, is_ready
from infra.verification.progress import NotCaughtUp, positions
from schemas.internal import TraceBatch
from schemas.topics import DATA_LOSS, EVENTS, TRACES

PREFIX = "slow."
FIRST, REST = 2_000, 40_000
SEGMENT_BYTES = 1_048_576
"""The smallest that there is; a partition keeps one or two of them."""
PATIENCE_S = 120.0
Offset = tuple[int, int]
"""(partition, offset)"""
decode_batch = msgspec.json.Decoder(TraceBatch).decode


@dataclass(frozen=True)
class Gap:
    """What retention has taken, and what was said of it; numbers of records."""

    sent: int
    worked_on: int
    deleted_unread: int
    reported: int
    unreported: int
    """Deleted unread, and not reported."""
    wrongly_reported: int
    """Reported as lost, and worked on or still there."""
    twice: int

    @property
    def right(self) -> bool:
        """Whether the report is the truth, and there was something to report."""
        return self.reported > 0 and not (self.unreported or self.wrongly_reported or self.twice)

    def document(self) -> dict[str, int]:
        """Return it for JSON."""
        return asdict(self)


def overrun(settings: Settings, home: Path, tell: Callable[[str], None]) -> Gap:
    """Have retention pass a worker that is paused, then one that is down."""
    settings = settings.model_copy(update={"topic_prefix": PREFIX, "source_partitions": 2, "session_timeout_s": 100.0})
    apply_topics(settings)
    _keep_little(settings)
    names = (*settings.model_fields_set, "topic_prefix", "source_partitions", "session_timeout_s")
    with _worker(Supervisor(home / PREFIX.rstrip("."), settings.environment(*names), ("ingest",))) as supervisor:
        sent = send(settings, FIRST)
        _until(lambda: _behind(settings) == 0, "the worker has not begun")
        tell("retention: SIGSTOP of a worker, until records that it has not read are deleted")
        _signal(supervisor, signal.SIGSTOP)
        sent |= _let_expire(settings)
        _signal(supervisor, signal.SIGCONT)
        _until(lambda: _behind(settings) == 0, "the paused worker has not gone on")
        tell("retention: the same while no worker runs")
        supervisor.scale("ingest", 0)
        sent |= _let_expire(settings)
        supervisor.scale("ingest", 1)
        _until(lambda: _behind(settings) == 0, "the next worker has not gone on")
    return compare(settings, sent)


def send(settings: Settings, count: int) -> set[Offset]:
    """Send so many executions of one event each; return where they are."""
    landed: set[Offset] = set()

    def told(error: Any, message: Message) -> None:
        if error is None:
            landed.add((message.partition() or 0, message.offset() or 0))

    producer = Producer({**settings.kafka(), "acks": "all", "enable.idempotence": True, "linger.ms": 20})
    for number in range(count):
        now_us = time.time_ns() // 1000
        name = f"slow-{now_us}-{number}"
        event = {"type": "execution.failed", "chain": "slow", "execution": name, "time_unix_us": now_us, "error_type": "Slow"}
        producer.produce(settings.topic(EVENTS.name), orjson.dumps(event), name, on_delivery=told)
        producer.poll(0)
    if producer.flush(PATIENCE_S) or len(landed) != count:
        raise NotCaughtUp(f"the brokers took {len(landed)} of {count} records")
    return landed


def compare(settings: Settings, sent: set[Offset]) -> Gap:
    """Hold what was reported against what was sent, what was worked on and what is still there."""
    worked_on = {
        (batch.source_partition, x.first_offset)
        for batch in (decode_batch(message.value() or b"") for message in read_topic(settings, settings.topic(TRACES.name)))
        for x in batch.executions
    }
    losses = [orjson.loads(message.value() or b"") for message in read_topic(settings, settings.topic(DATA_LOSS.name))]
    said = [(loss["partition"], offset) for loss in losses for offset in range(loss["first_offset"], loss["last_offset"] + 1)]
    reported = sent & set(said)
    first = {partition: low for partition, (low, _) in partitions_held(settings, settings.topic(EVENTS.name)).items()}
    lost = sent - worked_on
    still_there = {(partition, offset) for partition, offset in reported if offset >= first[partition]}
    return Gap(
        len(sent), len(sent & worked_on), len(lost), len(reported), len(lost - reported),
        len((reported & worked_on) | still_there), len(said) - len(set(said)),
    )  # fmt: skip


def _keep_little(settings: Settings) -> None:
    """Have the brokers delete what is older than a megabyte or two per partition."""
    sizes = {"segment.bytes": SEGMENT_BYTES, "retention.bytes": SEGMENT_BYTES}
    entries = [ConfigEntry(name, str(size), incremental_operation=AlterConfigOpType.SET) for name, size in sizes.items()]
    resource = ConfigResource(ConfigResource.Type.TOPIC, settings.topic(EVENTS.name), incremental_configs=entries)
    admin = AdminClient(settings.kafka())
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def _let_expire(settings: Settings) -> set[Offset]:
    """Send more than is kept, and wait until records that no worker has read are gone."""
    at = positions(settings, "ingest", EVENTS)
    landed = send(settings, REST)

    def passed() -> bool:
        held = partitions_held(settings, settings.topic(EVENTS.name))
        return all(low > at[partition] for partition, (low, _) in held.items())

    _until(passed, "retention has deleted nothing")
    return landed


def _behind(settings: Settings) -> int:
    """Return how many records are before the worker; its own ticks are none to wait for."""
    at = positions(settings, "ingest", EVENTS)
    ends = partitions_held(settings, settings.topic(EVENTS.name))
    return sum(max(0, end - at[partition] - 10) for partition, (_, end) in ends.items())


def _signal(supervisor: Supervisor, number: int) -> None:
    process = supervisor.children[0].process
    assert process is not None  # nothing has ended it
    process.send_signal(number)


@contextmanager
def _worker(supervisor: Supervisor) -> Iterator[Supervisor]:
    supervisor.start()
    try:
        _until(lambda: is_ready(supervisor.children[0].port), "the worker does not start")
        yield supervisor
    finally:
        supervisor.stop()


def _until(what: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > deadline:
            raise NotCaughtUp(otherwise)
        time.sleep(POLL_S)
