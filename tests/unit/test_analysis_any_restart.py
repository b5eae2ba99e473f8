"""Whatever a worker had published and saved when it was killed, the next one goes on to the same windows, anomalies, incidents and
alerts, also where the limits of the analysis are reached.

Outputs and state are one transaction; what comes after the last one is applied again. The partials are those of fourteen
simulated services, one of which fails, in a fixed order.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import msgspec
import pytest
from faults_world import SILENCE_S, TRANSACTION_US, World, record
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.analysis import analysis_settings
from connectors.settings import Settings
from infra.demo import SETTINGS
from infra.simulator import Config, Fault
from schemas.internal import Partial
from schemas.tenants import TierLimits
from streams.analysis import Analysis, AnalysisSettings, Books, Findings
from streams.anomaly import AnomalySettings
from streams.burn import SloBook, SloRule
from streams.tenants import TenantBook
from streams.usage import UsageSettings

decode = msgspec.json.Decoder(Partial).decode
USUAL = msgspec.structs.replace(analysis_settings(Settings(**SETTINGS)), anomaly=AnomalySettings(warm_up_windows=5))  # type: ignore[arg-type]
TIGHT = msgspec.structs.replace(
    USUAL,
    limits=msgspec.structs.replace(USUAL.limits, max_held=6),
    anomaly=replace(USUAL.anomaly, max_keys=12, crowded_us=4_000_000),
    impact=msgspec.structs.replace(
        USUAL.impact, max_tenants=2, max_open=2, max_keys=3,
        memory=msgspec.structs.replace(USUAL.impact.memory, max_contexts=20, crowded_us=4_000_000),
        graph=msgspec.structs.replace(USUAL.impact.graph, max_edges=9),
    ),
    alerts=msgspec.structs.replace(USUAL.alerts, max_remembered=1), usage=UsageSettings(1, 2), max_slos=2,
)  # fmt: skip
BOOKS = Books(SloBook(SloRule(0.99)), TenantBook("free", TierLimits(max_chains=4, max_executions_per_day=60)))


class Recorder(World):
    """Keeps what its analysis would be given."""

    def __init__(self) -> None:
        super().__init__()
        self.partials: list[bytes] = []
        self.analysis.apply = self._keep  # type: ignore[method-assign, assignment]

    def _keep(self, partial: Partial) -> Sequence[Findings]:
        self.partials.append(msgspec.json.encode(partial))
        return ()


@cache
def partials() -> list[bytes]:
    _, records = record(Config(20.0, 18.0, 3, (Fault("error_burst", "database-service", 8.0, 6.0),), 0.0, 1_750_000_000_000_000))
    world, now_us, committed_us = Recorder(), 0, records[0].broker_us
    for now_us, key, value in records:
        while committed_us + 4 * TRANSACTION_US <= now_us:
            committed_us += 4 * TRANSACTION_US
            world.commit()
        world.take(key, value, now_us)
    for second in range(1, SILENCE_S + 1):
        world.tick(now_us + second * 1_000_000)
        world.commit()
    return world.partials


def told(stages: AnalysisSettings, saves: Sequence[int], kills: Sequence[int]) -> list[bytes]:
    """Return everything that was published, when state was saved after the partials `saves` and the worker killed after `kills`."""
    log, topic, published, waiting = partials(), dict[str, bytes](), list[bytes](), list[bytes]()
    analysis, at, saved, left = Analysis(stages, BOOKS), 0, 0, sorted({kill % len(log) for kill in kills})
    while at < len(log):
        for found in analysis.apply(decode(log[at])):
            for records in (
                found.windows, found.dependencies, found.violations, found.anomalies, found.incidents, found.alerts, found.slos, found.limits,
            ):  # fmt: skip
                waiting += [item.encode() for item in records]
        at += 1
        if at in saves or at == len(log):
            for key, value in analysis.changes():
                topic[key] = value if value is not None else b""
            topic = {key: value for key, value in topic.items() if value}
            published, waiting, saved = published + waiting, [], at
        if left and at > left[0]:
            left.pop(0)
            analysis, waiting, at = Analysis(stages, BOOKS), [], saved
            for key, value in topic.items():
                analysis.restore(key, value)
    return published


@cache
def straight(tight: bool) -> list[bytes]:
    return told(TIGHT if tight else USUAL, (), ())


def test_the_log_leads_to_all_there_is() -> None:
    statuses = {status for item in straight(False) for status in re.findall(rb'"status":"(\w+)"', item)}
    assert {b"opened", b"updated", b"resolved"} <= statuses
    assert any(b'"detectors_version"' in item for item in straight(False))


def test_all_limits_of_the_analysis_are_reached() -> None:
    analysis = Analysis(TIGHT, BOOKS)
    for value in partials():
        list(analysis.apply(decode(value)))
    reached = analysis.take_reached()
    assert {"detectors_over_limit", "contexts_over_limit", "graph_edges_over_limit", "tenants_over_limit"} <= reached.keys()
    assert {"slos_over_limit", "usage_tenants_over_limit", "usage_chains_over_limit"} <= reached.keys()
    assert not analysis.take_reached()


@pytest.mark.parametrize("tight", [False, True])
@settings(max_examples=3, deadline=None)
@given(every=st.integers(3, 40), kills=st.lists(st.integers(0, 10_000), min_size=1, max_size=4))
def test_any_crash_gives_the_same(tight: bool, every: int, kills: list[int]) -> None:
    saves = range(every, len(partials()), every)
    assert told(TIGHT if tight else USUAL, saves, kills) == straight(tight)
