"""The intake worker: OTLP receivers, and one plain loop from other people's topics to the events topic.

The receivers put spans on the spans topic, a trace in one partition. The loop reads that, the Collector's topic, CloudEvents and mapped
topics; what a stretch of them has led to (events, spans, dead letters, the changelog of traces) and its offsets are one Kafka
transaction. On any error: abort, exit, be restarted.
"""

import signal
import time
from typing import Any
from uuid import uuid4

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from agents import intake_output as output
from agents.following import Follower, consumer_config
from agents.garbage import spare_collections
from agents.intake_state import restore
from connectors.intake.bridges import Bridge, cloudevents_bridge, mapped_bridge, spans_bridge
from connectors.intake.mapping import read_mappings
from connectors.intake.receivers import Receivers
from connectors.intake.receiving import options_of
from connectors.intake.spans import decode_spans
from connectors.log import offsets_committed, offsets_held
from connectors.producers import Transactions, transactional_producer
from connectors.settings import Settings
from connectors.spans.live import LiveTraces, Produced
from connectors.telemetry import (
    COMMIT_SECONDS,
    COMMITS,
    DATA_LOSS,
    INTAKE_OPEN,
    INTAKE_RECORDS,
    INTAKE_TRACES,
    LAG,
    Health,
    serve,
)
from schemas.topics import CLOUDEVENTS, EVENTS, OPEN_TRACES, SPANS

log = structlog.get_logger("intake")

CHUNK = 1_000
POLL_S = 0.02
REFRESH_MS = 10_000
"""How soon a topic that is made later is seen."""
Place = tuple[str, int]
"""A topic and a partition."""


