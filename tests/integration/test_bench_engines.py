"""Every bench runs on real engines, with sizes that only show that it works; no figure is judged."""

from pathlib import Path

import pytest
from rich.console import Console

from connectors.settings import Settings
from infra import devstack
from infra.bench import alert, e2e, ingest, sdk, sinks
from infra.bench.ingest import Plan
from infra.bench.loading import fresh_prefix
from infra.cli.benching import pipeline
from infra.devstack import Stack
from infra.devstack.model import ALL
from infra.preparing import migrate
from infra.supervisor import WORKERS

pytestmark = pytest.mark.timeout(600)


def quiet(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total, stage


@pytest.fixture
def settings(stack: Stack) -> Settings:
    """The session's engines, under a prefix and in a database of this test's own."""
    return Settings(
        bootstrap_servers=stack.bootstrap_servers, topic_prefix=fresh_prefix(), clickhouse_dsn=stack.clickhouse_dsn,
        postgres_dsn=stack.postgres_dsn, clickhouse_database="bench_sinks", postgres_schema="bench_sinks", source_partitions=2,
    )  # fmt: skip


def test_ingest_beside_every_baseline_that_this_machine_has(settings: Settings, tmp_path: Path) -> None:
    plan = Plan(events=200_000, baseline_s=1.0, against=("faust", "streams", "raw"), per_message=(10,), workers=(1,))
    outcome = ingest.measure(settings, plan, tmp_path, lambda *_: None)
    assert [run.engine for run in outcome.runs] == ["worker", "faust", "streams", "raw"]
    assert all(run.events_per_s or "left out" in run.why for run in outcome.runs)
    assert outcome.document()["ratio"] > 0


def test_sinks_write_all_rows(settings: Settings) -> None:
    migrate(settings)
    document = sinks.measure(settings, 3_000, lambda *_: None)
    assert document["clickhouse"]["count"] > document["postgres"]["count"] == document["executions"] > 0
    assert document["clickhouse"]["ratio"] > 0
    assert document["postgres"]["updates_per_s"] > 0


def test_sdk_with_the_broker_up_down_and_slow(tmp_path: Path) -> None:
    with devstack.running(tmp_path, engines=["kafka"]) as own:
        document = sdk.measure(own, 200, 2_000, quiet)
        assert document["up"]["delivered"] > 0
        assert document["down"]["delivered"] == 0
        assert [document[name]["count"] for name in ("up", "down", "slow")] == [200] * 3
        assert "p50" in document["opentelemetry"] or "bench" in document["opentelemetry"]["why"]


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
