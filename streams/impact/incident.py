"""An incident while it lasts: what belongs to it, and the record that is published of it."""

from collections.abc import Mapping

import msgspec
from msgspec import Struct, field

from schemas.analysis import Hurt, Incident, Severity, Suspect
from schemas.health import OffsetRange
from streams.ids import derived_id
from streams.impact.settings import ImpactSettings
from streams.rootcause.memory import Context, Damage
from streams.rootcause.troubles import CLOCK, FAILED, MISSING, SILENT, SLOW, STUCK, Trouble

ANOMALOUS = "anomalous"
_HARD = frozenset((FAILED, MISSING, STUCK, SILENT))
_VERBS = {
    FAILED: "fails", SLOW: "is slow", MISSING: "never comes", STUCK: "hangs", SILENT: "is silent",
    CLOCK: "has a clock that is ahead", ANOMALOUS: "is unusual",
}  # fmt: skip
_SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
_ORDER = (SILENT, FAILED, STUCK, MISSING, CLOCK, SLOW, ANOMALOUS)


class Faulty(Struct):
    """One context in trouble, with the worst that was seen of it."""

    chain: str
    step: str
    component: str
    kind: str
    count: float
    total: float
    first_us: int
    last_us: int
    """End of the last window in which it was in trouble."""


class OpenIncident(Struct):
    """State of one incident; times in event time."""

    id: str
    tenant: str
    opened_us: int
    first_us: int
    last_us: int
    """End of the last window with trouble."""
    since_us: int
    """Start of the first window with trouble."""
    revision: int = -1
    updated_us: int = 0
    published_us: int = 0
    resolved_us: int = 0
    severity: int = 0
    faulty: list[Faulty] = field(default_factory=list)
    violations: dict[str, int] = field(default_factory=dict)
    damage: Damage = field(default_factory=Damage)
    anomalies: list[str] = field(default_factory=list)
    suspects: list[dict[str, object]] = field(default_factory=list)
    hurt: list[dict[str, object]] = field(default_factory=list)
    grown: bool = True
    """Has come to hold more than when its suspects were ranked last."""
    ranked_us: int = 0
    digest: str = ""
    """Of what was published last."""

    def find(self, context: Context) -> Faulty | None:
        """Return what is known of a context."""
        for item in self.faulty:
            if (item.chain, item.step, item.component) == context:
                return item
        return None

    def components(self) -> tuple[str, ...]:
        """Return the components in trouble, those that were first in trouble first."""
        ordered = sorted(self.faulty, key=lambda item: (item.first_us, item.component))
        return tuple(dict.fromkeys(item.component for item in ordered if item.component))

    def chains(self) -> list[str]:
        """Return the chains in trouble."""
        return sorted({item.chain for item in self.faulty if item.chain})

    def absorb(self, violations: Mapping[str, float], damage: Damage | None, limit: int) -> None:
        """Add violations and damage of one context."""
        for name, count in violations.items():
            self.violations[name] = self.violations.get(name, 0) + int(count)
        if damage is not None:
            self.damage.add(damage, limit)
            if damage.first_us:
                self.first_us = min(self.first_us, damage.first_us)
        self.grown = True

    def touches(self, chain: str, component: str) -> bool:
        """Return whether a key belongs to what this incident speaks of."""
        if not component:
            return not chain or any(item.chain == chain for item in self.faulty)
        return any(item.component == component for item in self.faulty) or any(
            item["component"] == component for item in self.suspects
        )


def incident_id(tenant: str, trouble: Trouble) -> str:
    """Return the id of the incident that begins with a trouble."""
    return derived_id("incident", tenant, trouble.chain, trouble.step, trouble.component, trouble.since_us)


def severity_of(trouble: Trouble, settings: ImpactSettings) -> int:
    """Return 2 (critical), 1 (warning) or 0 (info: only unusual)."""
    if trouble.kind == ANOMALOUS:
        return 0
    many = trouble.count >= settings.critical_executions
    hard = trouble.kind in _HARD and many and trouble.count >= settings.critical_ratio * trouble.total
    return 2 if hard else 1


def title_of(state: OpenIncident) -> str:
    """Return one line for a person: the leading suspect's trouble, else the first and worst."""
    lead = state.suspects[0]["component"] if state.suspects else None
    own = [item for item in state.faulty if item.component == lead]
    if lead and not own:
        return f"{lead} hurts {', '.join(state.components()[:3])}"[:256]
    items = own or state.faulty
    worst = min(items, key=lambda item: (_ORDER.index(item.kind), item.first_us, item.chain, item.step))
    place = "/".join(filter(None, (worst.component, worst.step))) or f"chain {worst.chain}"
    also = f" in {', '.join(state.chains()[:3])}" if worst.component and state.chains() else ""
    return f"{place} {_VERBS[worst.kind]}{also}"[:256]


def record(state: OpenIncident) -> Incident:
    """Return the incident as it is published."""
    return Incident(
        id=state.id,
        revision=max(0, state.revision),
        tenant=state.tenant,
        status="resolved" if state.resolved_us else "open",
        opened_unix_us=state.opened_us,
        first_fault_unix_us=state.first_us,
        updated_unix_us=state.updated_us,
        resolved_unix_us=state.resolved_us or None,
        severity=_SEVERITIES[state.severity],
        title=title_of(state),
        suspects=[Suspect.model_validate(item) for item in state.suspects],
        blast_radius=[Hurt.model_validate(item) for item in state.hurt],
        chains=state.chains(),
        affected_executions=state.damage.executions,
        affected_sample=state.damage.sample,
        affected_users=state.damage.users,
        violations=dict(sorted(state.violations.items())),
        anomalies=state.anomalies,
        evidence=[_range(place, *offsets) for place, offsets in sorted(state.damage.ranges.items())],
    )


def digest_of(state: OpenIncident) -> str:
    """Return what two records share that differ in nothing but their revision."""
    fields = record(state).model_dump(mode="json", exclude={"revision", "updated_unix_us"})
    return derived_id(msgspec.json.encode(fields).decode())


def _range(place: str, first: int, last: int) -> OffsetRange:
    topic, _, partition = place.rpartition(":")
    return OffsetRange(topic=topic, partition=int(partition), first_offset=first, last_offset=last)
