"""The simulator's faults through the whole core in memory: events, trackers, analysis; what is heard, and when.

What Kafka and the workers add is only this: a record's broker time, which here is the simulator's true time, and
clock.ticks once a source is silent. Every transaction of ingest holds 100 ms.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple
from zlib import crc32

import orjson

from agents.analysis import analysis_settings
from connectors.settings import Settings
from infra.demo import SETTINGS
from infra.simulator import Config, Fault, FaultTruth, Simulation, Truth, definitions
from infra.simulator.recorder import Recorder
from schemas.analysis import Alert, Anomaly
from schemas.internal import Partial
from schemas.violations import Violation
from streams.analysis import Analysis, Findings
from streams.events import ClockTick, decode_chunk
from streams.rules import RuleBook
from streams.tracker import Refusal, Tracker

SECOND = 1_000_000
START_US = 1_750_000_000 * SECOND
SOURCES = 2
TRANSACTION_US = 100_000
SILENCE_S = 30
"""Silent time after the last event: enough for every incident to end."""
TOPIC = "flowchain.events.v1"


class Told(NamedTuple):
    """An alert, and the event time that its source partitions had reached."""

    at_us: int
    alert: Alert


class World:
    """One run's events on their way through trackers and analysis."""

    def __init__(self) -> None:
        settings = Settings(**SETTINGS)  # type: ignore[arg-type]
        rules = RuleBook(definitions())
        self.trackers = [Tracker(TOPIC, number, rules, settings.limits) for number in range(SOURCES)]
        self.analysis = Analysis(analysis_settings(settings))
        self.told: list[Told] = []
        self.anomalies: list[Anomaly] = []
        self.violations: list[Violation] = []
        self.refused: list[Refusal] = []
        self.counted = 0
        self._offsets = [0] * SOURCES

    def take(self, key: bytes, value: bytes, broker_us: int) -> None:
        """Bring one record to its source partition."""
        self._apply(crc32(key) % SOURCES, decode_chunk([value]).events, broker_us)

    def tick(self, at_us: int) -> None:
        """Let silent time pass on every source partition."""
        for number in range(SOURCES):
            self._apply(number, [ClockTick(at_us)], at_us)

    def _apply(self, number: int, events: list, broker_us: int) -> None:  # type: ignore[type-arg]
        self.refused += self.trackers[number].apply(events, [self._offsets[number]], [broker_us])
        self._offsets[number] += 1

    def commit(self) -> None:
        """End a transaction of every source partition."""
        for number, tracker in enumerate(self.trackers):
            out = tracker.take()
            self.violations += out.violations
            self.counted += sum(delta.events for piece in out.slices for delta in piece.deltas)
            partial = Partial(TOPIC, number, tracker.watermark_us, tracker.next_offset - 1, out.slices)
            for findings in self.analysis.apply(partial):
                self._hear(tracker.watermark_us, findings)

    def _hear(self, at_us: int, findings: Findings) -> None:
        self.anomalies += findings.anomalies
        self.violations += findings.violations
        self.told += [Told(at_us, alert) for alert in findings.alerts]


class Run(NamedTuple):
    """What really happened, and what was said of it."""

    truth: Truth
    world: World

    @property
    def fault(self) -> FaultTruth:
        """The fault that was injected."""
        return self.truth.faults[0]

    @property
    def newest(self) -> list[Alert]:
        """The newest revision of every alert."""
        return list({told.alert.id: told.alert for told in self.world.told}.values())

    def right_after_s(self) -> float | None:
        """Return how long after the first event that the fault touched its component was first named; None = never."""
        begun = self.fault.first_event_unix_us or self.fault.start_unix_us
        right = [t.at_us for t in self.world.told if t.alert.cause and t.alert.cause.component == self.fault.service]
        return (min(right) - begun) / SECOND if right else None

    def violations(self) -> Counter[str]:
        """Return how many violations of which type there were."""
        return Counter(violation.type for violation in self.world.violations)


class Record(NamedTuple):
    """What came to the events topic, and when."""

    broker_us: int
    key: bytes
    value: bytes


def record(config: Config) -> tuple[Truth, list[Record]]:
    """Let the fourteen services run; return the truth, and their events in the order and at the time of emission."""
    recorder = Recorder()
    truth = Simulation(config, recorder).run()
    wrong_clocks = {fault.service for fault in config.faults if fault.kind == "clock_skew"}
    records, now_us = [], START_US
    for key, value in recorder.events:
        event = {} if key.startswith(b"poison") else orjson.loads(value)
        if event and event.get("component") not in wrong_clocks:
            now_us = max(now_us, event["time_unix_us"])
        records.append(Record(now_us, key, value))
    return truth, records


def follow(records: Iterable[Record]) -> World:
    """Take records, and the silence after them, through everything."""
    world, now_us, committed_us = World(), START_US, START_US
    for now_us, key, value in records:
        while committed_us + TRANSACTION_US <= now_us:
            committed_us += TRANSACTION_US
            world.commit()
        world.take(key, value, now_us)
    for second in range(1, SILENCE_S + 1):
        world.tick(now_us + second * SECOND)
        world.commit()
    return world


@cache
def run(
    kind: str = "", service: str = "", tenant: str | None = None, *, seed: int = 1, rate: float = 40.0,
    healthy_s: float = 22.0, fault_s: float = 12.0, after_s: float = 12.0, strength: float | None = None,
) -> Run:  # fmt: skip
    """Run fourteen services with one fault (none: "")."""
    faults = (Fault(kind, service, healthy_s, fault_s, tenant, strength),) if kind else ()  # type: ignore[arg-type]
    truth, records = record(Config(rate, healthy_s + fault_s + after_s, seed, faults, 0.0, START_US))
    return Run(truth, follow(records))
