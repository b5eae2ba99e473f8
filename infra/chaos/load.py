"""The load of a run of chaos: bursts over a steady trickle, disturbed on the way, in a thread of its own."""

import threading
import time
from collections.abc import Iterator
from itertools import chain, count, takewhile
from operator import itemgetter
from random import Random

from confluent_kafka import KafkaException, Producer, TopicPartition

from connectors.log import reader
from connectors.settings import Settings
from infra.chaos.disturb import Disturber, Sent
from infra.chaos.plan import BURST_EVERY_S, BURST_S, Plan
from infra.simulator import Fault
from infra.simulator.load import Stamped, record
from schemas.topics import EVENTS

SLICE_S = 0.01
TRICKLE = 0.04
"""Share of a burst's rate that comes all the time."""
EVENTS_PER_EXECUTION = 11.0
FLUSH_S = 120.0
METER_S = 1.0
BURST_US, QUIET_US = round(BURST_S * 1e6), round((BURST_EVERY_S - BURST_S) * 1e6)
ROUNDS = 100
"""More rounds of a recording than fit into a cycle: their numbers are used once."""
FAULTS = (
    Fault("error_burst", "database-service", 0.2, 0.4), Fault("slow", "trading-engine", 0.5, 0.8),
    Fault("silence", "central-hub", 1.0, 0.1), Fault("crash", "consensus-engine", 1.3, 0.1),
)  # fmt: skip
"""What breaks in every round, so that there is something to say."""


class Load(threading.Thread):
    """Sends one cycle after the other from `start` to `stop`: a trickle, and a burst at its end.

    What a cycle consists of is made before it begins, so that sending it costs the processor little.
    """

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(name="load", daemon=True)
        self.sent = 0
        """Records that were given to the client, and that the brokers have unless `failed`."""
        self.failed: list[str] = []
        self.error: BaseException | None = None
        self.rates: list[float] = []
        """Events per second that the brokers took in each burst; none for a burst in which they were away."""
        self.disturber = Disturber(Random(f"disturb {plan.seed}"), settings.limits)
        self._topic = settings.topic(EVENTS.name)
        self._meter = Meter(settings, self._topic)
        self._done, self._bursting = threading.Event(), threading.Event()
        self._left: list[Sent] = []
        """What was held back beyond its cycle."""
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
        """End it when the running cycle is over and what is held back has been sent."""
        self._done.set()

    @property
    def bursting(self) -> bool:
        """Whether a burst is being sent."""
        return self._bursting.is_set()

    def _run(self, at_us: int) -> None:
        for number in count():
            if self._done.is_set():
                break
            cycle = self._cycle(number, at_us)
            burst_us, at_us = at_us + QUIET_US, at_us + QUIET_US + BURST_US
            rest = self._send_until(burst_us, cycle)
            self._meter.begin()
            self._bursting.set()
            self._left = self._send_until(at_us, rest)
            self._bursting.clear()
            self._producer.flush(1.0)
            self.rates += self._meter.end()
        self._send_until(self._left[-1][0] if self._left else 0, self._left)
        left = self._producer.flush(FLUSH_S)
        self.failed += [f"{left} records could not be delivered"] if left else []

    def _cycle(self, number: int, origin_us: int) -> list[Sent]:
        """Return what is sent in a cycle, and what of it is held back longer, in the order of sending."""
        end_us = origin_us + QUIET_US + BURST_US
        trickle = self._trickle.rounds(origin_us, number * ROUNDS)
        burst = self._burst.rounds(origin_us + QUIET_US, number * ROUNDS)
        events = chain(_before(end_us, trickle), _before(end_us, burst))
        sent = self._left + [each for event in events for each in self.disturber.send(event)]
        sent.sort(key=itemgetter(0))
        return sent

    def _send_until(self, end_us: int, sent: list[Sent]) -> list[Sent]:
        """Send what is due until then, in real time; return the rest."""
        done, now_us = 0, 0
        while now_us < end_us and done < len(sent):
            now_us = min(end_us, time.time_ns() // 1000)
            while done < len(sent) and sent[done][0] <= now_us:
                _, key, value = sent[done]
                self._producer.produce(self._topic, value, key, on_delivery=self._told)
                done += 1
            self._producer.poll(SLICE_S)
        self.sent += done
        return sent[done:]

    def _told(self, error: object, message: object) -> None:
        if error is not None:
            self.failed.append(str(error))


def _before(end_us: int, events: Iterator[Stamped]) -> Iterator[Stamped]:
    return takewhile(lambda event: event.time_us < end_us, events)


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
