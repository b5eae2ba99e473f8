"""What the analysis says is a function of the events: not of transactions, of how source partitions mix, or of restarts."""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from zlib import crc32

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.simulator import Config, Fault, Simulation, definitions
from infra.simulator.recorder import Recorder
from schemas.internal import Partial
from schemas.tenants import TierLimits
from streams.analysis import Analysis, AnalysisSettings, Books
from streams.anomaly import AnomalySettings
from streams.burn import SloBook, SloRule
from streams.events import ClockTick, Event, Refused, decode_chunk
from streams.impact import ImpactSettings
from streams.limits import Limits
from streams.rules import RuleBook
from streams.tenants import TenantBook
from streams.tracker import Tracker

SECOND = 1_000_000
START_US = 1_750_000_000 * SECOND
SOURCES = 3
LIMITS = Limits(window_us=2 * SECOND, lateness_us=SECOND // 2)
SETTINGS = AnalysisSettings(limits=LIMITS, anomaly=AnomalySettings(warm_up_windows=3), impact=ImpactSettings(quiet_us=4 * SECOND))
BOOKS = Books(SloBook(SloRule(0.99)), TenantBook("free", TierLimits(max_chains=4, max_executions_per_day=60)))

Log = list[tuple[Event | Refused, int]]
"""(event, broker time in µs)"""
Said = list[tuple[str, str]]


@cache
def logs() -> list[Log]:
    """Three source partitions of a run in which a service fails for a while, and the silence after it."""
    recorder = Recorder()
    faults = (Fault("error_burst", "database-service", 6.0, 5.0), Fault("slow", "trading-engine", 9.0, 4.0))
    Simulation(Config(30.0, 18.0, 5, faults, 0.0, START_US), recorder).run()
    found: list[Log] = [[] for _ in range(SOURCES)]
    now_us = START_US
    for key, value in recorder.events:
        now_us = max(now_us, orjson.loads(value)["time_unix_us"])
        found[crc32(key) % SOURCES].append((decode_chunk([value]).events[0], now_us))
    for log in found:
        log += [(ClockTick(now_us + step * SECOND // 2), now_us + step * SECOND // 2) for step in range(1, 50)]
    return found


def partials(partition: int, ends: Sequence[int]) -> list[Partial]:
    """What ingest writes for one source partition when its transactions end there."""
    tracker = Tracker("events", partition, RuleBook(definitions()), LIMITS)
    log, found, at = copy.deepcopy(logs()[partition]), [], 0
    for end in sorted({*ends, len(log)}):
        part = log[at:end]
        tracker.apply([event for event, _ in part], list(range(at, end)), [broker_us for _, broker_us in part])
        out, at = tracker.take(), end
        waiting = list(range(SOURCES))
        found.append(Partial("events", partition, tracker.watermark_us, tracker.next_offset - 1, out.slices, waiting))
    return found


def analysed(stream: Sequence[Partial], restarts: Sequence[int] = ()) -> Said:
    """Everything that the analysis says, in order."""
    analysis, said = Analysis(SETTINGS, BOOKS), []
    store: dict[str, bytes] = {}
    for number, partial in enumerate(stream):
        for found in analysis.apply(partial):
            for records in (
                found.windows, found.dependencies, found.violations, found.anomalies, found.incidents, found.alerts, found.slos, found.limits,
            ):  # fmt: skip
                said += [(type(record).__name__, record.encode().decode()) for record in records]  # type: ignore[attr-defined]
        if number in restarts:
            analysis = _again(analysis, store)
    return said


def _again(analysis: Analysis, store: dict[str, bytes]) -> Analysis:
    """Another process goes on from what was saved."""
    for key, value in analysis.changes():
        if value is None:
            store.pop(key)
        else:
            store[key] = value
    after = Analysis(SETTINGS, BOOKS)
    for key in sorted(store, key=lambda key: crc32(key.encode())):
        after.restore(key, store[key])
    return after


@cache
def straight() -> Said:
    """What is said when every partition is one transaction."""
    return analysed([partial for partition in range(SOURCES) for partial in partials(partition, ())])


def mixed(draw: Callable[[st.SearchStrategy[int]], int], cuts: int) -> list[Partial]:
    """Transactions that end anywhere, in any order that keeps that of each partition."""
    left = []
    for partition in range(SOURCES):
        length = len(logs()[partition])
        left.append(partials(partition, [draw(st.integers(1, length)) for _ in range(draw(st.integers(0, cuts)))]))
    found = []
    while any(left):
        source = left[draw(st.integers(0, SOURCES - 1))] or next(source for source in left if source)
        found.append(source.pop(0))
    return found


def test_the_run_has_something_to_say() -> None:
    assert {kind for kind, _ in straight()} >= {"HealthWindow", "DependencyWindow", "Incident", "Alert", "SloStatus", "LimitReached"}


@settings(max_examples=3, deadline=None)
@given(st.data())
def test_any_cut_and_any_mix_says_the_same(data: st.DataObject) -> None:
    assert analysed(mixed(data.draw, 12)) == straight()


@settings(max_examples=3, deadline=None)
@given(st.data())
def test_any_restart_says_the_same(data: st.DataObject) -> None:
    stream = mixed(data.draw, 8)
    restarts = [data.draw(st.integers(0, len(stream) - 1)) for _ in range(3)]
    assert analysed(stream, restarts) == straight()