class IntakeWorker(Follower):
    """Follows the partitions that the consumer group gives it, and answers OTLP."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.health = Health("intake")
        self.health.details = self._details
        self._spans, self._events = settings.topic(SPANS.name), settings.topic(EVENTS.name)
        self._options = options_of(settings)
        self._produced = Produced(settings.intake_max_producers)
        self._bridges = bridges_of(settings)
        self._traces: dict[int, LiveTraces] = {}
        """By partition of the spans topic."""
        self._next: dict[Place, int] = {}
        """Where to go on, of every partition that the group has given."""
        self._changed: set[Place] = set()
        """Those that the transaction is about."""
        self._open = False
        """Whether there is a transaction."""
        producer = transactional_producer(settings, f"{settings.group('intake')}-{settings.worker_id or uuid4().hex}", **{"queue.buffering.max.messages": 1_000_000})
        self._transactions = Transactions(producer, self._on_committed)
        self._receivers = Receivers(settings)
        self._consumer = Consumer({**consumer_config(settings, "intake"), "topic.metadata.refresh.interval.ms": REFRESH_MS})

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; raises on anything that a restart has to mend."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        server = serve(self.health, self.settings)
        log.info("serving", port=server.server_address[1])
        spare_collections()
        kept = self._kept
        self._consumer.subscribe([self._spans, *map(_pattern, self._bridges)], on_assign=kept(self._on_assign), on_revoke=kept(self._on_revoke), on_lost=kept(self._on_lost))
        try:
            self._loop()
        except BaseException as error:
            self._failure = error  # so that nothing is committed when closing takes the partitions away
            self._transactions.abandon()
            raise
        finally:
            self._receivers.close()
            self._consumer.close()
        log.info("stopped")

    def _loop(self) -> None:
        next_commit = time.monotonic() + self.settings.commit_interval_s
        while not self._stopping:
            messages = self._consumer.consume(CHUNK, POLL_S)
            if self._failure is not None:
                raise self._failure
            for message in messages:
                self._take(message)
            if (now := time.monotonic()) >= next_commit:
                self._commit()
                next_commit = now + self.settings.commit_interval_s
        self._commit()
        self._transactions.settle()

    # -- records --------------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        if (error := message.error()) is not None:
            self._on_error(error)
            return
        topic, partition = message.topic() or "", message.partition() or 0
        self._begin()
        if topic == self._spans:
            events = self._traces[partition].take(decode_spans(message.value() or b""), time.time_ns() // 1000)
            output.publish_events(self._transactions.producer, self._events, events)
        else:
            bridged = self._bridges[topic](message)
            INTAKE_RECORDS.labels(topic, bridged.outcome).inc()
            output.publish_bridged(self._transactions.producer, self.settings, message, bridged)
        self._next[topic, partition] = (message.offset() or 0) + 1
        self._changed.add((topic, partition))

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return  # other people's topic was deleted; should it come back, it is read
        if error.fatal() or not error.retriable():
            raise KafkaException(error)
        log.warning("kafka", error=error.str())

    # -- one transaction ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._open:
            self._transactions.begin()
            self._open = True

    def _commit(self) -> None:
        """Tell what was held for long enough; commit that, what was read, the changelog and the offsets."""
        now_us = time.time_ns() // 1000
        for partition, traces in self._traces.items():
            if events := traces.due(now_us):
                self._begin()
                output.publish_events(self._transactions.producer, self._events, events)
                self._changed.add((self._spans, partition))
        if not self._open:
            self.health.settled()
            return
        changelog = self.settings.topic(OPEN_TRACES.name)
        for topic, partition in self._changed:
            offset = self._next[topic, partition]
            if topic == self._spans:
                output.publish_changelog(self._transactions.producer, changelog, partition, self._traces[partition], offset)
                INTAKE_OPEN.labels(str(partition)).set(len(self._traces[partition].traces))
            self._measure(topic, partition, offset)
        offsets = [TopicPartition(topic, partition, self._next[topic, partition]) for topic, partition in self._changed]
        self._transactions.commit(offsets, self._consumer.consumer_group_metadata())
        self._changed.clear()
        self._open = False

    def _measure(self, topic: str, partition: int, offset: int) -> None:
        _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        LAG.labels("intake", topic, str(partition)).set(max(0, end - offset))

    def _on_committed(self, took_s: float) -> None:
        COMMIT_SECONDS.labels("intake").observe(took_s)
        COMMITS.labels("intake").inc()
        self.health.settled()

    # -- rebalances -----------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        starts = []
        for topic in sorted({tp.topic for tp in assigned}):
            committed = offsets_committed(consumer, topic, [tp.partition for tp in assigned if tp.topic == topic])
            for partition, offset in committed.items():
                if topic == self._spans:
                    self._traces[partition] = self._live_traces()
                    restore(self._traces[partition], self.settings, partition, offset)
                self._next[topic, partition] = self._start(consumer, topic, partition, offset)
                starts.append(TopicPartition(topic, partition, self._next[topic, partition]))
        consumer.incremental_assign(starts)
        self.health.ready = True
        log.info("assigned", partitions=[f"{tp.topic}/{tp.partition}" for tp in starts])

    def _start(self, consumer: Consumer, topic: str, partition: int, committed: int) -> int:
        """Return where to begin: where the last commit ended, else with the first record; what is gone is reported."""
        low, high = offsets_held(consumer, topic, partition)
        if committed < 0 or low <= committed <= high:
            return low if committed < 0 else committed
        resume_at = low if committed < low else high
        log.error("data loss", topic=topic, partition=partition, first_offset=committed, resume_at=resume_at)
        DATA_LOSS.labels(topic).inc(max(0, resume_at - committed))
        self._begin()
        output.publish_loss(self._transactions.producer, self.settings, topic, partition, committed, resume_at)
        self._changed.add((topic, partition))
        return resume_at

    def _live_traces(self) -> LiveTraces:
        settings = self.settings
        return LiveTraces(
            self._options, round(settings.intake_hold_s * 1e6), round(settings.intake_linger_s * 1e6), settings.intake_max_traces,
            self._produced, lambda basis: INTAKE_TRACES.labels(basis).inc(),
        )  # fmt: skip

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        self._commit()
        self._transactions.settle()
        for tp in revoked:
            self._next.pop((tp.topic, tp.partition), None)
            if tp.topic == self._spans:
                self._traces.pop(tp.partition, None)
        log.info("revoked", partitions=[f"{tp.topic}/{tp.partition}" for tp in revoked])

    # -- process --------------------------------------------------------------------------------------------------

    def _details(self) -> dict[str, Any]:
        traces = {str(partition): len(held.traces) for partition, held in sorted(self._traces.copy().items())}
        return {"open_traces": traces, "otlp": self._receivers.addresses}


def bridges_of(settings: Settings) -> dict[str, Bridge]:
    """Return {topic: what makes events of its records}."""
    bridges: dict[str, Bridge] = {settings.topic(CLOUDEVENTS.name): cloudevents_bridge(settings)}
    if settings.intake_spans_topic:
        bridges[settings.intake_spans_topic] = spans_bridge(settings, options_of(settings))
    if settings.intake_mapping:
        bridges |= {topic: mapped_bridge(settings, mapper) for topic, mapper in read_mappings(settings.intake_mapping).items()}
    return bridges


def _pattern(topic: str) -> str:
    """Return a topic as a pattern: subscribed to by name, one that nobody has made yet would be an error."""
    return f"^{topic.replace('.', '[.]')}$"

