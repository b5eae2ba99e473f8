"""The ingest worker: one plain loop, one Kafka transaction after another.

A transaction holds everything that a stretch of the events topic has led to: partials, traces, violations, dead
letters, the changelog of open executions, clock ticks, and the input offsets. So everything of a batch exists or
nothing does, and a zombie is fenced by the broker. On any error: abort, exit, be restarted.

One thread: rebalance callbacks come from the same `consume` call as the records.
"""

import gc
import signal
import time
from collections import Counter, deque
from types import FrameType
from typing import Any
from uuid import uuid4

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from agents import ingest_output as output
from agents.ingest_state import load_tracker
from connectors.definitions import DefinitionReader
from connectors.log import offsets_held
from connectors.producers import transactional_producer
from connectors.settings import Settings
from connectors.telemetry import (
    COMMIT_SECONDS,
    COMMITS,
    DATA_LOSS,
    EVENTS,
    EXECUTIONS,
    LIMIT_REACHED,
    OPEN_EXECUTIONS,
    VIOLATIONS,
    WATERMARK,
    Health,
    serve,
)
from connectors.topics import partition_counts
from schemas.topics import EVENTS as EVENTS_TOPIC
from schemas.topics import PARTIALS
from streams.events import decode_chunk
from streams.rules import RuleBook
from streams.tracker import Tracker

log = structlog.get_logger("ingest")

CHUNK = 5_000
POLL_S = 0.02
GC_ALLOCATIONS = 200_000
"""Containers made and not freed before the youngest are looked through; the default is 700."""
LIMIT_COUNTS = ("untracked_steps", "closed_by_limit", "series_over_limit")


class TooManyDeadLetters(Exception):
    """More records were refused than a worker may divert: something is wrong with the producers, not with a record."""


