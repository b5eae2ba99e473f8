"""Follows a compacted topic of one partition: all that stands there at the start, then each record as it comes."""

from collections.abc import Callable

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from pydantic import ValidationError

from connectors.log import offsets_held, reader
from connectors.settings import Settings
from schemas.topics import Topic

log = structlog.get_logger("follow")
Take = Callable[[bytes, bytes | None], None]
"""Takes (key, value); None = the record is deleted. May raise ValidationError: the record is then passed over, with a line in the log."""


class Follower:
    """Hands on every record of a topic in its order; what was there at the start has been handed on when it is made."""

    def __init__(self, settings: Settings, topic: Topic, take: Take) -> None:
        self._topic, self._take = topic, take
        self._consumer = reader(settings)
        name = settings.topic(topic.name)
        low, high = offsets_held(self._consumer, name, 0)
        self._consumer.assign([TopicPartition(name, 0, low)])
        while low < high and self._read(self._consumer, 1.0):
            pass

    def poll(self) -> None:
        """Take what has come; does not wait. Raises KafkaException on what trying again does not mend."""
        self._read(self._consumer, 0.0)

    def close(self) -> None:
        """Follow no more."""
        self._consumer.close()

    def _read(self, consumer: Consumer, timeout_s: float) -> bool:
        """Return False once the end of the topic was met; records may have come behind it."""
        goes_on = True
        for message in consumer.consume(1_000, timeout_s):
            error = message.error()
            if error is None:
                self._hand_on(message.key() or b"", message.value() or None, message.offset())
            elif error.code() == KafkaError._PARTITION_EOF:
                goes_on = False
            elif not error.retriable():
                raise KafkaException(error)
        return goes_on

    def _hand_on(self, key: bytes, value: bytes | None, offset: int | None) -> None:
        try:
            self._take(key, value)
        except ValidationError as error:
            log.error("record refused", topic=self._topic.name, offset=offset, reason=str(error.errors()[0]["msg"]))
