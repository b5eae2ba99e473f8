"""Dead letters of the sinks: records on topics of ours that somebody else wrote, so that they cannot be read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, Producer
from msgspec import MsgspecError, ValidationError
from pydantic import ValidationError as ContractError

from connectors.deadletters import Headers, letter_headers
from connectors.producers import MAX_MESSAGE_BYTES, TIMEOUT_S
from connectors.settings import Settings
from schemas.operations import DeadLetter
from schemas.topics import DEAD_LETTERS, Topic


@dataclass(frozen=True)
class Foreign:
    """A message, as Faust gives it, that could not be decoded."""

    message: Any
    error: MsgspecError | ContractError


class DeadLetterBox:
    """Where a sink puts what it cannot read of one topic. Synchronous: an agent runs it in a thread."""

    def __init__(self, settings: Settings, topic: Topic) -> None:
        self._settings = settings
        self._topic = settings.topic(DEAD_LETTERS[topic.name].name)
        self._producer: Producer | None = None

    def send(self, foreign: Iterable[Foreign]) -> None:
        """Return once all are stored; raises KafkaException when the brokers do not take one.

        After a crash a letter may come twice, with the same topic, partition and offset.
        """
        if self._producer is None:
            self._producer = Producer({**self._settings.kafka(), "enable.idempotence": True, "message.max.bytes": MAX_MESSAGE_BYTES})
        failures: list[KafkaError] = []
        for found in foreign:
            message = found.message
            self._producer.produce(
                self._topic, message.value, message.key, message.partition,
                headers=letter_headers(_headers(message.headers), _letter(found)),
                on_delivery=lambda error, _: failures.append(error) if error else None,
            )  # fmt: skip
        if self._producer.flush(TIMEOUT_S) or failures:
            raise KafkaException(*failures[:1] or [KafkaError(KafkaError._MSG_TIMED_OUT)])


def _letter(found: Foreign) -> DeadLetter:
    message = found.message
    stage, reason = _refusal(found)
    return DeadLetter(
        topic=message.topic, partition=message.partition, offset=message.offset, stage=stage, reason=reason[:512]
    )


def _refusal(found: Foreign) -> tuple[Literal["null", "decode", "validate"], str]:
    """Return the stage, and what is wrong and where, without any value."""
    error = found.error
    if found.message.value is None:
        return "null", "the record has no value"
    if isinstance(error, ContractError):
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(("$", *map(str, first["loc"])))
        return "decode" if first["type"] == "json_invalid" else "validate", f"{first['type']} - at `{place}`"
    return "validate" if isinstance(error, ValidationError) else "decode", str(error)


def _headers(headers: Mapping[str, bytes] | Iterable[tuple[str, bytes]] | None) -> Headers:
    return list(headers.items() if isinstance(headers, Mapping) else headers or ())
