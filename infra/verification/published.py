"""What a run has published: the records of its topics, in the terms of the oracle."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from connectors.deadletters import read_dead_letters
from connectors.log import partitions_held, read_range
from connectors.settings import Settings
from infra.verification.compare import Found, Record, pack
from infra.verification.steps import run_of
from schemas import topics
from schemas.base import Record as Model
from schemas.internal import Execution, TraceBatch
from schemas.topics import Topic
from schemas.violations import Violation

Ends = dict[int, int]
"""Per partition, the offset before which records are looked at."""
MAY_REPEAT = frozenset({"cardinality.exceeded"})
"""Said again with every transaction that shows it."""
decode_batch = msgspec.json.Decoder(TraceBatch).decode


def pack_execution(x: Execution) -> bytes:
    """Return an execution as it is compared, its steps included; what it still carries of its tracking is taken off it."""
    x.saw, x.ends = 0, {}
    for step in x.steps.values():
        step.saw_started = False
    return pack(x)


def violation_record(found: Violation) -> Record:
    """Return a violation as it is compared: all but the sentence for a person, and what a window held when it was said."""
    left_out = {"detail"} if found.execution is not None else {"detail", "observed_ratio"}
    return found.model_dump(exclude=left_out, exclude_none=True)


def window_of(published: Record) -> Record:
    """Return a health window as it is compared: all but its revision, its evidence and when it was said."""
    left_out = {"id", "revision", "watermark_unix_us", "sources"}
    kept = {name: value for name, value in published.items() if name not in left_out}
    durations = published["durations"]
    return {**kept, "durations": durations["buckets"], "durations_zero": durations["zero_count"]}


def executions(settings: Settings, partition: int, ends: Ends, found: Found) -> None:
    """Read the finished executions of one source partition, by run."""
    topic = settings.topic(topics.TRACES.name)
    for message in _read(settings, topic, {partition: ends[partition]}):
        for x in decode_batch(message.value() or b"").executions:
            found.add(run_of(x), (x.revision,), pack_execution(x))


def windows(settings: Settings, ends: Ends, found: Found) -> None:
    """Read the health windows by id."""
    for message in _read(settings, settings.topic(topics.HEALTH.name), ends):
        published = orjson.loads(message.value() or b"")
        found.add(published["id"], (published["revision"],), pack(window_of(published)))


def dependencies(settings: Settings, ends: Ends, found: Found) -> None:
    """Read the dependency windows by id."""
    for message in _read(settings, settings.topic(topics.DEPENDENCIES.name), ends):
        edge = orjson.loads(message.value() or b"")
        found.add(edge.pop("id"), (edge.pop("revision"),), pack(edge))


def violations(settings: Settings, ends: Ends) -> dict[str, Counter[bytes]]:
    """Return the violations: by id, how often each was said."""
    said: dict[str, Counter[bytes]] = {}
    for found in models(settings, topics.VIOLATIONS, ends, Violation):
        said.setdefault(found.id, Counter())[pack(violation_record(found))] += 1
    return said


def dead_letters(settings: Settings, found: Found) -> None:
    """Read the dead letters by partition and offset of the record, and which event of it was refused."""
    for stored in read_dead_letters(settings):
        letter = stored.letter
        if letter is None:
            continue  # somebody else's record
        place = (letter.partition, letter.offset, letter.index or 0)
        found.add(place, (0,), pack({"topic": letter.topic, "stage": letter.stage}))


def models(settings: Settings, topic: Topic, ends: Ends, model: type[Model]) -> Iterator[Any]:
    """Yield the records of a topic, partition by partition."""
    for message in _read(settings, settings.topic(topic.name), ends):
        yield model.decode(message.value() or b"")


def _read(settings: Settings, topic: str, ends: Ends) -> Iterator[Any]:
    """Yield what a topic still holds before the given ends."""
    for partition, (low, _) in partitions_held(settings, topic).items():
        if partition in ends and low < ends[partition]:
            yield from read_range(settings, topic, partition, low, ends[partition])
