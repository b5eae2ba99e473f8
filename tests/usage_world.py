"""Health windows of chains, for tests: made of counts alone."""

from typing import Any

from schemas.health import HealthWindow
from streams.ids import derived_id

S = 1_000_000
LENGTH_US = 10 * S
DAY_US = 86_400 * S


def chain_window(
    start_us: int, completed: int, failed: int = 0, *, tenant: str = "acme", chain: str = "order", revision: int = 0,
    durations: dict[str, int] | None = None, **more: Any,
) -> HealthWindow:  # fmt: skip
    ended = completed + failed
    return HealthWindow.model_validate(
        {
            "id": derived_id(tenant, chain, "", "", start_us), "kind": "chain", "tenant": tenant, "chain": chain, "step": "",
            "component": "", "window_start_unix_us": start_us, "window_end_unix_us": start_us + LENGTH_US,
            "revision": revision, "watermark_unix_us": start_us + LENGTH_US, "events": ended, "started": 0,
            "completed": completed, "failed": failed, "error_ratio": failed / ended if ended else 0.0, "throughput_per_s": 0.0,
            "mean_us": 0.0, "p50_us": 0.0, "p95_us": 0.0, "p99_us": 0.0, "max_us": 0,
            "durations": {"scale": 4, "buckets": durations or {}}, "violations": {}, "affected_executions": 0,
            "affected_sample": [], "cpu_us": 0, "io_wait_us": 0, "memory_max_bytes": 0, "broker_mean_us": 0.0,
            "broker_max_us": 0, "resources": {}, "sources": [], **more,
        }
    )  # fmt: skip
