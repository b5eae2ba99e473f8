"""The usage stage: health windows of chains in, what a tenant's use of a UTC day has reached out.

Counted are executions that have ended, not those that have begun: an execution ends once, whatever came of it, and its chain's
window holds that as `completed` or `failed`; no event has to tell of a beginning, so partials hold no exact count of those. It
counts on the day of the window in which it ended. The chain `~overflow` is left out: its window counts steps as well.

Windows count once: a revision takes the place of what the window held before, as long as health may still revise it. When a
share of a limit was reached is read from the windows in the order of event time, so it is the same whatever the order in which they
came, and late data moves it to an earlier window, under a higher revision.

What a tenant is allowed is data that comes beside the log (`TenantBook`): it is in force from the moment at which this process
has read it, which a replay does not repeat. So ids name only the tenant, the day, the limit and the share. A record that is out
stands as it was said; when what is allowed changes, and the use reaches the share of that too, it is revised. Everything is counted for
every tenant, with limits or without, so that a limit which becomes known late finds the whole day.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct, field

from schemas.health import HealthWindow
from schemas.tenants import LimitName, LimitReached
from streams.booking import OVERFLOW
from streams.ids import derived_id, key_of, parts_of
from streams.limits import Limits
from streams.tenants import TenantBook

DAY_US = 86_400_000_000
SHARES = (8, 10)
"""Tenths of a limit at which something is said."""
_WINDOW, _DAY, _CHAIN = "window", "day", "chain"
"""Kinds of saved entries; a key is (kind, ...)."""
_encode = msgspec.msgpack.Encoder().encode
DayKey = tuple[str, int]
"""(tenant, begin of the day)"""


class UsageSettings(Struct, frozen=True):
    """How much is remembered."""

    max_tenants: int = 1_000
    """Twice as many days of tenants without a record are counted; of further ones nothing is said."""
    max_chains: int = 10_000
    """Chains of a tenant told apart per day; the executions of further ones are counted, the chains are not."""


class Said(Struct):
    """The newest revision that was published of one share of one limit."""

    revision: int
    reached_us: int
    used: int
    allowed: int


class Day(Struct):
    """One tenant's use of one day; saved without what has entries of its own."""

    settled: int = 0
    """Executions in windows that no late data can change any more."""
    settled_us: int = 0
    """End of the last of them."""
    said: dict[str, Said] = {}
    """By limit and share."""


class Held(Struct):
    """What is kept of a day in memory."""

    day: Day = field(default_factory=Day)
    total: int = 0
    """Executions, settled or not."""
    chains: dict[str, int] = field(default_factory=dict)
    """Chain -> start of the first window with an execution."""