def spare_collections() -> None:
    """Have the garbage collector look seldom: what the worker keeps are trees, which reference counts free.

    With the default thresholds it walks through every remembered execution again and again: a quarter of the
    processor. Cycles, which only errors and libraries make, are still found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 100)


class IngestWorker:
    """Follows the partitions that the consumer group gives it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topic = settings.topic(EVENTS_TOPIC.name)
        self.rules = RuleBook()
        self.trackers: dict[int, Tracker] = {}
        self.health = Health("ingest")
        self.health.details = self._details
        self._definitions = DefinitionReader(settings, self.rules)
        self._analysis_partitions = partition_counts(settings)[settings.topic(PARTIALS.name)]
        self._pending: dict[int, output.Pending] = {}
        self._idle: dict[int, float] = {}
        """Per partition read to its end: when it last held something new (monotonic seconds)."""
        self._records = 0
        self._dead_letters = 0
        self._refusals: deque[tuple[int, int]] = deque()
        self._stopping = False
        self._producer = transactional_producer(
            settings, f"{settings.group('ingest')}-{uuid4().hex}", **{"queue.buffering.max.messages": 1_000_000}
        )
        self._consumer = self._connect_consumer()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; raises on anything that a restart has to mend."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        server = serve(self.health, self.settings)
        log.info("serving", port=server.server_address[1])
        spare_collections()
        self._consumer.subscribe(
            [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        next_commit = time.monotonic() + self.settings.commit_interval_s
        try:
            while not self._stopping:
                self._take(self._consumer.consume(CHUNK, POLL_S))
                now = time.monotonic()
                if now >= next_commit or self._records >= self.settings.commit_events:
                    self._commit(now)
                    next_commit = now + self.settings.commit_interval_s
            self._commit(time.monotonic())
        finally:
            self._consumer.close()
        log.info("stopped")

    # -- one chunk ------------------------------------------------------------------------------------------------

    def _take(self, messages: list[Message]) -> None:
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            if message.error() is not None:
                self._on_error(message)
                continue
            partition = message.partition() or 0
            # In the order of arrival: a partition's end may come in the same batch, behind its last record.
            if self._idle:
                self._idle.pop(partition, None)
            by_partition.setdefault(partition, []).append(message)
        for partition, chunk in by_partition.items():
            self._apply(partition, chunk)

    def _apply(self, partition: int, chunk: list[Message]) -> None:
        tracker = self.trackers[partition]
        events = decode_chunk([message.value() for message in chunk])
        offsets = [message.offset() or 0 for message in chunk]
        refused = tracker.apply(events, offsets, [message.timestamp()[1] * 1000 for message in chunk])
        pending = self._pending.setdefault(partition, output.Pending())
        pending.records += len(chunk)
        self._records += len(chunk)
        if refused:
            by_offset = dict(zip(offsets, chunk, strict=True))
            pending.dead.extend((by_offset[offset], reason) for offset, reason in refused)
        self._limit_dead_letters(len(chunk), len(refused))

    def _limit_dead_letters(self, seen: int, refused: int) -> None:
        self._refusals.append((seen, refused))
        total = sum(n for n, _ in self._refusals)
        while len(self._refusals) > 1 and total - self._refusals[0][0] >= self.settings.dead_letter_window:
            total -= self._refusals.popleft()[0]
        bad = sum(n for _, n in self._refusals)
        if total >= self.settings.dead_letter_window and bad > total * self.settings.dead_letter_ratio:
            raise TooManyDeadLetters(
                f"{bad} of the last {total} records of {self.topic} were refused, more than dead_letter_ratio "
                f"{self.settings.dead_letter_ratio} allows"
            )

    def _on_error(self, message: Message) -> None:
        error = message.error()
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:
            self._idle.setdefault(message.partition() or 0, time.monotonic())
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._skip_gap(message.partition() or 0)
        elif error.fatal() or not error.retriable():
            raise KafkaException(error)
        else:
            log.warning("kafka", error=error.str())

    # -- one transaction ------------------------------------------------------------------------------------------

    def _commit(self, now: float) -> None:
        """Publish what has come together: (1) results, changelog, dead letters, ticks, (2) offsets, (3) commit."""
        self._records = 0
        ticks = self._due_ticks(now)
        self._definitions.poll()
        if not self._pending and not ticks:
            self.health.settled()
            return
        started = time.perf_counter()
        producer = self._producer
        producer.begin_transaction()
        for partition, pending in self._pending.items():
            tracker = self.trackers[partition]
            output.publish(producer, self.settings, self.topic, tracker, pending, self._analysis_partitions)
            self._measure(tracker, pending)
        for partition, time_us in ticks.items():
            output.publish_tick(producer, self.topic, partition, time_us)
            self._idle.pop(partition, None)
        offsets = [TopicPartition(self.topic, p, self.trackers[p].next_offset) for p in self._pending]
        producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata())
        producer.commit_transaction()
        self._pending.clear()
        COMMIT_SECONDS.labels("ingest").observe(time.perf_counter() - started)
        COMMITS.labels("ingest").inc()
        self.health.settled()

    def _due_ticks(self, now: float) -> dict[int, int]:
        """Return {partition: event time} of idle partitions whose clock has to be moved on the log."""
        now_us = time.time_ns() // 1000
        ticks = {}
        for partition, since in self._idle.items():
            tracker = self.trackers[partition]
            event_us, broker_us = tracker.clock
            if now - since >= self.settings.tick_idle_s and event_us:
                ticks[partition] = event_us + max(0, now_us - broker_us)
        return ticks

    def _measure(self, tracker: Tracker, pending: output.Pending) -> None:
        counts = pending.out.counts
        for name in LIMIT_COUNTS:
            LIMIT_REACHED.labels(name).inc(counts.get(name, 0))
        self._dead_letters += len(pending.dead)
        for _, refused in pending.dead:
            EVENTS.labels(refused.stage).inc()
        EVENTS.labels("duplicate").inc(counts.get("duplicates", 0))
        EVENTS.labels("tick").inc(counts.get("ticks", 0))
        others = len(pending.dead) + counts.get("duplicates", 0) + counts.get("ticks", 0)
        EVENTS.labels("applied").inc(pending.records - others)
        for kind, count in Counter(violation.type for violation in pending.out.violations).items():
            VIOLATIONS.labels(kind).inc(count)
        finished = pending.out.finished.values()
        for status, count in Counter(x.status for x in finished if not x.revision).items():
            EXECUTIONS.labels(status).inc(count)
        OPEN_EXECUTIONS.labels(str(tracker.partition)).set(tracker.open_executions)
        WATERMARK.labels("ingest", str(tracker.partition)).set(tracker.watermark_us / 1e6)

    # -- rebalances -----------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        positions = []
        for partition in sorted(tp.partition for tp in assigned):
            tracker = load_tracker(self.settings, partition, self.rules)
            self.trackers[partition] = tracker
            positions.append(TopicPartition(self.topic, partition, self._start(consumer, tracker)))
        consumer.incremental_assign(positions)
        unread = self._unread(consumer)
        for partition in self.trackers:
            self._pending.setdefault(partition, output.Pending()).waiting_for = unread
        self.health.ready = True
        log.info("assigned", partitions=sorted(tp.partition for tp in assigned), all=sorted(self.trackers))

    def _start(self, consumer: Consumer, tracker: Tracker) -> int:
        """Return the offset to go on at: that of the last commit, else the beginning of the log."""
        low, high = offsets_held(consumer, self.topic, tracker.partition)
        committed = consumer.committed([TopicPartition(self.topic, tracker.partition)], timeout=30)[0].offset
        if committed < 0:
            tracker.next_offset = low
        elif committed < low or committed > high:
            self._report_loss(tracker, committed, low if committed < low else high)
        else:
            tracker.next_offset = committed
        return tracker.next_offset

    def _skip_gap(self, partition: int) -> None:
        tracker = self.trackers[partition]
        low, _ = offsets_held(self._consumer, self.topic, partition)
        self._report_loss(tracker, tracker.next_offset, low)
        self._consumer.seek(TopicPartition(self.topic, partition, low))

    def _report_loss(self, tracker: Tracker, first: int, resume_at: int) -> None:
        log.error("data loss", partition=tracker.partition, first_offset=first, resume_at=resume_at)
        DATA_LOSS.labels(self.topic).inc(max(0, resume_at - first))
        tracker.next_offset = resume_at
        self._pending.setdefault(tracker.partition, output.Pending()).lost = (first, resume_at - 1)

    def _unread(self, consumer: Consumer) -> list[int]:
        """Return the partitions that hold records of which the group has read none: no window closes before they report."""
        count = len(consumer.list_topics(self.topic, timeout=30).topics[self.topic].partitions)
        committed = consumer.committed([TopicPartition(self.topic, p) for p in range(count)], timeout=30)
        never = [tp.partition for tp in committed if tp.offset < 0]
        held = {p: offsets_held(consumer, self.topic, p) for p in never}
        return [p for p, (low, high) in held.items() if low < high]

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        self._commit(time.monotonic())
        self._drop(revoked)
        log.info("revoked", partitions=sorted(tp.partition for tp in revoked))

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        # Somebody else may own them already; what is pending must not be committed, so start anew.
        log.error("partitions lost", partitions=sorted(tp.partition for tp in lost))
        raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS, "partitions were lost"))

    def _drop(self, gone: list[TopicPartition]) -> None:
        for tp in gone:
            for state in (self.trackers, self._pending, self._idle):
                state.pop(tp.partition, None)

    # -- clients --------------------------------------------------------------------------------------------------

    def _connect_consumer(self) -> Consumer:
        return Consumer(
            {
                **self.settings.kafka(),
                "group.id": self.settings.group("ingest"),
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": round(self.settings.session_timeout_s * 1000),
                "heartbeat.interval.ms": max(500, round(self.settings.session_timeout_s * 100)),
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 65_536,
            }
        )

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _details(self) -> dict[str, Any]:
        return {
            "partitions": {
                str(p): {
                    "watermark_unix_us": t.watermark_us,
                    "next_offset": t.next_offset,
                    "open_executions": t.open_executions,
                }
                for p, t in sorted(self.trackers.copy().items())
            },
            "definitions": len(self.rules),
            "dead_letters": self._dead_letters,
        }
