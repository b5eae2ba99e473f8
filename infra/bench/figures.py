"""Quantiles of measured times."""

from collections.abc import Sequence
from typing import Any


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Return p50, p95, p99 and the maximum, and of how many; of nothing, no figures."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    found = {name: round(quantile(values, share), digits) if values else None for name, share in shares.items()}
    return {**found, "count": len(values)}
