"""What a service's own Prometheus or OpenTelemetry sees of its chains."""

from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import flowchain
from flowchain import metrics
from flowchain.metrics import MAX_SERIES, OTHER, FlowMetricsCollector, OpenTelemetryBackend, PrometheusBackend


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[prometheus_client.CollectorRegistry]:
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(metrics, "_backends", {"prometheus": PrometheusBackend(registry)})
    yield registry
    flowchain.shutdown(5.0)


def run_orders() -> None:
    for number in range(4):
        try:
            with flowchain.execution("order"), flowchain.step("validate"):
                if number == 3:
                    raise ValueError("no")
        except ValueError:
            pass


def test_prometheus_counts_chains_and_steps_under_both_names(registry: prometheus_client.CollectorRegistry) -> None:
    flowchain.init("shop", channel="log", metrics="prometheus")
    run_orders()
    assert flowchain.shutdown(5.0)
    value = registry.get_sample_value
    for prefix, chain, step in (("flowchain_", "chain", "step"), ("", "chain_id", "step_name")):
        assert value(f"{prefix}chain_execution_seconds_count", {chain: "order"}) == 4
        assert value(f"{prefix}step_execution_seconds_count", {chain: "order", step: "validate"}) == 4
        assert value(f"{prefix}chains_executed_total", {chain: "order", "status": "completed"}) == 3
        assert value(f"{prefix}chains_executed_total", {chain: "order", "status": "failed"}) == 1
    assert value("flowchain_chain_success_ratio", {"chain": "order"}) == 0.75
    assert value("chain_success_rate", {"chain_id": "order"}) == 0.75


def test_opentelemetry_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "_backends", {"opentelemetry": OpenTelemetryBackend(provider)})
    flowchain.init("shop", channel="log", metrics="opentelemetry")
    run_orders()
    assert flowchain.shutdown(5.0)
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, list[Any]] = {
        metric.name: list(metric.data.data_points) for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    for prefix in ("flowchain_", ""):
        assert sum(point.count for point in found[f"{prefix}step_execution_seconds"]) == 4
        assert sum(point.count for point in found[f"{prefix}chain_execution_seconds"]) == 4
        assert {point.attributes["status"]: point.value for point in found[f"{prefix}chains_executed_total"]} == {
            "completed": 3, "failed": 1,
        }  # fmt: skip
    assert [point.value for name in ("flowchain_chain_success_ratio", "chain_success_rate") for point in found[name]] == [0.75] * 2
    provider.shutdown()


def test_labels_are_bounded() -> None:
    seen: set[tuple[str, str]] = set()

    class Backend:
        def step(self, chain: str, step: str, status: str, seconds: float) -> None:
            seen.add((chain, step))

        def chain(self, chain: str, status: str, seconds: float | None) -> None:
            pass

        def success(self, chain: str, ratio: float) -> None:
            pass

    collector = FlowMetricsCollector(Backend())
    for number in range(3 * MAX_SERIES):
        collector.step(f"c{number % 3}", f"s{number}", "completed", 1)
    collector.fold()
    assert len(seen) <= MAX_SERIES + 3 and ("c0", OTHER) in seen


@pytest.mark.parametrize("kind", ["prometheus", "nagios"])
def test_metrics_that_cannot_be_had_are_told_and_events_go_on(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> metrics.Backend:
        raise ImportError("No module named 'prometheus_client'")

    monkeypatch.setattr(metrics, "_backends", {})
    monkeypatch.setitem(metrics._KINDS, "prometheus", missing)
    kept: list[tuple[bytes, bytes]] = []
    flowchain.init("shop", channel=lambda counts: flowchain.MemoryChannel(counts, kept), metrics=kind)
    run_orders()
    assert flowchain.shutdown(5.0) and len(kept) == 16
    assert f"no metrics: {kind}" in caplog.text
