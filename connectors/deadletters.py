"""Dead letters: the refused record as it was, with the reason in headers named as Kafka Connect names them."""

from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Message, Producer

from connectors.log import read_topic
from connectors.settings import Settings
from schemas.operations import DeadLetter
from schemas.topics import EVENTS, EVENTS_DLQ
from streams.events import Refused

PREFIX = "__connect.errors."
Headers = list[tuple[str, str | bytes | None]]


def dead_letter_headers(message: Message, refused: Refused) -> Headers:
    """Return the headers of a dead letter: the record's own, then where it was and why it was refused."""
    facts = {
        "topic": message.topic() or "",
        "partition": str(message.partition()),
        "offset": str(message.offset()),
        "stage": refused.stage,
        "exception.message": refused.reason,
        "disposition": "refused",
    }
    return [*_headers(message), *((PREFIX + name, value.encode()) for name, value in facts.items())]


def _headers(message: Message) -> Headers:
    headers = message.headers() or []
    return list(headers.items()) if isinstance(headers, dict) else list(headers)


@dataclass(frozen=True)
class StoredLetter:
    """A dead letter and where it lies."""

    partition: int
    offset: int
    letter: DeadLetter
    key: bytes | None
    value: bytes | None
    headers: Headers


def read_dead_letters(settings: Settings) -> Iterator[StoredLetter]:
    """Yield all dead letters of the events topic, partition by partition."""
    for message in read_topic(settings, settings.topic(EVENTS_DLQ.name)):
        yield _stored(message)


def redrive(settings: Settings, letters: list[StoredLetter]) -> int:
    """Send dead letters to the events topic again, without our headers; return how many were delivered.

    Raises KafkaException when the brokers do not take one.
    """
    producer = Producer({**settings.kafka(), "enable.idempotence": True, "partitioner": "murmur2_random"})
    failures: list[str] = []
    for stored in letters:
        own = [(name, value) for name, value in stored.headers if not name.startswith(PREFIX)]
        producer.produce(
            settings.topic(EVENTS.name), stored.value, stored.key, headers=own,
            on_delivery=lambda error, _: failures.append(str(error)) if error else None,
        )  # fmt: skip
        producer.poll(0)
    left = producer.flush(30)
    return len(letters) - left - len(failures)


def _stored(message: Message) -> StoredLetter:
    headers = _headers(message)
    facts = {
        name.removeprefix(PREFIX): value.decode()
        for name, value in headers
        if name.startswith(PREFIX) and isinstance(value, bytes)
    }
    letter = DeadLetter.model_validate(
        {
            "topic": facts["topic"],
            "partition": int(facts["partition"]),
            "offset": int(facts["offset"]),
            "stage": facts["stage"],
            "reason": facts["exception.message"],
        }
    )
    return StoredLetter(
        message.partition() or 0, message.offset() or 0, letter, message.key(), message.value(), headers
    )
