"""What is published of an objective: its state, and the alerts about it."""

from collections.abc import Sequence

from msgspec import Struct

from schemas.analysis import Alert, Severity
from schemas.slo import BurnRate, SloState, SloStatus
from streams.burn import HOUR_US, SECOND, STRETCHES_US, BurnRule, Counts, SloRule
from streams.ids import derived_id

_PLACES = {length_us: place for place, length_us in enumerate(STRETCHES_US)}


class OpenAlert(Struct):
    """An alert as it was said last."""

    opened_us: int
    first_fault_us: int
    severity: Severity
    fired_us: int
    """Event time at which a rule fired last."""
    revision: int = 0
    exhausted: bool = False
    title: str = ""
    summary: str = ""
    affected: int = 0


class Standing(Struct):
    """How a chain stands at a moment."""

    tenant: str
    chain: str
    rule: SloRule
    since_us: int
    now_us: int
    budget: Counts
    """Of the objective's whole window."""
    stretches: Sequence[Counts]
    """As STRETCHES_US."""

    @property
    def remaining(self) -> float:
        """Return the share of the budget that is left."""
        return 1.0 - self.rule.rate(self.budget)

    def fired(self, rules: Sequence[BurnRule]) -> BurnRule | None:
        """Return the first rule that fires: both stretches burn too fast, and half of the long one was seen."""
        for rule in rules:
            if 2 * (self.now_us - self.since_us) < rule.long_us:
                continue
            long = self.over(rule.long_us)
            if long[1] and self.rule.burns(long, rule.tenths) and self.rule.burns(self.over(rule.short_us), rule.tenths):
                return rule
        return None

    def over(self, length_us: int) -> Counts:
        """Return the counts of one of the stretches."""
        return self.stretches[_PLACES[length_us]]


def slo_id(tenant: str, chain: str) -> str:
    """Return the id of a chain's objective."""
    return derived_id("slo", tenant, chain)


def alert_id(tenant: str, chain: str, opened_us: int) -> str:
    """Return the id of the alert that was opened about a chain's objective at a time."""
    return derived_id("slo-alert", tenant, chain, opened_us)


def describe(standing: Standing, rule: BurnRule, alert: OpenAlert) -> None:
    """Put what a person reads into an alert: what burns, how fast, what is left."""
    total, bad = standing.over(rule.long_us)
    rate = standing.rule.rate((total, bad))
    alert.affected = bad
    alert.title = f"error budget of {standing.chain} burns {rate:.1f} times too fast"
    alert.summary = (
        f"{bad:,} of {total:,} executions of {standing.chain} of {standing.tenant} in {_words(rule.long_us)} were not good, "
        f"{rate:.1f} times as many as an objective of {100 * standing.rule.objective:g} % leaves room for. "
        f"{100 * standing.remaining:.0f} % of the budget of {standing.rule.window_days} days is left"
    )


def alert_record(tenant: str, chain: str, alert: OpenAlert, status: str, now_us: int) -> Alert:
    """Return the record of what is said of an alert."""
    slo, over = slo_id(tenant, chain), status == "resolved"
    return Alert.model_validate(
        {
            "id": alert_id(tenant, chain, alert.opened_us), "revision": alert.revision, "status": status,
            "severity": alert.severity, "tenant": tenant, "incident": slo, "slo": slo, "title": alert.title[:256],
            "summary": f"Over: {alert.summary}"[:1024] if over else alert.summary[:1024], "suspects": [], "affected": [],
            "affected_chains": [chain], "affected_executions": alert.affected, "affected_sample": [], "violations": {},
            "first_fault_unix_us": alert.first_fault_us, "opened_unix_us": alert.opened_us, "updated_unix_us": now_us,
            "resolved_unix_us": now_us if over else None, "evidence": [],
        }
    )  # fmt: skip


def status_record(standing: Standing, state: SloState, alert: OpenAlert | None) -> SloStatus:
    """Return the record of how a chain stands."""
    rule, (total, bad) = standing.rule, standing.budget
    seen_us = standing.now_us - standing.since_us
    return SloStatus(
        id=slo_id(standing.tenant, standing.chain), tenant=standing.tenant, chain=standing.chain, state=state,
        objective=rule.objective, window_days=rule.window_days, latency_us=rule.latency_us or None, good=total - bad, bad=bad,
        budget_remaining_ratio=standing.remaining,
        burn=[
            BurnRate(
                window_s=length_us // SECOND, good=counts[0] - counts[1], bad=counts[1], rate=rule.rate(counts),
                data_ratio=min(1.0, max(0.0, seen_us / length_us)),
            )
            for length_us, counts in zip(STRETCHES_US, standing.stretches, strict=True)
        ],
        since_unix_us=standing.since_us, updated_unix_us=standing.now_us,
        alert=alert_id(standing.tenant, standing.chain, alert.opened_us) if alert else None,
    )  # fmt: skip


def _words(length_us: int) -> str:
    return f"{length_us // HOUR_US} h"
