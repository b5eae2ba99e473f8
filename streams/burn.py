"""Error budgets and burn rates: the arithmetic of an objective, and counts of event time that is gone by.

A burn rate is the share of bad executions over the share that may be bad: at 1 the budget lasts exactly as long as the objective's
window. Source: Google, The Site Reliability Workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts": a rule fires while the burn
rates of a long and of a short stretch are both above its threshold, the long one because that much of the budget is gone, the short
one because it is still going on. Exactly at the threshold it does not fire. Thresholds are compared in whole numbers.
"""

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from schemas.analysis import Severity
from streams.rules import VERSIONS

SECOND = 1_000_000
HOUR_US = 3_600 * SECOND
BILLION = 1_000_000_000
Counts = tuple[int, int]
"""(executions, bad ones among them)"""
ChainKey = tuple[str, str]
"""(tenant, chain)"""


class BurnRule(Struct, frozen=True):
    """When a budget burns too fast."""

    long_us: int
    short_us: int
    tenths: int
    """The threshold, in tenths: 144 = 14.4 times."""
    severity: Severity


RULES = (
    BurnRule(HOUR_US, 300 * SECOND, 144, "critical"),
    BurnRule(6 * HOUR_US, 1_800 * SECOND, 60, "warning"),
)
"""2 % of a budget of 30 days in an hour; 5 % of it in six."""
STRETCHES_US = tuple(sorted({length for rule in RULES for length in (rule.long_us, rule.short_us)}))
"""Event time that burn rates are taken over, shortest first."""


@dataclass(frozen=True, slots=True)
class SloRule:
    """The objective of a chain."""

    objective: float
    """Share of good executions, above 0 and below 1."""
    window_days: int = 30
    latency_us: int = 0
    """Executions that took longer are bad; 0 = however long."""
    budget_ppb: int = field(init=False, repr=False, compare=False)
    """How many of a billion executions may be bad."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget_ppb", max(1, BILLION - round(self.objective * BILLION)))

    def burns(self, counts: Counts, tenths: int) -> bool:
        """Tell whether the budget burnt faster than so many tenths of the rate at which it would just last."""
        total, bad = counts
        return bad * 10 * BILLION > tenths * self.budget_ppb * total

    def rate(self, counts: Counts) -> float:
        """Return the burn rate; 0 without executions."""
        total, bad = counts
        return bad * BILLION / (self.budget_ppb * total) if total else 0.0

    def is_exhausted(self, counts: Counts) -> bool:
        """Tell whether as many were bad as may be, or more; not without executions."""
        total, bad = counts
        return bad > 0 and bad * BILLION >= self.budget_ppb * total


class SloBook:
    """The objectives in force: a tenant's own definition before the common one of the same name, else the default.

    As with what executions are held to (`streams.rules.RuleBook`), a version holds from its effective time on, in place of all that
    were to hold from then on or later; those before it are kept, the last `VERSIONS` of each chain.
    """

    def __init__(self, default: SloRule | None = None, limit: int = 10_000) -> None:
        """At most `limit` chains with definitions are in force: of more those first by chain and tenant."""
        self.refused = 0
        """Definitions that were left out because of the limit."""
        self._default = default
        self._limit = limit
        self._names: list[ChainKey] = []
        """(chain, tenant) of all, sorted."""
        self._rules: dict[ChainKey, tuple[tuple[int, SloRule | None], ...]] = {}
        """By (tenant, chain): (effective time, objective), the latest first."""

    def put(self, tenant: str, chain: str, rule: SloRule | None, from_us: int = 0) -> None:
        """Put the objective of a definition in force; tenant "" = everybody's, None = it has none of its own."""
        held = self._rules.get((tenant, chain))
        if held is None:
            insort(self._names, (chain, tenant))
        earlier = tuple(version for version in held or () if version[0] < from_us)
        self._rules[tenant, chain] = ((from_us, rule), *earlier)[:VERSIONS]
        if len(self._names) > self._limit:
            self._forget(*self._names[-1])
            self.refused += 1

    def remove(self, tenant: str, chain: str, from_us: int = 0) -> None:
        """Take back the version that was to hold from a time on."""
        held = self._rules.get((tenant, chain), ())
        left = tuple(version for version in held if version[0] != from_us)
        if left:
            self._rules[tenant, chain] = left
        elif held:
            self._forget(chain, tenant)

    def find(self, tenant: str, chain: str, at_us: int) -> SloRule | None:
        """Return the objective of a tenant's chain at a time."""
        for owner in (tenant, ""):
            for from_us, rule in self._rules.get((owner, chain), ()):
                if from_us <= at_us:
                    return rule or self._default
        return self._default

    def _forget(self, chain: str, tenant: str) -> None:
        self._names.remove((chain, tenant))
        del self._rules[tenant, chain]


