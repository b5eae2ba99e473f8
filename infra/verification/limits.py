"""What must have been said of tenants' limits: computed from the windows of chains, in the order of event time. Pure.

Tenants and tiers are taken as they are at the end.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from infra.verification.windows import OVERFLOW, Totals, WindowKey
from schemas.tenants import LimitReached, TierLimits
from streams.ids import derived_id
from streams.limits import Limits
from streams.tenants import TenantBook

DAY_US = 86_400_000_000
Use = list[tuple[int, int, str]]
"""(start of a window, executions that ended in it, chain), of one tenant and day."""


class Wanted:
    """The records that must be there, by id, and those that may differ since a window that they depend on is open."""

    def __init__(self, windows: Mapping[WindowKey, Totals], open_: set[str], tenants: TenantBook, limits: Limits) -> None:
        """`open_`: ids of windows that are not settled."""
        self.records: dict[str, dict[str, Any]] = {}
        self.unsettled: set[str] = set()
        self._window_us = limits.window_us
        uses, opens = _by_day(windows, open_)
        for (tenant, day_us), use in uses.items():
            first_open_us = min(opens.get((tenant, day_us), ()), default=None)
            for name, tenths, record in self._of_day(tenant, day_us, sorted(use), tenants.find(tenant)[1]):
                ident = derived_id("limit", tenant, name, day_us, tenths)
                if first_open_us is not None and (record is None or record["reached_unix_us"] > first_open_us):
                    self.unsettled.add(ident)
                elif record is not None:
                    self.records[ident] = record

    def _of_day(self, tenant: str, day_us: int, use: Use, allowed: TierLimits) -> Iterator[tuple[str, int, dict[str, Any] | None]]:
        """Yield (limit, tenths of it, what must be said of them, None = nothing)."""
        for name, limit in (("max_chains", allowed.max_chains), ("max_executions_per_day", allowed.max_executions_per_day)):
            if limit is None:
                continue
            for tenths in (8, 10):
                reached = next((point for point in self._counted(use, name) if 10 * point[1] >= tenths * limit), None)
                yield name, tenths, reached and {
                    "type": "tenant.limit.reached", "tenant": tenant, "limit": name, "ratio": tenths / 10, "period_start_unix_us": day_us,
                    "period_end_unix_us": day_us + DAY_US, "reached_unix_us": reached[0], "used": reached[1], "allowed": limit,
                }  # fmt: skip

    def _counted(self, use: Use, name: str) -> Iterator[tuple[int, int]]:
        """Yield (end of a window, use by then)."""
        executions, chains = 0, set[str]()
        for number, (start_us, ended, chain) in enumerate(use, 1):
            executions += ended
            chains.add(chain)
            if number == len(use) or use[number][0] != start_us:
                yield start_us + self._window_us, len(chains) if name == "max_chains" else executions


def limit_of(record: LimitReached) -> dict[str, Any]:
    """Return a record as it is compared: all but its revision, and the tier, of which only what it allows counts."""
    return record.model_dump(exclude={"id", "revision", "tier"})


def _by_day(windows: Mapping[WindowKey, Totals], open_: set[str]) -> tuple[dict[tuple[str, int], Use], dict[tuple[str, int], list[int]]]:
    """Return, by tenant and day, what chains used, and the starts of windows that are not settled."""
    uses: dict[tuple[str, int], Use] = {}
    opens: dict[tuple[str, int], list[int]] = {}
    for (tenant, chain, step, component, start_us), totals in windows.items():
        ended = totals.completed + totals.failed
        if not chain or step or component or chain == OVERFLOW or not ended:
            continue
        day = (tenant, start_us - start_us % DAY_US)
        uses.setdefault(day, []).append((start_us, ended, chain))
        if derived_id(tenant, chain, step, component, start_us) in open_:
            opens.setdefault(day, []).append(start_us)
    return uses, opens
