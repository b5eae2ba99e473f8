"""What the plain loops of ingest and intake share: how they join their consumer group, and how its rebalances end them."""

from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.settings import Settings

log = structlog.get_logger("following")
Rebalance = Callable[[Consumer, list[TopicPartition]], None]


class Follower:
    """A worker that follows the partitions its group gives it, until it is told to stop or something fails."""

    def __init__(self) -> None:
        self._failure: BaseException | None = None
        """What ended the loop, or was raised in a rebalance callback, where the client would lose it."""
        self._stopping = False

    def _kept(self, callback: Rebalance) -> Rebalance:
        """Return a callback that keeps what it raises for the loop; after the first error there is nothing more to do."""

        def call(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                if self._failure is None:
                    callback(consumer, partitions)
            except Exception as error:  # noqa: BLE001 - raised again by the loop
                self._failure = error

        return call

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        # Somebody else may own them already; what is pending must not be committed, so start anew.
        log.error("partitions lost", partitions=sorted(f"{tp.topic}/{tp.partition}" for tp in lost))
        raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS, "partitions were lost"))

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True


def consumer_config(settings: Settings, group: str) -> dict[str, Any]:
    """Return how such a worker consumes: committed records, offsets in its own transactions, gaps told instead of skipped."""
    return {
        **settings.kafka(),
        "group.id": settings.group(group),
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
        # Back under its name a worker has its partitions again at once, and not after session_timeout_s.
        **({"group.instance.id": settings.worker_id} if settings.worker_id else {}),
        "session.timeout.ms": round(settings.session_timeout_s * 1000),
        "heartbeat.interval.ms": max(500, round(settings.session_timeout_s * 100)),
        "fetch.queue.backoff.ms": 5,
        "fetch.wait.max.ms": 50,
        "queued.max.messages.kbytes": 65_536,
    }
