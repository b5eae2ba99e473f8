"""The ingest worker: one plain loop, one Kafka transaction after another.

A transaction holds everything that a stretch of the events topic has led to: partials, traces, violations, dead
letters, the changelog of open executions, clock ticks, and the input offsets. So everything of a batch exists or
nothing does, and a zombie is fenced by the broker. On any error: abort, exit, be restarted.

One thread does all the work, and rebalance callbacks come from the same `consume` call as the records; only the commit
of a transaction runs beside it, while the records of the next one are applied.
"""

import signal
import time
from itertools import groupby
from typing import Any, cast
from uuid import uuid4

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from agents import ingest_output as output
from agents.following import Follower, consumer_config
from agents.garbage import spare_collections
from agents.ingest_letters import dead_letters
from agents.ingest_metrics import measure
from agents.ingest_progress import ProgressDesk
from agents.ingest_state import load_tracker
from connectors.definitions import DefinitionReader
from connectors.log import offsets_committed, offsets_held
from connectors.producers import Transactions, transactional_producer
from connectors.settings import Settings
from connectors.telemetry import COMMIT_SECONDS, COMMITS, DATA_LOSS, Health, serve
from connectors.topics import partition_counts
from schemas.topics import EVENTS as EVENTS_TOPIC
from schemas.topics import PARTIALS
from streams.events import decode_chunk
from streams.refusals import Refusals
from streams.rules import RuleBook
from streams.tracker import Tracker

log = structlog.get_logger("ingest")

CHUNK = 5_000
POLL_S = 0.02


class TooManyDeadLetters(Exception):
    """More records were refused than a worker may divert: something is wrong with the producers, not with a record."""

    exit_code = 65
    """EX_DATAERR: a restart mends nothing."""


