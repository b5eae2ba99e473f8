"""Definitions on their compacted topic: published by the registry, followed by workers while they run."""

from collections.abc import Iterable

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


def publish_definitions(settings: Settings, definitions: Iterable[ChainDefinition]) -> int:
    """Publish definitions; return how many. Raises KafkaException when the brokers do not take one."""
    producer = Producer({**settings.kafka(), "enable.idempotence": True})
    count = 0
    for definition in definitions:
        key = f"{definition.tenant or ''}/{definition.name}"
        producer.produce(settings.topic(DEFINITIONS.name), definition.encode(), key)
        count += 1
    if producer.flush(TIMEOUT_S):
        raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT, "the brokers did not take the definitions"))
    return count


def read_definitions(settings: Settings) -> list[ChainDefinition]:
    """Return the definitions in force, by name and tenant; what is not valid is passed over, as the workers do."""
    newest: dict[bytes, ChainDefinition | None] = {}
    for message in read_topic(settings, settings.topic(DEFINITIONS.name)):
        value = message.value()
        try:
            newest[message.key() or b""] = ChainDefinition.decode(value) if value else None
        except ValidationError as error:
            log.error("definition refused", offset=message.offset(), reason=str(error.errors()[0]["msg"]))
    return sorted((found for found in newest.values() if found), key=lambda x: (x.name, x.tenant or ""))


class DefinitionReader:
    """Puts every definition on the topic in force: all that stand there at the start, then each as it comes."""

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
        """Return False once the end of the topic was met."""
        for message in consumer.consume(1_000, timeout_s):
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    return False
                if not error.retriable():
                    raise KafkaException(error)
            elif value := message.value():
                self._take(value, message.offset())
        return True

    def _take(self, value: bytes, offset: int | None) -> None:
        try:
            refused = self._rules.refused
            self._rules.add(ChainDefinition.decode(value))
            LIMIT_REACHED.labels("definitions_over_limit").inc(self._rules.refused - refused)
        except ValidationError as error:
            log.error("definition refused", offset=offset, reason=str(error.errors()[0]["msg"]))
