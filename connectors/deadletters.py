"""Dead letters: the refused record as it was, with the reason in headers named as Kafka Connect names them.

They are never changed. A letter that was sent again is marked by a record behind it in its partition: the same headers,
no value, `disposition` redriven, and the letter's offset.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from confluent_kafka import Message

from connectors.log import partitions_held, read_range, read_topic
from connectors.settings import Settings
from schemas.operations import DeadLetter
from schemas.topics import EVENTS_DLQ, Topic

PREFIX = "__connect.errors."
REASON = "exception.message"
NUMBERS = ("partition", "offset", "index", "letter_offset")
Headers = list[tuple[str, str | bytes | None]]
LetterId = tuple[int, int]
"""(partition, offset) of a dead letter in its topic."""


def letter_headers(own: Headers, letter: DeadLetter) -> Headers:
    """Return the headers of a dead letter: the record's own, then where it was and why it was refused."""
    facts = {**letter.model_dump(exclude_none=True, exclude={"reason"}), REASON: letter.reason}
    return [*own, *((PREFIX + name, str(value).encode()) for name, value in facts.items())]


def headers_of(message: Message) -> Headers:
    """Return the headers of a message as a list."""
    headers = message.headers() or []
    return list(headers.items()) if isinstance(headers, dict) else list(headers)


@dataclass(frozen=True)
class StoredLetter:
    """A record of a dead-letter topic and where it lies."""

    partition: int
    offset: int
    letter: DeadLetter | None
    """None: the headers are not ours; somebody else put the record there."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    redriven: bool = False
    """It was sent again."""

    @property
    def id(self) -> LetterId:
        """What tells it from all others."""
        return self.partition, self.offset

    @property
    def stage(self) -> str:
        """Where it was refused; "foreign" when nobody here refused it."""
        return self.letter.stage if self.letter else "foreign"

    @property
    def own_headers(self) -> Headers:
        """The headers that the record came with."""
        return [(name, value) for name, value in self.headers if not name.startswith(PREFIX)]


def read_dead_letters(settings: Settings, topic: Topic = EVENTS_DLQ) -> Iterator[StoredLetter]:
    """Yield all records of a dead-letter topic but the marks, partition by partition; each knows whether it was redriven."""
    stored = [_stored(message) for message in read_topic(settings, settings.topic(topic.name))]
    marks = {(s.partition, s.letter.letter_offset) for s in stored if s.letter and s.letter.letter_offset is not None}
    for found in stored:
        if found.letter is None or found.letter.letter_offset is None:
            yield replace(found, redriven=found.id in marks)


def letters_after(settings: Settings, topic: Topic, after: LetterId, stage: str | None, limit: int) -> list[StoredLetter]:
    """Return at most `limit` letters behind one, by partition and offset, of one stage where it is given."""
    found: list[StoredLetter] = []
    for partition, (low, high) in sorted(partitions_held(settings, settings.topic(topic.name)).items()):
        start = max(low, after[1] + 1) if partition == after[0] else low
        if len(found) < limit and partition >= after[0] and start < high:
            found += _letters(settings, topic, partition, start, lambda x: stage in (None, x.stage), limit - len(found))
    return found


def find_letters(settings: Settings, topic: Topic, ids: Iterable[LetterId]) -> list[StoredLetter]:
    """Return those letters that are there, by partition and offset."""
    wanted = sorted(set(ids))
    held = partitions_held(settings, settings.topic(topic.name))
    found: list[StoredLetter] = []
    for partition in sorted({partition for partition, _ in wanted} & held.keys()):
        offsets = [offset for p, offset in wanted if p == partition]
        low, high = held[partition]
        if offsets[-1] >= low and offsets[0] < high:
            found += _letters(settings, topic, partition, max(low, offsets[0]), lambda x: x.id in wanted, len(offsets))
    return found


def _letters(
    settings: Settings, topic: Topic, partition: int, start: int, wanted: Callable[[StoredLetter], bool], limit: int
) -> list[StoredLetter]:
    """Return the first letters of a partition that are wanted; it is read to its end, because that is where marks stand."""
    found: list[StoredLetter] = []
    marks: set[int | None] = set()
    for message in read_range(settings, settings.topic(topic.name), partition, start):
        stored = _stored(message)
        if stored.letter is not None and stored.letter.letter_offset is not None:
            marks.add(stored.letter.letter_offset)
        elif len(found) < limit and wanted(stored):
            found.append(stored)
    return [replace(stored, redriven=stored.offset in marks) for stored in found]


def _stored(message: Message) -> StoredLetter:
    headers = headers_of(message)
    facts = {
        name.removeprefix(PREFIX): value
        for name, value in headers
        if name.startswith(PREFIX) and isinstance(value, bytes)
    }
    return StoredLetter(
        message.partition() or 0, message.offset() or 0, _letter(facts), message.key(), message.value(), headers
    )


def _letter(facts: Mapping[str, bytes]) -> DeadLetter | None:
    fields = {name: facts[name].decode(errors="replace") for name in DeadLetter.model_fields if name in facts}
    try:
        numbers = {name: int(fields[name]) for name in NUMBERS if name in fields}
        return DeadLetter.model_validate({**fields, **numbers, "reason": facts[REASON].decode(errors="replace")})
    except (KeyError, ValueError):
        return None