class IngestWorker(Follower):
    """Follows the partitions that the consumer group gives it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.topic = settings.topic(EVENTS_TOPIC.name)
        self.rules = RuleBook(limit=settings.max_definitions)
        self.trackers: dict[int, Tracker] = {}
        self.health = Health("ingest")
        self.health.details = self._details
        self._definitions = DefinitionReader(settings, self.rules)
        partitions = partition_counts(settings)
        self._all_partitions = range(partitions[self.topic])
        self._analysis_partitions = partitions[settings.topic(PARTIALS.name)]
        self._progress = ProgressDesk(self.trackers, settings.max_chains)
        self._pending: dict[int, output.Pending] = {}
        self._idle: dict[int, float] = {}
        """Per partition read to its end: when it last held something new (monotonic seconds)."""
        self._events = 0
        """Applied since the last commit."""
        self._chunk = CHUNK
        """How many messages are asked for: those of the last chunk held CHUNK events, about."""
        self._dead_letters = 0
        self._refusals = Refusals(settings.dead_letter_window, settings.dead_letter_ratio)
        transactional_id = f"{settings.group('ingest')}-{settings.worker_id or uuid4().hex}"
        producer = transactional_producer(settings, transactional_id, **{"queue.buffering.max.messages": 1_000_000})
        self._transactions = Transactions(producer, self._on_committed)
        self._consumer = Consumer({**consumer_config(settings, "ingest"), "enable.partition.eof": True})

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; raises on anything that a restart has to mend."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        server = serve(self.health, self.settings, self._progress.ask)
        log.info("serving", port=server.server_address[1])
        spare_collections()
        self._consumer.subscribe(
            [self.topic], on_assign=self._kept(self._on_assign), on_revoke=self._kept(self._on_revoke),
            on_lost=self._kept(self._on_lost),
        )  # fmt: skip
        next_commit = time.monotonic() + self.settings.commit_interval_s
        try:
            while not self._stopping:
                messages = self._consumer.consume(self._chunk, POLL_S)
                if self._failure is not None:
                    raise self._failure
                self._take(messages)
                self._progress.answer()
                now = time.monotonic()
                if now >= next_commit or self._events >= self.settings.commit_events:
                    self._commit(now)
                    next_commit = now + self.settings.commit_interval_s
            self._commit(time.monotonic())
            self._transactions.settle()
        except BaseException as error:
            self._failure = error  # so that nothing is committed when closing takes the partitions away
            self._transactions.abandon()
            raise
        finally:
            self._consumer.close()
        log.info("stopped")

    # -- one chunk ------------------------------------------------------------------------------------------------

    def _take(self, messages: list[Message]) -> None:
        for partition, run in groupby(messages, Message.partition):
            chunk = list(run)
            if any(map(Message.error, chunk)):
                self._take_with_errors(partition or 0, chunk)
            else:
                self._apply(partition or 0, chunk)

    def _take_with_errors(self, partition: int, chunk: list[Message]) -> None:
        """In the order of arrival: a partition's end may come behind its last record, and before its next one."""
        for failed, run in groupby(chunk, lambda message: message.error() is not None):
            if failed:
                for message in run:
                    self._on_error(message)
            else:
                self._apply(partition, list(run))

    def _apply(self, partition: int, chunk: list[Message]) -> None:
        self._idle.pop(partition, None)
        tracker = self.trackers[partition]
        decoded = decode_chunk(list(map(Message.value, chunk)))
        offsets = cast(list[int], list(map(Message.offset, chunk)))
        broker_us = [at_ms * 1000 for _, at_ms in map(Message.timestamp, chunk)]
        refused = tracker.apply(decoded.events, decoded.spread(offsets), decoded.spread(broker_us))
        pending = self._pending.setdefault(partition, output.Pending())
        events = len(decoded.events)
        pending.events += events
        self._events += events
        self._chunk = max(1, CHUNK * len(chunk) // events)
        if refused:
            pending.dead += dead_letters(chunk, decoded, refused)
        if self._refusals.add(partition, events, len(refused)):
            raise TooManyDeadLetters(self._refusals.sentence(self.topic))

    def _on_error(self, message: Message) -> None:
        error = message.error()
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:
            partition = message.partition() or 0
            self._idle.setdefault(partition, time.monotonic())
            if not self.trackers[partition].watermark_us:
                self._pending.setdefault(partition, output.Pending()).idle = True
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._skip_gap(message.partition() or 0)
        elif error.fatal() or not error.retriable():
            raise KafkaException(error)
        else:
            log.warning("kafka", error=error.str())

    # -- one transaction ------------------------------------------------------------------------------------------

    def _commit(self, now: float) -> None:
        """Publish what has come together: (1) results, changelog, dead letters, ticks, (2) offsets, (3) commit."""
        self._events = 0
        ticks = self._due_ticks(now)
        self._definitions.poll()
        if not self._pending and not ticks:
            self.health.settled()
            return
        transactions = self._transactions
        transactions.begin()
        for partition, pending in self._pending.items():
            tracker = self.trackers[partition]
            pending.recent = self._refusals.of(partition)
            output.publish(
                transactions.producer, self.settings, self.topic, tracker, pending, self._analysis_partitions
            )
            self._measure(tracker, pending)
            output.let_rest(pending)
        for partition, time_us in ticks.items():
            output.publish_tick(transactions.producer, self.topic, partition, time_us)
            self._idle.pop(partition, None)
        offsets = [TopicPartition(self.topic, p, self.trackers[p].next_offset) for p in self._pending]
        transactions.commit(offsets, self._consumer.consumer_group_metadata())
        self._pending.clear()

    def _on_committed(self, took_s: float) -> None:
        COMMIT_SECONDS.labels("ingest").observe(took_s)
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
        _, end = self._consumer.get_watermark_offsets(TopicPartition(self.topic, tracker.partition), cached=True)
        measure(self.topic, tracker, pending, end)
        self._dead_letters += len(pending.dead)
        self._progress.learn(tracked.execution for tracked in pending.out.finished.values())

    # -- rebalances -----------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        partitions = sorted(tp.partition for tp in assigned)
        committed = offsets_committed(consumer, self.topic, partitions)
        positions = []
        for partition in partitions:
            tracker = load_tracker(self.settings, partition, self.rules, self._refusals, committed[partition])
            self.trackers[partition] = tracker
            self._start(consumer, tracker, is_new=committed[partition] < 0)
            positions.append(TopicPartition(self.topic, partition, tracker.next_offset))
        consumer.incremental_assign(positions)
        unread = self._unread(consumer)
        for partition in self.trackers:
            self._pending.setdefault(partition, output.Pending()).waiting_for = unread
        self.health.ready = True
        log.info("assigned", partitions=partitions, all=sorted(self.trackers))

    def _start(self, consumer: Consumer, tracker: Tracker, is_new: bool) -> None:
        """Have the tracker go on where its last commit ended, or a new one at the beginning of the log."""
        low, high = offsets_held(consumer, self.topic, tracker.partition)
        if is_new:
            tracker.next_offset = low
        elif not low <= tracker.next_offset <= high:
            self._report_loss(tracker, tracker.next_offset, low if tracker.next_offset < low else high)

    def _skip_gap(self, partition: int) -> None:
        tracker = self.trackers[partition]
        low, _ = offsets_held(self._consumer, self.topic, partition)
        self._report_loss(tracker, tracker.next_offset, low)
        # Not by a seek: the client has given up fetching the partition.
        self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])
        self._consumer.incremental_assign([TopicPartition(self.topic, partition, low)])

    def _report_loss(self, tracker: Tracker, first: int, resume_at: int) -> None:
        log.error("data loss", partition=tracker.partition, first_offset=first, resume_at=resume_at)
        DATA_LOSS.labels(self.topic).inc(max(0, resume_at - first))
        tracker.next_offset = resume_at
        self._pending.setdefault(tracker.partition, output.Pending()).lost.append((first, resume_at - 1))

    def _unread(self, consumer: Consumer) -> list[int]:
        """Return the partitions that hold records of which the group has read none: no window closes before they report.

        Nothing here may ask the consumer for metadata: within a callback that makes the client forget that it is being
        polled, and the next callback of the same `consume` aborts the process.
        """
        never = [p for p, offset in offsets_committed(consumer, self.topic, self._all_partitions).items() if offset < 0]
        held = {p: offsets_held(consumer, self.topic, p) for p in never}
        return [p for p, (low, high) in held.items() if low < high]

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        self._commit(time.monotonic())
        self._transactions.settle()
        self._drop(revoked)
        log.info("revoked", partitions=sorted(tp.partition for tp in revoked))

    def _drop(self, gone: list[TopicPartition]) -> None:
        for tp in gone:
            self._refusals.forget(tp.partition)
            for state in (self.trackers, self._pending, self._idle):
                state.pop(tp.partition, None)

    # -- process ---------------------------------------------------------------------------------------------------

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
