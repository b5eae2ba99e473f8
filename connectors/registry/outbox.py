"""From PostgreSQL to Kafka: what was committed is published in its order, and nothing of it is lost.

The records are taken under a lock that one relay holds at a time, published in one Kafka transaction and marked in the
same transaction of PostgreSQL that holds the lock. A relay that dies in between is made up for by the next one, which publishes
the same records again, in the same order: they are the newest of their keys, so that changes nothing. A relay that lost
its connection and still runs is fenced by the transactional id of the next: what it had begun is never read.
"""

from confluent_kafka import KafkaError, KafkaException, Producer

from connectors.database import EVERY_TENANT, Database
from connectors.log import TIMEOUT_S
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
    """Publish records in one transaction, in their order."""
    producer = Producer({**settings.kafka(), "transactional.id": settings.group("registry"), "enable.idempotence": True})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    for topic, key, value in records:
        producer.produce(settings.topic(topic), value, key)
    if producer.flush(TIMEOUT_S):
        raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT, "the brokers did not take the registry's records"))
    producer.commit_transaction(TIMEOUT_S)
