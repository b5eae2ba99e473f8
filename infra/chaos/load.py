"""The load of a run of chaos: bursts over a steady trickle, disturbed on the way, in a thread of its own."""

import heapq
import threading
import time
from collections.abc import Iterator
from itertools import count
from random import Random

from confluent_kafka import KafkaException, Producer, TopicPartition

from connectors.log import reader
from connectors.settings import Settings
from infra.chaos.disturb import Disturber, Sent
from infra.chaos.plan import Plan
from infra.simulator import Fault
from infra.simulator.load import Recording, Stamped, record
from schemas.topics import EVENTS

SLICE_S = 0.01
TRICKLE = 0.04
"""Share of a burst's rate that comes all the time."""
EVENTS_PER_EXECUTION = 11.0
FLUSH_S = 120.0
METER_S = 1.0
FAULTS = (
    Fault("error_burst", "database-service", 0.2, 0.4), Fault("slow", "trading-engine", 0.5, 0.8),
    Fault("silence", "central-hub", 1.0, 0.1), Fault("crash", "consensus-engine", 1.3, 0.1),
)  # fmt: skip
"""What breaks in every round, so that there is something to say."""


class Load(threading.Thread):
    """Sends what the plan says, from `start` to its last second or `stop`."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(name="load", daemon=True)
        self.sent = 0
        """Records that were given to the client, and that the brokers have unless `failed`."""
        self.failed: list[str] = []
        self.error: BaseException | None = None
        self.rates: list[float] = []
        """Events per second that the brokers took in each burst; none for a burst in which they were away."""
        self.disturber = Disturber(Random(f"disturb {plan.seed}"), settings.limits)
        self._settings, self._plan = settings, plan
        self._topic = settings.topic(EVENTS.name)
        self._done = threading.Event()
        self._held: list[tuple[int, int, bytes, bytes | None]] = []
        self._order = count()
        self._burst = record(plan.seed, plan.rate / EVENTS_PER_EXECUTION, FAULTS)
        self._trickle = record(plan.seed + 1, plan.rate * TRICKLE / EVENTS_PER_EXECUTION, FAULTS)
        self._producer = Producer(
            {
                **settings.kafka(), "acks": "all", "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 10,
                "partitioner": "murmur2_random", "queue.buffering.max.messages": 5_000_000,
                "queue.buffering.max.kbytes": 2_000_000, "message.timeout.ms": 600_000, "delivery.report.only.error": True,
            }
        )  # fmt: skip

    def run(self) -> None:
        """Send everything; an error ends it and is kept."""
        try:
            self._run(time.time_ns() // 1000)
        except BaseException as error:
            self.error = error
            raise

    def stop(self) -> None:
        """End it soon."""
        self._done.set()

    def _run(self, began_us: int) -> None:
        end_us = began_us + round(self._plan.seconds * 1e6)
        bursts = [(began_us + round(a * 1e6), began_us + round(b * 1e6)) for a, b in self._plan.bursts]
        trickle = _Source(self._trickle, began_us, 0)
        rounds, meter = 0, Meter(self._settings, self._topic)
        for first_us, last_us in bursts:
            self._send_until(first_us, trickle)
            burst = _Source(self._burst, first_us, rounds)
            meter.begin()
            self._send_until(last_us, trickle, burst)
            self._producer.flush(1.0)
            self.rates += meter.end()
            rounds = burst.number + 1
        self._send_until(end_us, trickle)
        self._send_until(end_us + self._settings.limits.grace_us // 2)  # what is still held
        left = self._producer.flush(FLUSH_S)
        self.failed += [f"{left} records could not be delivered"] if left else []

    def _send_until(self, end_us: int, *sources: "_Source") -> None:
        """Send what the sources and the held-back have until then, in real time."""
        now_us = 0
        while now_us < end_us and not self._done.is_set():
            now_us = min(end_us, time.time_ns() // 1000)
            for source in sources:
                for event in source.due(now_us):
                    for sent in self.disturber.send(event):
                        self._send_at(sent, now_us)
            while self._held and self._held[0][0] <= now_us:
                _, _, key, value = heapq.heappop(self._held)
                self._send(key, value)
            if not sources and not self._held:
                return
            self._producer.poll(SLICE_S)

    def _send_at(self, sent: Sent, now_us: int) -> None:
        at_us, key, value = sent
        if at_us <= now_us:
            self._send(key, value)
        else:
            heapq.heappush(self._held, (at_us, next(self._order), key, value))

    def _send(self, key: bytes, value: bytes | None) -> None:
        self._producer.produce(self._topic, value, key, on_delivery=self._told)
        self.sent += 1

    def _told(self, error: object, message: object) -> None:
        if error is not None:
            self.failed.append(str(error))


class _Source:
    """The events of a recording in real time."""

    def __init__(self, recording: Recording, origin_us: int, first_round: int) -> None:
        self.number = first_round
        self._recording, self._origin_us = recording, origin_us
        self._round = recording.round(first_round, origin_us)
        self._next: Stamped | None = next(self._round)

    def due(self, now_us: int) -> Iterator[Stamped]:
        """Yield what has happened by now."""
        while self._next is not None and self._next.time_us <= now_us:
            yield self._next
            self._next = next(self._round, None)
            if self._next is None:
                self.number += 1
                self._origin_us += self._recording.round_us
                self._round = self._recording.round(self.number, self._origin_us)
                self._next = next(self._round)


class Meter:
    """How many records the brokers take per second from `begin` to `end`."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._partitions = [TopicPartition(topic, number) for number in range(settings.source_partitions)]
        self._consumer = reader(settings)
        self._began: tuple[float, int] | None = None

    def begin(self) -> None:
        """Begin to measure."""
        self._began = self._read()

    def end(self) -> list[float]:
        """Return the rate since the beginning; nothing if the brokers were away at one end."""
        began, now = self._began, self._read()
        return [(now[1] - began[1]) / (now[0] - began[0])] if began and now else []

    def _read(self) -> tuple[float, int] | None:
        try:
            ends = [self._consumer.get_watermark_offsets(tp, timeout=METER_S)[1] for tp in self._partitions]
        except KafkaException:
            return None
        return time.monotonic(), sum(ends)