class Ring:
    """Counts by slots of event time, and their sums over the last so many slots; what is older is forgotten.

    Slots are saved in chunks of `chunk` slots; `dirty` names the chunks that are not as they were saved.
    """

    def __init__(self, spans: Sequence[int], chunk: int) -> None:
        """`spans`: how many slots, the newest among them, each sum is taken over."""
        self.dirty: set[int] = set()
        self._spans = spans
        self._longest = max(spans)
        self._chunk = chunk
        self._newest = -1
        """The last slot that is gone by; -1 = the sums have to be taken anew."""
        self._slots: dict[int, Counts] = {}
        self._saved: set[int] = set()
        """Chunks that hold something, or did when they were saved last."""
        self.sums: list[Counts] = [(0, 0)] * len(spans)

    def __len__(self) -> int:
        return len(self._slots)

    def respan(self, spans: Sequence[int]) -> None:
        """Take the sums over other spans, from the next `move` on; what was forgotten stays so."""
        if list(spans) != list(self._spans):
            self._spans, self._longest, self._newest = spans, max(spans), -1
            self.sums = [(0, 0)] * len(spans)

    def move(self, newest: int) -> None:
        """Let time pass until the end of a slot."""
        if newest <= self._newest:
            return
        before, self._newest = self._newest, newest
        if before < 0 or newest - before > len(self._slots):
            self._count_anew()
        else:
            for left in range(before + 1, newest + 1):
                self._leave(left)
        first = (newest - self._longest + 1) // self._chunk
        gone = {chunk for chunk in self._saved if chunk < first}
        self._saved -= gone
        self.dirty |= gone

    def add(self, slot: int, total: int, bad: int) -> None:
        """Add to a slot that is gone by, or take away what was added; what is too old changes nothing."""
        age = self._newest - slot
        if age >= self._longest:
            return
        was = self._slots.get(slot, (0, 0))
        self._slots[slot] = (was[0] + total, was[1] + bad)
        self._saved.add(slot // self._chunk)
        self.dirty.add(slot // self._chunk)
        sums = self.sums
        for index, span in enumerate(self._spans):
            if age < span:
                counts = sums[index]
                sums[index] = (counts[0] + total, counts[1] + bad)

    def first_bad(self, span: int) -> int | None:
        """Return the oldest of the last `span` slots with a bad execution."""
        return min((slot for slot, (_, bad) in self._slots.items() if bad and slot > self._newest - span), default=None)

    def chunk(self, number: int) -> list[tuple[int, int, int]]:
        """Return the (slot, executions, bad) of a chunk, to be saved."""
        slots = range(number * self._chunk, (number + 1) * self._chunk)
        return [(slot, *self._slots[slot]) for slot in slots if slot in self._slots]

    def restore(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """Take back what `chunk` gave; call before anything else."""
        for slot, total, bad in rows:
            self._slots[slot] = (total, bad)
            self._saved.add(slot // self._chunk)

    def chunks(self) -> Iterator[int]:
        """Yield the chunks that may have been saved."""
        yield from sorted(self._saved | self.dirty)

    def _leave(self, newest: int) -> None:
        for index, span in enumerate(self._spans):
            counts = self._slots.get(newest - span)
            if counts is not None:
                was = self.sums[index]
                self.sums[index] = (was[0] - counts[0], was[1] - counts[1])
        self._slots.pop(newest - self._longest, None)

    def _count_anew(self) -> None:
        self._slots = {slot: counts for slot, counts in self._slots.items() if slot > self._newest - self._longest}
        self.sums = [self._sum(span) for span in self._spans]

    def _sum(self, span: int) -> Counts:
        held = [counts for slot, counts in self._slots.items() if slot > self._newest - span]
        return sum(total for total, _ in held), sum(bad for _, bad in held)
