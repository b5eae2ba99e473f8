"""The objective stage: health windows of chains in; error budgets, burn rates and alerts about them out.

A chain is followed once it has an objective and an execution of it has ended. Good and bad are what its windows say: failed,
incomplete and abandoned executions are bad, and with a latency objective those whose duration is in a bucket of the histogram above
the objective's, so up to 4.4 % longer ones pass, and none that kept it is bad. What failed and was slow cannot be told apart in a
histogram and is counted as two bad ones, but never more than have ended.

A window counts in the 30 s that its start is in, and in that hour; a revision takes the place of what it held. So stretches of event
time end with the last closed window and are up to a slot shorter than their name. The share of data in a stretch is the share of it
in which the chain was followed: silence is data, and burns nothing.

Objectives come beside the log (`SloBook`): a version that is read before its effective time judges the windows that begin from then on, the
same in a replay; one that is read later judges from the moment at which this process has read it, which a replay does not repeat. So ids
name only the chain, and, of an alert, when it was opened. What was counted before is not counted again by another objective.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct, field

from schemas.analysis import Alert
from schemas.health import HealthWindow
from schemas.slo import SloState, SloStatus
from streams.booking import OVERFLOW
from streams.burn import HOUR_US, RULES, SECOND, STRETCHES_US, BurnRule, ChainKey, Counts, Ring, SloBook, SloRule
from streams.histogram import bucket_index
from streams.ids import key_of, parts_of
from streams.limits import Limits
from streams.slo_records import OpenAlert, Standing, alert_record, describe, status_record
from streams.timers import NEVER_US

MINUTE_US = 60 * SECOND
SLOT_US = 30 * SECOND
QUIET_US = 300 * SECOND
"""An alert is over when no rule has fired for so long."""
_WINDOW, _SLOTS, _HOURS, _HEAD, _CLOCK = "window", "slots", "hours", "head", "clock"
"""Kinds of saved entries; a key is (kind, ...)."""
_encode = msgspec.msgpack.Encoder().encode


class Head(Struct):
    """What is known of a chain beside its counts."""

    since_us: int = 0
    state: str = ""
    """As it was published last; "" = never."""
    said_us: int = 0
    facts: list[int] = field(default_factory=list)
    """What the state was made of then."""
    alert: OpenAlert | None = None


class Followed:
    """One chain in memory."""

    __slots__ = ("head", "hours", "moved_us", "rule", "slots")

    def __init__(self, spans: Sequence[int], chunk: int) -> None:
        self.head = Head()
        self.slots = Ring(spans, chunk)
        self.hours = Ring((1,), 24)
        self.rule: SloRule | None = None
        """The objective as of `moved_us`."""
        self.moved_us = -1
        """When time was last let pass."""


class Spoken(Struct):
    """What a batch led to."""

    statuses: list[SloStatus] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)


class SloStage:
    """Holds chains to their objectives (a `streams.stage.Stage`)."""

    def __init__(self, limits: Limits, book: SloBook, max_chains: int = 10_000) -> None:
        """More chains than `max_chains`: those without an execution in six hours are forgotten; until then no further one is followed."""
        self.reached: Counter[str] = Counter()
        self._limits = limits
        self._book = book
        self._max_chains = max_chains
        self._slot_us = max(SLOT_US, limits.window_us)
        self._spans = [max(1, length // self._slot_us) for length in STRETCHES_US]
        self._chunk = max(1, HOUR_US // self._slot_us)
        self._chains: dict[ChainKey, Followed] = {}
        self._windows: dict[int, dict[str, dict[str, Counts]]] = {}
        """Start -> tenant -> chain -> what was counted, of the windows that may be revised."""
        self._next_us = 0
        """When all chains are looked at again, so that what burns no more is over in silence, too."""
        self._dirty: set[tuple[str | int, ...]] = set()
        self._moved: set[ChainKey] = set()
        """Chains whose counts may differ from what was saved."""

    def apply(self, windows: Sequence[HealthWindow], watermark_us: int) -> Spoken:
        """Count the windows that closed or were revised at a watermark; return what is to be said."""
        now_us, spoken = watermark_us - self._limits.lateness_us, Spoken()
        touched = {key for window in windows if window.kind == "chain" and (key := self._count(window, now_us)) is not None}
        is_due = bool(self._chains) and now_us >= self._next_us
        for key in sorted(self._chains if is_due else touched):
            self._look(key, now_us, spoken)
        if is_due:
            self._next_us = now_us - now_us % MINUTE_US + MINUTE_US
            self._dirty.add((_CLOCK,))
            self._forget_silent()
        if windows:
            self._settle(watermark_us - self._limits.grace_us - self._limits.lateness_us - self._limits.window_us)
        return spoken

    @property
    def due_us(self) -> int:
        """Event time at which all chains are looked at though nothing comes."""
        return self._next_us + self._limits.lateness_us if self._chains else NEVER_US

    # -- counting -------------------------------------------------------------------------------------------------

    def _count(self, window: HealthWindow, now_us: int) -> ChainKey | None:
        """Count one window in place of what it held before; return the chain if it is followed."""
        tenant, chain, start_us = window.tenant, window.chain, window.window_start_unix_us
        if chain == OVERFLOW or not window.completed + window.failed:
            return None
        rule, judging = self._book.find(tenant, chain, now_us), self._book.find(tenant, chain, start_us)
        if rule is None or judging is None:
            return None
        followed = self._chains.get((tenant, chain)) or self._follow((tenant, chain), start_us)
        if followed is None:
            return None
        held = self._windows.setdefault(start_us, {}).setdefault(tenant, {})
        total, bad = outcome(window, judging)
        was = held.get(chain, (0, 0))
        held[chain] = (total, bad)
        self._dirty.add((_WINDOW, start_us, tenant))
        self._move((tenant, chain), followed, rule, now_us)
        followed.slots.add(start_us // self._slot_us, total - was[0], bad - was[1])
        followed.hours.add(start_us // HOUR_US, total - was[0], bad - was[1])
        if start_us < followed.head.since_us:
            followed.head.since_us = start_us
            self._dirty.add((_HEAD, tenant, chain))
        return tenant, chain

    def _follow(self, key: ChainKey, start_us: int) -> Followed | None:
        if len(self._chains) >= self._max_chains:
            self.reached["slos_over_limit"] += 1
            return None
        followed = self._chains[key] = Followed(self._spans, self._chunk)
        followed.head.since_us = start_us
        self._dirty.add((_HEAD, *key))
        return followed

    def _move(self, key: ChainKey, followed: Followed, rule: SloRule, now_us: int) -> None:
        """Let time pass for a chain."""
        if followed.moved_us == now_us and followed.rule is rule:
            return
        followed.moved_us, followed.rule = now_us, rule
        followed.slots.move((now_us - 1) // self._slot_us)
        followed.hours.respan((24 * rule.window_days,))
        followed.hours.move((now_us - 1) // HOUR_US)
        self._moved.add(key)

    def _settle(self, until_us: int) -> None:
        """Windows that start at `until_us` or earlier are not revised any more."""
        for start_us in [start_us for start_us in self._windows if start_us <= until_us]:
            self._dirty |= {(_WINDOW, start_us, tenant) for tenant in self._windows.pop(start_us)}

    def _forget_silent(self) -> None:
        """Forget chains without an execution in their whole window; where there are too many, in six hours."""
        crowded = len(self._chains) >= self._max_chains
        silent = [
            key for key, followed in self._chains.items()
            if followed.head.alert is None and not (len(followed.slots) if crowded else len(followed.hours))
        ]  # fmt: skip
        for key in silent:
            self._forget(key)

    def _forget(self, key: ChainKey) -> None:
        followed, (tenant, chain) = self._chains.pop(key), key
        self._dirty |= {(_HEAD, *key)} | {(_SLOTS, *key, chunk) for chunk in followed.slots.chunks()}
        self._dirty |= {(_HOURS, *key, chunk) for chunk in followed.hours.chunks()}
        for start_us, tenants in self._windows.items():
            if tenants.get(tenant, {}).pop(chain, None) is not None:
                self._dirty.add((_WINDOW, start_us, tenant))

    # -- judging --------------------------------------------------------------------------------------------------

    def _look(self, key: ChainKey, now_us: int, spoken: Spoken) -> None:
        followed, rule = self._chains[key], self._book.find(*key, now_us)
        if rule is None:
            self._withdraw(key, now_us, spoken)
            return
        self._move(key, followed, rule, now_us)
        standing = Standing(*key, rule, followed.head.since_us, now_us, followed.hours.sums[0], followed.slots.sums)
        has_spoken = self._alert(followed, standing, spoken)
        self._tell(followed, standing, has_spoken, spoken)

    def _alert(self, followed: Followed, standing: Standing, spoken: Spoken) -> bool:
        """Open, update or end the alert of a chain; return whether that was done."""
        head, now_us = followed.head, standing.now_us
        fired, alert = standing.fired(RULES), head.alert
        if fired is None:
            if alert is None or now_us < alert.fired_us + QUIET_US:
                return False
            self._end(followed, standing.tenant, standing.chain, now_us, spoken)
            return True
        self._dirty.add((_HEAD, standing.tenant, standing.chain))
        exhausted = standing.rule.is_exhausted(standing.budget)
        if alert is None:
            first = followed.slots.first_bad(fired.long_us // self._slot_us)
            first_us = now_us if first is None else first * self._slot_us
            alert = head.alert = OpenAlert(now_us, first_us, fired.severity, now_us, exhausted=exhausted)
            self._say(alert, fired, standing, "opened", spoken)
            return True
        alert.fired_us = now_us
        if (fired.severity == alert.severity or alert.severity == "critical") and exhausted <= alert.exhausted:
            return False
        alert.revision += 1
        alert.severity = "critical" if "critical" in (alert.severity, fired.severity) else fired.severity
        alert.exhausted = alert.exhausted or exhausted
        self._say(alert, fired, standing, "updated", spoken)
        return True

    def _say(self, alert: OpenAlert, fired: BurnRule, standing: Standing, status: str, spoken: Spoken) -> None:
        describe(standing, fired, alert)
        spoken.alerts.append(alert_record(standing.tenant, standing.chain, alert, status, standing.now_us))

    def _end(self, followed: Followed, tenant: str, chain: str, now_us: int, spoken: Spoken) -> None:
        alert = followed.head.alert
        if alert is not None:
            alert.revision += 1
            spoken.alerts.append(alert_record(tenant, chain, alert, "resolved", now_us))
            followed.head.alert = None
            self._dirty.add((_HEAD, tenant, chain))

    def _tell(self, followed: Followed, standing: Standing, at_once: bool, spoken: Spoken) -> None:
        """Publish how a chain stands: at once when that is another state, else once per minute if anything has changed."""
        head, rule = followed.head, standing.rule
        exhausted = rule.is_exhausted(standing.budget)
        state: SloState = "exhausted" if exhausted else "burning" if head.alert is not None else "ok"
        waits = state == head.state and not at_once
        if waits and standing.now_us < head.said_us + MINUTE_US:
            return
        facts = [rule.budget_ppb, rule.window_days, rule.latency_us, *standing.budget]
        facts += [count for counts in standing.stretches for count in counts]
        if waits and facts == head.facts:
            return
        head.state, head.said_us, head.facts = state, standing.now_us, facts
        self._dirty.add((_HEAD, standing.tenant, standing.chain))
        spoken.statuses.append(status_record(standing, state, head.alert))

    def _withdraw(self, key: ChainKey, now_us: int, spoken: Spoken) -> None:
        """A chain has no objective any more: what was said of it is over."""
        followed = self._chains[key]
        self._end(followed, *key, now_us, spoken)
        if followed.head.state:
            ppb, window_days, latency_us, total, bad, *_ = followed.head.facts
            rule = SloRule(1 - ppb / 1e9, window_days, latency_us)
            standing = Standing(*key, rule, followed.head.since_us, now_us, (total, bad), [(0, 0)] * len(STRETCHES_US))
            spoken.statuses.append(status_record(standing, "withdrawn", None))
        self._forget(key)

    # -- saved and restored ---------------------------------------------------------------------------------------

    def restore(self, key: str, value: bytes) -> None:
        """Take back one entry."""
        kind, *rest = parts_of(key)
        if kind == _CLOCK:
            self._next_us = msgspec.msgpack.decode(value, type=int)
        elif kind == _WINDOW:
            self._windows.setdefault(int(rest[0]), {})[rest[1]] = msgspec.msgpack.decode(value, type=dict[str, Counts])
        elif kind in (_HEAD, _SLOTS, _HOURS):
            followed = self._chains.setdefault((rest[0], rest[1]), Followed(self._spans, self._chunk))
            if kind == _HEAD:
                followed.head = msgspec.msgpack.decode(value, type=Head)
            else:
                ring = followed.slots if kind == _SLOTS else followed.hours
                ring.restore(msgspec.msgpack.decode(value, type=list[tuple[int, int, int]]))
        else:
            raise ValueError(f"no entry of the objective stage: {key!r}")

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the entries that changed since the last call."""
        for key in self._moved & self._chains.keys():
            for kind, ring in ((_SLOTS, self._chains[key].slots), (_HOURS, self._chains[key].hours)):
                self._dirty.update((kind, *key, chunk) for chunk in ring.dirty)
                ring.dirty.clear()
        self._moved.clear()
        for parts in sorted(self._dirty, key=lambda parts: tuple(map(str, parts))):
            yield key_of(*parts), self._entry(*parts)
        self._dirty.clear()

    def _entry(self, kind: str | int, *rest: str | int) -> bytes | None:
        if kind == _CLOCK:
            return _encode(self._next_us)
        if kind == _WINDOW:
            chains = self._windows.get(int(rest[0]), {}).get(str(rest[1]))
            return _encode(chains) if chains else None
        followed = self._chains.get((str(rest[0]), str(rest[1])))
        if followed is None:
            return None
        if kind == _HEAD:
            return _encode(followed.head)
        rows = (followed.slots if kind == _SLOTS else followed.hours).chunk(int(rest[2]))
        return _encode(rows) if rows else None


def outcome(window: HealthWindow, rule: SloRule) -> Counts:
    """Return the executions that a window counts, and how many of them are bad."""
    total = window.completed + window.failed
    if not rule.latency_us:
        return total, window.failed
    limit = bucket_index(rule.latency_us)
    slow = sum(count for index, count in window.durations.buckets.items() if int(index) > limit)
    return total, min(total, window.failed + slow)
