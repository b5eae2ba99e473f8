"""From PostgreSQL to Kafka: what was committed is published in its order, and nothing of it is lost.

The records are taken under a lock that one relay holds at a time, published in one Kafka transaction and marked in the
same transaction of PostgreSQL that holds the lock. A relay that dies in between is made up for by the next one, which publishes
the same records again, in the same order: they are the newest of their keys, so that changes nothing. A relay that lost
its connection and still runs is fenced by the transactional id of the next: what it had begun is never read.
"""

from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from connectors.database import EVERY_TENANT, Database
from connectors.log import TIMEOUT_S, offsets_held, reader
from connectors.producers import transactional_producer
from connectors.settings import Settings

BATCH = 1_000
"""Records of one transaction."""


def relay_outbox(settings: Settings, database: Database) -> int:
    """Publish everything that is committed and not yet published; return how many records.

    Raises KafkaException when the brokers do not take it, psycopg.OperationalError when the database is away: then the rest
    is published by the next call.
    """
    total = 0
    while count := _relay(settings, database):
        total += count
    return total


def _relay(settings: Settings, database: Database) -> int:
    with database.session(EVERY_TENANT, "outbox") as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.registry_outbox', 0))")
        rows = connection.execute(
            "SELECT id, topic, key, value FROM registry_outbox WHERE published_at IS NULL ORDER BY id LIMIT %s", [BATCH]
        ).fetchall()
        if rows:
            _publish(settings, [(row["topic"], row["key"], row["value"]) for row in rows])
            connection.execute("UPDATE registry_outbox SET published_at = now() WHERE id = ANY(%s)", [[row["id"] for row in rows]])
        return len(rows)


def _publish(settings: Settings, records: list[tuple[str, bytes, bytes | None]]) -> None:
    """Publish records in one transaction, in their order, and wait until they can be read."""
    producer = transactional_producer(settings, settings.group("registry"))
    last: dict[tuple[str, int], int] = {}

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:  # else the commit fails
            last[message.topic() or "", message.partition() or 0] = message.offset() or 0

    producer.begin_transaction()
    for topic, key, value in records:
        producer.produce(settings.topic(topic), value, key, on_delivery=delivered)
    producer.commit_transaction(TIMEOUT_S)
    _await_readable(settings, last)


def _await_readable(settings: Settings, last: Mapping[tuple[str, int], int]) -> None:
    """Wait until readers of committed records see what was committed: the brokers say so a moment later."""
    consumer = reader(settings)
    try:
        for (topic, partition), offset in last.items():
            if not _reaches(consumer, topic, partition, offset):
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the registry's records were committed and cannot be read yet"))
    finally:
        consumer.close()


@retry(retry=retry_if_result(lambda reached: not reached), stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.01), retry_error_callback=lambda _: False)
def _reaches(consumer: Consumer, topic: str, partition: int, offset: int) -> bool:
    return offsets_held(consumer, topic, partition)[1] > offset
