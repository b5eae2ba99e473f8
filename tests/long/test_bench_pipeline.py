"""The benches of whole pipelines run on real engines, with sizes that only show that they work; no figure is judged."""

from pathlib import Path

import pytest
from rich.console import Console

from connectors.settings import Settings
from infra.bench import alert, e2e, ingest
from infra.bench.ingest import Plan
from infra.bench.loading import fresh_prefix
from infra.cli.benching import pipeline
from infra.devstack import Stack
from infra.devstack.model import ALL
from infra.supervisor import WORKERS

pytestmark = pytest.mark.timeout(600)


def test_ingest_beside_every_baseline_that_this_machine_has(stack: Stack, tmp_path: Path) -> None:
    settings = Settings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=fresh_prefix(), source_partitions=2)
    plan = Plan(events=200_000, baseline_s=1.0, against=("faust", "streams", "raw"), per_message=(10,), workers=(1,))
    outcome = ingest.measure(settings, plan, tmp_path, lambda *_: None)
    assert [run.engine for run in outcome.runs] == ["worker", "faust", "streams", "raw"]
    assert all(run.events_per_s or "left out" in run.why for run in outcome.runs)
    assert outcome.document()["ratio"] > 0


def test_alert_hears_every_kind_of_a_trial(tmp_path: Path) -> None:
    with pipeline(tmp_path, Console(quiet=True), ("ingest", "analysis"), ["kafka"], [alert.CHAIN], **alert.SETTINGS) as (own, _):
        document = alert.measure(own, 1, 200, lambda *_: None, normal_s=1.0)
    assert document["echo"]["count"] == 3
    assert {kind: document[kind]["not_alerted"] for kind in alert.NEEDED} == dict.fromkeys(alert.NEEDED, 0)


def test_e2e_holds_a_low_rate(tmp_path: Path) -> None:
    with pipeline(tmp_path, Console(quiet=True), WORKERS, ALL) as (own, _):
        attempt = e2e.hold(own, 100, 5.0, lambda *_: None)
    assert attempt.sent_per_s > 0
    assert set(attempt.lag_last) == set(WORKERS)
