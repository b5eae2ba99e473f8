"""Reads the live topics once per process, on a thread of its own: into the hub's rings and the view of executions."""

import asyncio
import threading
from collections.abc import Iterator

import orjson
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import ValidationError

from connectors.definitions import put_in_force
from connectors.http.live.executions import LiveExecutions, records_of
from connectors.http.live.frames import STREAMS, Frame, Position, Stream, frame
from connectors.http.live.hub import Hub
from connectors.log import TIMEOUT_S, offsets_held, read_range, reader
from connectors.settings import Settings
from schemas import topics
from schemas.slo import SloStatus
from schemas.topics import Topic
from streams.rules import RuleBook

log = structlog.get_logger("http")
BATCH_S = 0.05
FROM_START = {topics.OPEN_EXECUTIONS.name, topics.DEFINITIONS.name, topics.SLO.name}
"""Compacted topics: what they hold is the state."""


class Feed:
    """Follows the live topics from when it is started to when it is closed."""

    def __init__(self, settings: Settings, hub: Hub) -> None:
        self._settings = settings
        self._hub = hub
        self._streams = {settings.topic(stream.topic.name): stream for stream in STREAMS.values()}
        self._changelog = settings.topic(topics.OPEN_EXECUTIONS.name)
        self._positions: dict[str, dict[int, int]] = {name: {} for name in STREAMS}
        self._unread: set[tuple[str, int]] = set()
        self._batch = max(1, min(5_000, settings.live_frames // 4))
        """More at once would go over the place of clients that are not slow."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.rules = RuleBook((), settings.max_definitions)
        self.executions = LiveExecutions(self.rules, settings.live_finished)
        self.slos: dict[tuple[str, str], SloStatus] = {}
        """By tenant and chain."""
        self.failure: str | None = None
        """Why it has ended, in a sentence; the process is not ready any more then."""

    @property
    def ready(self) -> bool:
        """Whether everything that stood on the log at the start was read."""
        return self._thread is not None and self._thread.is_alive() and not self._unread

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, in the loop's name. Raises KafkaException when the brokers do not answer or a topic is missing."""
        consumer = reader(self._settings)
        starts = self._starts(consumer)
        floors: dict[str, dict[int, int]] = {name: {} for name in STREAMS}
        for at in starts:
            if at.topic in self._streams:
                name = self._streams[at.topic].name
                floors[name][at.partition] = at.offset
                self._positions[name][at.partition] = at.offset - 1
        self._hub.begin(floors)
        consumer.assign(starts)
        self._thread = threading.Thread(target=self._run, args=(consumer, loop), name="feed", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _starts(self, consumer: Consumer) -> list[TopicPartition]:
        """Return where to begin: compacted topics at their beginning, others so far back that the rings are filled."""
        held = consumer.list_topics(timeout=TIMEOUT_S).topics
        starts = []
        for topic in (*self._streams, self._changelog):
            if topic not in held:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"topic {topic} is missing; `flowchain topics apply` makes it"))
            for partition in held[topic].partitions:
                low, high = offsets_held(consumer, topic, partition)
                compacted = topic.removeprefix(self._settings.topic_prefix) in FROM_START
                start = low if compacted else max(low, high - self._settings.live_frames // len(held[topic].partitions))
                starts.append(TopicPartition(topic, partition, start))
                if start < high:
                    self._unread.add((topic, partition))
        return starts

    def _run(self, consumer: Consumer, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while not self._stop.is_set():
                frames: dict[str, list[Frame]] = {}
                for message in consumer.consume(self._batch, BATCH_S):
                    self._take(message, frames)
                if frames:
                    loop.call_soon_threadsafe(self._hub.publish, frames)
        except KafkaException as error:
            self.failure = str(error.args[0])
            log.error("the live feed has ended", reason=self.failure)
        except RuntimeError:
            if not loop.is_closed():
                raise
        finally:
            consumer.close()

    def _take(self, message: Message, frames: dict[str, list[Frame]]) -> None:
        topic, partition, error = message.topic() or "", message.partition() or 0, message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._unread.discard((topic, partition))
            elif not error.retriable():
                raise KafkaException(error)
            return
        if topic == self._changelog:
            self.executions.changed(partition, message.key() or b"", message.value())
        else:
            stream = self._streams[topic]
            frames.setdefault(stream.name, []).extend(self._frames(stream, message))

    def _frames(self, stream: Stream, message: Message) -> Iterator[Frame]:
        value, partition, offset = message.value(), message.partition() or 0, message.offset() or 0
        if stream.topic in (topics.DEFINITIONS, topics.SLO):
            self._keep(stream.topic, message.key() or b"", value, offset)
        if value is None:  # a tombstone
            self._positions[stream.name][partition] = offset
            return
        records = self.executions.ended(value) if stream.topic is topics.TRACES else [value]
        yield from frames_of(stream, partition, offset, records, self._positions[stream.name])

    def _keep(self, topic: Topic, key: bytes, value: bytes | None, offset: int) -> None:
        try:
            if topic is topics.DEFINITIONS:
                put_in_force(self.rules, key, value or None)
            elif value:
                status = SloStatus.decode(value)
                self.slos[status.tenant, status.chain] = status
        except ValidationError as error:
            log.error("record refused", topic=topic.name, offset=offset, reason=str(error.errors()[0]["msg"]))


def frames_of(stream: Stream, partition: int, offset: int, records: list[bytes], position: dict[int, int]) -> Iterator[Frame]:
    """Yield the records of one message as frames; what is no record of ours is passed over with a line in the log.

    The position is behind the message only with its last record: whoever resumes in its midst gets all of it again.
    """
    for number, record in enumerate(records, 1):
        position[partition] = offset if number == len(records) else offset - 1
        try:
            facts = stream.facts(orjson.loads(record))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.error("live record not understood", stream=stream.name, partition=partition, offset=offset, reason=repr(error)[:200])
            continue
        yield frame(stream, partition, offset, facts, record, position)


def catch_up(settings: Settings, stream: Stream, after: Position, before: Position) -> Iterator[Frame]:
    """Yield what lies behind `after` and before the offsets `before`, partition by partition, from the log itself.

    Raises KafkaException when some of it is not there any more.
    """
    position = dict(after)
    for partition, stop in sorted(before.items()):
        start = after.get(partition, -1) + 1
        if start >= stop:
            continue
        for message in read_range(settings, settings.topic(stream.topic.name), partition, start, stop):
            value = message.value()
            if value is not None:
                records = records_of(value) if stream.topic is topics.TRACES else [value]
                yield from frames_of(stream, partition, message.offset() or 0, records, position)
