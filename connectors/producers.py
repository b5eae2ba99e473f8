"""Transactional producers: everything between two commits is published together, or not at all."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from connectors.settings import Settings
from schemas.topics import Topic

log = structlog.get_logger("producer")

TIMEOUT_S = 30.0
MAX_MESSAGE_BYTES = 16_000_000
"""Below what the topics of batches, of state and of dead letters take (`schemas.topics.MAX_BATCH_BYTES`)."""
TRANSACTION_MS = 10_000
"""The brokers abort a transaction after so long: a worker that was killed within one holds its readers back until then,
or until it is back under the same transactional id."""


def transactional_producer(settings: Settings, transactional_id: str, **config: Any) -> Producer:
    """Return a producer that has fenced every earlier one of the same id; raises KafkaException without brokers."""
    producer = Producer(
        {
            **settings.kafka(),
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TRANSACTION_MS,
            "linger.ms": 2,
            "compression.type": "lz4",
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "partitioner": "murmur2_random",
            **config,
        }
    )
    producer.init_transactions(TIMEOUT_S)
    return producer


def publish(settings: Settings, topic: Topic, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Publish (key, value) records, without a transaction; return how many. Raises KafkaException when the brokers do not take one."""
    producer = Producer({**settings.kafka(), "enable.idempotence": True})
    count = 0
    for key, value in records:
        producer.produce(settings.topic(topic.name), value, key)
        count += 1
    if producer.flush(TIMEOUT_S):
        raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT, f"the brokers did not take all records of {topic.name}"))
    return count


class Transactions:
    """One transaction after another; the commit of one runs while its owner works towards the next.

    One thread calls: `begin`, any number of `producer.produce`, `commit`; `settle` wherever the commit must be known to
    have succeeded. An error of the commit is raised by whichever of them comes next, and then there is no way on but
    `abandon` and a new process.
    """

    def __init__(self, producer: Producer, told: Callable[[float], None]) -> None:
        """`told` gets the seconds that each commit took, in another thread."""
        self.producer = producer
        self._told = told
        self._thread = ThreadPoolExecutor(1, "commit")
        self._running: Future[None] | None = None

    def begin(self) -> None:
        """Begin the next transaction once the one before is committed; raises KafkaException if that failed."""
        self.settle()
        self.producer.begin_transaction()

    def commit(self, offsets: list[TopicPartition], group_metadata: Any) -> None:
        """Have everything produced since `begin` committed together with the group's new positions."""
        self._running = self._thread.submit(self._finish, offsets, group_metadata)

    def settle(self) -> None:
        """Wait until the transaction before is committed; raises KafkaException if that failed."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def abandon(self) -> None:
        """Give up what is not committed, as far as the brokers let us: readers wait for less long then."""
        if self._running is not None:
            self._running.exception()
        try:
            self.producer.abort_transaction(5.0)
        except KafkaException as error:
            log.warning("not aborted", error=str(error))

    def _finish(self, offsets: list[TopicPartition], group_metadata: Any) -> None:
        started = time.perf_counter()
        self.producer.send_offsets_to_transaction(offsets, group_metadata)
        self.producer.commit_transaction()
        self._told(time.perf_counter() - started)
