"""What integrations may be told: by `flowchain.instrument(...)`, or by the environment (`flowchain-instrument`)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Options:
    """How requests become executions, and calls become steps."""

    begin: bool = True
    """Whether a request that comes without a flow begins an execution. FLOWCHAIN_BEGIN"""
    chains: Mapping[str, str] = field(default_factory=dict)
    """The chain that a request begins, by "POST /orders" (method and route); else the route is the chain's name.
    "" begins none. FLOWCHAIN_CHAINS, as "POST /orders=order_to_cash,GET /health="."""
    client_steps: bool = False
    """Whether a call to another service is a step of its own, beside carrying the headers. FLOWCHAIN_CLIENT_STEPS"""

    def chain(self, step: str) -> str | None:
        """Return the chain that a request without a flow begins, None where it begins none."""
        return (self.chains.get(step, step) or None) if self.begin else None


current = Options()


def configure(**changes: Any) -> None:
    """Set what is given; what is None stays."""
    global current
    current = replace(current, **{name: value for name, value in changes.items() if value is not None})


def from_environment() -> Options:
    """Return what FLOWCHAIN_* say."""
    pairs = (pair.rpartition("=") for pair in os.environ.get("FLOWCHAIN_CHAINS", "").split(",") if "=" in pair)
    return Options(
        begin=_flag("FLOWCHAIN_BEGIN", True),
        chains={step.strip(): chain.strip() for step, _, chain in pairs},
        client_steps=_flag("FLOWCHAIN_CLIENT_STEPS", False),
    )


def _flag(name: str, default: bool) -> bool:
    text = os.environ.get(name, "").strip().lower()
    return text not in ("0", "false", "no", "off") if text else default