class UsageStage:
    """Counts what each tenant uses, and says when it comes near what it is allowed (a `streams.stage.Stage`)."""

    def __init__(self, limits: Limits, book: TenantBook, settings: UsageSettings | None = None) -> None:
        self.reached: Counter[str] = Counter()
        self._limits = limits
        self._book = book
        self._settings = settings or UsageSettings()
        self._days: dict[DayKey, Held] = {}
        self._windows: dict[int, dict[str, dict[str, int]]] = {}
        """Start -> tenant -> chain -> executions, of the windows that may be revised."""
        self._dirty: set[tuple[str | int, ...]] = set()

    def apply(self, windows: Sequence[HealthWindow], watermark_us: int) -> list[LimitReached]:
        """Count the windows that closed or were revised at a watermark; return what was reached, or reached otherwise."""
        touched = {key for window in windows if window.kind == "chain" and (key := self._count(window)) is not None}
        found = [record for key in sorted(touched) for record in self._judge(*key)]
        if windows:
            self._settle(watermark_us - self._limits.grace_us - self._limits.lateness_us - self._limits.window_us)
        return found

    # -- counting -------------------------------------------------------------------------------------------------

    def _count(self, window: HealthWindow) -> DayKey | None:
        """Count one window in place of what it held before; return the day if that changes it."""
        tenant, chain, start_us = window.tenant, window.chain, window.window_start_unix_us
        ended = window.completed + window.failed
        key = (tenant, start_us - start_us % DAY_US)
        if not ended or chain == OVERFLOW:
            return None
        held = self._days.get(key) or self._begin(key)
        if held is None:
            return None
        chains = self._windows.setdefault(start_us, {}).setdefault(tenant, {})
        held.total += ended - chains.get(chain, 0)
        chains[chain] = ended
        self._dirty.add((_WINDOW, start_us, tenant))
        self._see(key, held, chain, start_us)
        return key

    def _begin(self, key: DayKey) -> Held | None:
        if len(self._days) >= 2 * self._settings.max_tenants and key[0] not in self._book:
            self.reached["usage_tenants_over_limit"] += 1
            return None
        self._dirty.add((_DAY, *key))
        held = self._days[key] = Held()
        return held

    def _see(self, key: DayKey, held: Held, chain: str, start_us: int) -> None:
        first_us = held.chains.get(chain)
        if first_us is not None and first_us <= start_us:
            return
        if first_us is None and len(held.chains) >= self._settings.max_chains:
            self.reached["usage_chains_over_limit"] += 1
            return
        held.chains[chain] = start_us
        self._dirty.add((_CHAIN, *key, chain))

    def _settle(self, until_us: int) -> None:
        """Windows that start at `until_us` or earlier are not revised any more."""
        for start_us in sorted(start_us for start_us in self._windows if start_us <= until_us):
            for tenant, chains in self._windows.pop(start_us).items():
                key = (tenant, start_us - start_us % DAY_US)
                day = self._days[key].day
                day.settled += sum(chains.values())
                day.settled_us = max(day.settled_us, start_us + self._limits.window_us)
                self._dirty |= {(_WINDOW, start_us, tenant), (_DAY, *key)}
        for key in [key for key in self._days if key[1] + DAY_US <= until_us]:
            self._dirty |= {(_DAY, *key)} | {(_CHAIN, *key, chain) for chain in self._days.pop(key).chains}

    # -- judging --------------------------------------------------------------------------------------------------

    def _judge(self, tenant: str, day_us: int) -> Iterator[LimitReached]:
        tier, limits = self._book.find(tenant)
        held = self._days[tenant, day_us]
        counted: tuple[tuple[LimitName, int | None, int], ...] = (
            ("max_chains", limits.max_chains, len(held.chains)),
            ("max_executions_per_day", limits.max_executions_per_day, held.total),
        )
        for name, allowed, used in counted:
            if allowed is None:
                continue
            for tenths in SHARES:
                needed = max(1, -(-allowed * tenths // 10))
                if used >= needed and (said := self._revised(tenant, day_us, name, tenths, allowed, needed)) is not None:
                    yield _record(tenant, tier, day_us, name, tenths, said)

    def _revised(self, tenant: str, day_us: int, name: LimitName, tenths: int, allowed: int, needed: int) -> Said | None:
        """Return what is to be said of a share that was reached; None = it was said."""
        held = self._days[tenant, day_us]
        before = held.day.said.get(f"{name}:{tenths}")
        changed = before is None or before.allowed != allowed
        if name == "max_chains":
            reached_us, used = self._chains_at(held, needed)
        elif held.day.settled >= needed and not changed:
            return None
        else:
            reached_us, used = self._executions_at(held.day, tenant, day_us, needed)
        if before is not None and not changed and (before.reached_us, before.used) == (reached_us, used):
            return None
        said = held.day.said[f"{name}:{tenths}"] = Said(before.revision + 1 if before else 0, reached_us, used, allowed)
        self._dirty.add((_DAY, tenant, day_us))
        return said

    def _executions_at(self, day: Day, tenant: str, day_us: int, needed: int) -> tuple[int, int]:
        """Return the end of the first window with which so many have ended, and how many have by then.

        If that was before the windows that are remembered, which only a limit that became known later brings, it is the last of
        those that are not.
        """
        reached_us, used = day.settled_us, day.settled
        starts = sorted(start for start in self._windows if start - start % DAY_US == day_us and tenant in self._windows[start])
        for start_us in starts if used < needed else ():
            used += sum(self._windows[start_us][tenant].values())
            reached_us = start_us + self._limits.window_us
            if used >= needed:
                break
        return reached_us, used

    def _chains_at(self, held: Held, needed: int) -> tuple[int, int]:
        """Return the end of the first window with which so many chains were used, and how many were by then."""
        firsts = sorted(held.chains.values())
        start_us = firsts[needed - 1]
        return start_us + self._limits.window_us, bisect_right(firsts, start_us)

    # -- saved and restored ---------------------------------------------------------------------------------------

    def restore(self, key: str, value: bytes) -> None:
        """Take back one entry."""
        kind, *rest = parts_of(key)
        if kind == _WINDOW:
            start_us, tenant = int(rest[0]), rest[1]
            chains = msgspec.msgpack.decode(value, type=dict[str, int])
            self._windows.setdefault(start_us, {})[tenant] = chains
            self._day(tenant, start_us - start_us % DAY_US).total += sum(chains.values())
        elif kind == _DAY:
            held = self._day(rest[0], int(rest[1]))
            held.day = msgspec.msgpack.decode(value, type=Day)
            held.total += held.day.settled
        elif kind == _CHAIN:
            self._day(rest[0], int(rest[1])).chains[rest[2]] = msgspec.msgpack.decode(value, type=int)
        else:
            raise ValueError(f"no entry of the usage stage: {key!r}")

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the entries that changed since the last call."""
        for parts in sorted(self._dirty, key=lambda parts: tuple(map(str, parts))):
            yield key_of(*parts), self._entry(*parts)
        self._dirty.clear()

    def _entry(self, kind: str | int, *rest: str | int) -> bytes | None:
        if kind == _WINDOW:
            chains = self._windows.get(int(rest[0]), {}).get(str(rest[1]))
            return None if chains is None else _encode(chains)
        held = self._days.get((str(rest[0]), int(rest[1])))
        if held is None:
            return None
        return _encode(held.day if kind == _DAY else held.chains[str(rest[2])])

    def _day(self, tenant: str, day_us: int) -> Held:
        return self._days.setdefault((tenant, day_us), Held())


def limit_id(tenant: str, limit: str, day_us: int, tenths: int) -> str:
    """Return the id of what is said of a share of a limit."""
    return derived_id("limit", tenant, limit, day_us, tenths)


def _record(tenant: str, tier: str, day_us: int, limit: LimitName, tenths: int, said: Said) -> LimitReached:
    return LimitReached(
        id=limit_id(tenant, limit, day_us, tenths), revision=said.revision, tenant=tenant, tier=tier, limit=limit,
        ratio=tenths / 10, period_start_unix_us=day_us, period_end_unix_us=day_us + DAY_US, reached_unix_us=said.reached_us,
        used=said.used, allowed=said.allowed,
    )  # fmt: skip
