"""Records of a mapped topic, or of a file of theirs, at once: what they would become, and publishing it in the order of time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import orjson
from confluent_kafka import TopicPartition

from connectors.acknowledged import Record
from connectors.intake.bridges import Bridged, mapped
from connectors.intake.mapping import Mapper
from connectors.log import TIMEOUT_S, partitions_held, read_range, reader
from connectors.settings import Settings
from connectors.spans.producer import KafkaSender
from schemas.topics import EVENTS

Found = tuple[str, bytes | None, int]
"""Where a record is, its value, and its own time."""


@dataclass
class Outcome:
    """What became of records."""

    records: int = 0
    left_out: int = 0
    """They match no mapping."""
    refused: dict[str, int] = field(default_factory=dict)
    """Reason -> how many."""
    first_seen: dict[str, str] = field(default_factory=dict)
    """Reason -> where its first record is."""
    events: list[Record] = field(default_factory=list)


def read_lines(file: Path, now_us: int) -> Iterator[Found]:
    """Yield the records of a file, one per line; a record of a file has no time of its own, so it is now."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{file}:{number}", line, now_us


def read_records(settings: Settings, topic: str, since_ms: int | None, until_ms: int | None) -> Iterator[Found]:
    """Yield the records that a topic (its full name) holds, of a stretch of their own time; raises KafkaException."""
    held = partitions_held(settings, topic)
    starts = {partition: low for partition, (low, _) in held.items()}
    if since_ms is not None:
        consumer = reader(settings)
        wanted = [TopicPartition(topic, partition, since_ms) for partition in held]
        starts = {found.partition: found.offset for found in consumer.offsets_for_times(wanted, timeout=TIMEOUT_S)}
        consumer.close()
    for partition, (low, high) in sorted(held.items()):
        start = max(low, starts[partition]) if starts[partition] >= 0 else high
        if start >= high:
            continue
        for message in read_range(settings, topic, partition, start, high):
            _, time_ms = message.timestamp()
            if until_ms is None or time_ms < until_ms:
                yield f"{topic}/{partition}@{message.offset()}", message.value(), time_ms * 1000


def judge(records: Iterator[Found], mapper: Mapper, topic: str) -> Outcome:
    """Return what records become on the events topic."""
    outcome = Outcome()
    for where, value, record_us in records:
        outcome.records += 1
        bridged = mapped(mapper, value, record_us, topic) if value is not None else Bridged(refused=("null", "the record has no value"))
        outcome.events += bridged.records
        if bridged.refused:
            reason = f"{bridged.refused[0]}: {bridged.refused[1]}"
            outcome.refused[reason] = outcome.refused.get(reason, 0) + 1
            outcome.first_seen.setdefault(reason, where)
        elif not bridged.records:
            outcome.left_out += 1
    return outcome


def publish(settings: Settings, outcome: Outcome) -> None:
    """Publish the events in the order of their time, each delivered; raises SpanImportError when one was not."""
    config = {name: value for name, value in settings.kafka().items() if name != "bootstrap.servers"}
    sender = KafkaSender(settings.bootstrap_servers, settings.topic(EVENTS.name), config)
    timed = [(orjson.loads(value)["time_unix_us"], key, value) for _, key, value in outcome.events]
    for _, key, value in sorted(timed, key=itemgetter(0)):
        sender.send(key, value)
    sender.flush()
