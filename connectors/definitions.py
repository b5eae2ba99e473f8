"""Definitions on their compacted topic: published by the registry, followed by workers while they run."""

from collections.abc import Iterable

import msgspec
import orjson
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from pydantic import ValidationError

from connectors.log import TIMEOUT_S, offsets_held, read_topic, reader
from connectors.settings import Settings
from connectors.telemetry import LIMIT_REACHED
from schemas.definitions import ChainDefinition
from schemas.topics import DEFINITIONS
from streams.rules import RuleBook

log = structlog.get_logger("definitions")


def key_of(tenant: str, name: str, effective_from_us: int) -> bytes:
    """Return the key of a version of a flow: of versions for the same time the newest counts. tenant "" = every tenant's."""
    return orjson.dumps([tenant, name, effective_from_us])


def publish_definitions(settings: Settings, definitions: Iterable[ChainDefinition]) -> int:
    """Publish definitions past the registry; return how many. Raises KafkaException when the brokers do not take one."""
    producer = Producer({**settings.kafka(), "enable.idempotence": True})
    count = 0
    for definition in definitions:
        key = key_of(definition.tenant or "", definition.name, definition.effective_from_unix_us)
        producer.produce(settings.topic(DEFINITIONS.name), definition.encode(), key)
        count += 1
    if producer.flush(TIMEOUT_S):
        raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT, "the brokers did not take the definitions"))
    return count


def read_definitions(settings: Settings) -> list[ChainDefinition]:
    """Return all versions that the topic holds, in the order in which they were published; what is not valid is passed over,
    as the workers do."""
    newest: dict[bytes, ChainDefinition] = {}
    for message in read_topic(settings, settings.topic(DEFINITIONS.name)):
        key, value = message.key() or b"", message.value()
        newest.pop(key, None)
        try:
            if value:
                newest[key] = ChainDefinition.decode(value)
        except ValidationError as error:
            log.error("definition refused", offset=message.offset(), reason=str(error.errors()[0]["msg"]))
    return list(newest.values())


class DefinitionReader:
    """Puts every definition on the topic in force, and takes back what is deleted: all at the start, then each as it comes."""

    def __init__(self, settings: Settings, rules: RuleBook) -> None:
        self._rules = rules
        self._consumer = reader(settings)
        topic = settings.topic(DEFINITIONS.name)
        low, high = offsets_held(self._consumer, topic, 0)
        self._consumer.assign([TopicPartition(topic, 0, low)])
        while low < high and self._read(self._consumer, 1.0):
            pass

    def poll(self) -> None:
        """Take what has come; does not wait."""
        self._read(self._consumer, 0.0)

    def _read(self, consumer: Consumer, timeout_s: float) -> bool:
        """Return False once the end of the topic was met. What stands behind an end in the same batch came after it was met."""
        more = True
        for message in consumer.consume(1_000, timeout_s):
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    more = False
                elif not error.retriable():
                    raise KafkaException(error)
            elif value := message.value():
                self._take(value, message.offset())
            else:
                self._take_back(message.key() or b"")
        return more

    def _take(self, value: bytes, offset: int | None) -> None:
        try:
            refused = self._rules.refused
            self._rules.add(ChainDefinition.decode(value))
            LIMIT_REACHED.labels("definitions_over_limit").inc(self._rules.refused - refused)
        except ValidationError as error:
            log.error("definition refused", offset=offset, reason=str(error.errors()[0]["msg"]))

    def _take_back(self, key: bytes) -> None:
        try:
            tenant, name, effective_from_us = _KEY.decode(key)
        except msgspec.DecodeError:
            log.warning("nothing was taken back: not a key of ours", key=key[:200].decode(errors="replace"))
            return
        self._rules.remove(tenant, name, effective_from_us)


_KEY = msgspec.json.Decoder(tuple[str, str, int])
