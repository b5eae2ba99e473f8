"""Metrics of what this service ran, for its own Prometheus or OpenTelemetry: both only where the host has them.

The host's thread appends to a list that is folded into the metrics by the publisher's thread every few milliseconds.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

OTHER = "~overflow"
"""Stands for chains and steps beyond MAX_SERIES, as in the pipeline."""
MAX_SERIES = 1_000
MAX_WAITING = 100_000
"""Observations not folded yet; the oldest go beyond it."""
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Backend(Protocol):
    """Where observations end up."""

    def step(self, chain: str, step: str, status: str, seconds: float) -> None:
        """Add one run of a step."""

    def chain(self, chain: str, status: str, seconds: float | None) -> None:
        """Add one execution that ended; its duration where this service saw the beginning."""

    def success(self, chain: str, ratio: float) -> None:
        """Set the share of a chain's executions that completed, of all that ended since the service began."""


class _Seen(NamedTuple):
    chain: str
    step: str | None
    status: str
    duration_us: int | None


class FlowMetricsCollector:
    """Collects durations and outcomes; `fold` hands them to the backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: deque[_Seen] = deque(maxlen=MAX_WAITING)
        self._series: set[tuple[str, str | None]] = set()
        self._ended: Counter[tuple[str, str]] = Counter()

    def step(self, chain: str, step: str, status: str, duration_us: int) -> None:
        """Note one run of a step; `status`: completed or failed."""
        self._waiting.append(_Seen(chain, step, status, duration_us))

    def chain(self, chain: str, status: str, duration_us: int | None) -> None:
        """Note one execution that ended; `status`: completed or failed."""
        self._waiting.append(_Seen(chain, None, status, duration_us))

    def fold(self) -> None:
        """Give the backend what has come together. One thread at a time."""
        for _ in range(len(self._waiting)):
            seen = self._waiting.popleft()
            chain = seen.chain if self._is_known((seen.chain, None)) else OTHER
            seconds = None if seen.duration_us is None else seen.duration_us / 1e6
            if seen.step is None:
                self._fold_chain(chain, seen.status, seconds)
            else:
                step = seen.step if self._is_known((chain, seen.step)) else OTHER
                self._backend.step(chain, step, seen.status, seconds or 0.0)

    def _fold_chain(self, chain: str, status: str, seconds: float | None) -> None:
        self._ended[chain, status] += 1
        good, bad = self._ended[chain, "completed"], self._ended[chain, "failed"]
        self._backend.chain(chain, status, seconds)
        self._backend.success(chain, good / (good + bad))

    def _is_known(self, series: tuple[str, str | None]) -> bool:
        if series not in self._series and len(self._series) < MAX_SERIES:
            self._series.add(series)
        return series in self._series


class PrometheusBackend:
    """Metrics of prometheus_client, in its default registry; also under the names that FlowChain's concept gave them."""

    def __init__(self, registry: Any = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        to: dict[str, Any] = {"registry": registry or REGISTRY}
        seconds: dict[str, Any] = {"buckets": BUCKETS_S, **to}
        self._chain = [
            Histogram("flowchain_chain_execution_seconds", "Duration of an execution", ["chain"], **seconds),
            Histogram("chain_execution_seconds", "As flowchain_chain_execution_seconds", ["chain_id"], **seconds),
        ]
        self._step = [
            Histogram("flowchain_step_execution_seconds", "Duration of a step", ["step", "chain"], **seconds),
            Histogram(
                "step_execution_seconds", "As flowchain_step_execution_seconds", ["step_name", "chain_id"], **seconds
            ),
        ]
        self._executed = [
            Counter("flowchain_chains_executed_total", "Executions that ended, by status", ["chain", "status"], **to),
            Counter("chains_executed_total", "As flowchain_chains_executed_total", ["chain_id", "status"], **to),
        ]
        self._success = [
            Gauge("flowchain_chain_success_ratio", "Completed executions of all that ended", ["chain"], **to),
            Gauge("chain_success_rate", "As flowchain_chain_success_ratio", ["chain_id"], **to),
        ]

    def step(self, chain: str, step: str, status: str, seconds: float) -> None:
        for histogram in self._step:
            histogram.labels(step, chain).observe(seconds)

    def chain(self, chain: str, status: str, seconds: float | None) -> None:
        for counter in self._executed:
            counter.labels(chain, status).inc()
        if seconds is not None:
            for histogram in self._chain:
                histogram.labels(chain).observe(seconds)

    def success(self, chain: str, ratio: float) -> None:
        for gauge in self._success:
            gauge.labels(chain).set(ratio)


class OpenTelemetryBackend:
    """Metrics of the host's OpenTelemetry meter provider, under the same names."""

    def __init__(self, provider: Any = None) -> None:
        from opentelemetry import metrics

        meter = (provider or metrics).get_meter("flowchain")
        advice = {"explicit_bucket_boundaries_advisory": list(BUCKETS_S)}
        self._chain = [
            meter.create_histogram(name, "s", "Duration of an execution", **advice)
            for name in ("flowchain_chain_execution_seconds", "chain_execution_seconds")
        ]
        self._step = [
            meter.create_histogram(name, "s", "Duration of a step", **advice)
            for name in ("flowchain_step_execution_seconds", "step_execution_seconds")
        ]
        self._executed = [
            meter.create_counter(name, "1", "Executions that ended, by status")
            for name in ("flowchain_chains_executed_total", "chains_executed_total")
        ]
        self._success = [
            meter.create_gauge(name, "1", "Completed executions of all that ended")
            for name in ("flowchain_chain_success_ratio", "chain_success_rate")
        ]

    def step(self, chain: str, step: str, status: str, seconds: float) -> None:
        self._step[0].record(seconds, {"step": step, "chain": chain})
        self._step[1].record(seconds, {"step_name": step, "chain_id": chain})

    def chain(self, chain: str, status: str, seconds: float | None) -> None:
        for counter, label in zip(self._executed, ("chain", "chain_id"), strict=True):
            counter.add(1, {label: chain, "status": status})
        if seconds is not None:
            for histogram, label in zip(self._chain, ("chain", "chain_id"), strict=True):
                histogram.record(seconds, {label: chain})

    def success(self, chain: str, ratio: float) -> None:
        for gauge, label in zip(self._success, ("chain", "chain_id"), strict=True):
            gauge.set(ratio, {label: chain})


_backends: dict[str, Backend] = {}
_KINDS: dict[str, Callable[[], Backend]] = {"prometheus": PrometheusBackend, "opentelemetry": OpenTelemetryBackend}


def backend(kind: str) -> Backend:
    """Return the backend of that name, made once per process; ImportError or KeyError where there is none."""
    if kind not in _backends:
        _backends[kind] = _KINDS[kind]()
    return _backends[kind]
