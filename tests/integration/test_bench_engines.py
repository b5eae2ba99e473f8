"""The short benches run on real engines, with sizes that only show that they work; no figure is judged. The others: tests/long."""

from pathlib import Path

import pytest

from connectors.settings import Settings
from infra import devstack
from infra.bench import sdk, sinks
from infra.bench.loading import fresh_prefix
from infra.devstack import Stack
from infra.preparing import migrate

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
