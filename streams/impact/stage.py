"""The impact stage: violations as they come and anomalies of closed windows in, incidents out.

Everything is a function of what was observed, in its order, and of the watermark. State is saved in entries of moderate
size: per tenant, component and window; per tenant and component (normal); per tenant and graph source; per incident.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from schemas.analysis import Anomaly, Incident, Suspect
from schemas.health import HealthWindow
from schemas.internal import Delta, EdgeDelta
from streams.graph import Edge
from streams.ids import key_of, parts_of
from streams.impact.blast import blast_radius
from streams.impact.incident import (
    ANOMALOUS,
    Faulty,
    OpenIncident,
    digest_of,
    incident_id,
    record,
    severity_of,
)
from streams.impact.settings import ImpactSettings
from streams.impact.tenant import Head, Tenant
from streams.rootcause.base import Scene
from streams.rootcause.executions import ExecutionReader
from streams.rootcause.faults import FaultReader
from streams.rootcause.memory import Counts
from streams.rootcause.ranking import Ranking, blend
from streams.rootcause.troubles import Trouble
from streams.rootcause.windows import WindowReader
from streams.timers import NEVER_US

_MEMORY, _GRAPH, _INCIDENT, _HEAD, _CLOCK = "m", "g", "i", "h", "c"
_NORMAL = "normal"
_encode = msgspec.msgpack.Encoder().encode
DEFAULTS = ImpactSettings()


class ImpactStage:
    """Groups what is wrong into incidents, says why, and who is hurt next."""

    def __init__(self, settings: ImpactSettings = DEFAULTS) -> None:
        self._settings = settings
        self.reached: Counter[str] = Counter()
        self._tenants: dict[str, Tenant] = {}
        self._clock_us = 0
        self._dirty_incidents: dict[tuple[str, str], None] = {}
        self._dirty_heads: dict[str, None] = {}
        self._forgotten: dict[str, None] = {}
        readers = (
            FaultReader(settings.faults),
            ExecutionReader(settings.executions),
            WindowReader(settings.windows),
        )
        self._ranking = Ranking(readers, settings.ranking)

    def observe(
        self, deltas: Sequence[Delta], edges: Sequence[EdgeDelta], source_topic: str, source_partition: int
    ) -> None:
        """Take in what one source partition added, before any window closes."""
        place = f"{source_topic}:{source_partition}"
        for delta in deltas:
            tenant = self._tenant(delta.tenant)
            for incident in tenant.observe(delta, place) if tenant else ():
                self._dirty_incidents[delta.tenant, incident.id] = None
        for edge in edges:
            if tenant := self._tenant(edge.tenant):
                tenant.graph.observe(edge)

    def advance(self, watermark_us: int, anomalies: Sequence[Anomaly]) -> list[Incident]:
        """Move event time on; return the incidents that are new or have changed, with a higher revision each."""
        self._clock_us = max(self._clock_us, watermark_us)
        for name in sorted({anomaly.tenant for anomaly in anomalies}):
            if tenant := self._tenant(name):
                tenant.take_anomalies([anomaly for anomaly in anomalies if anomaly.tenant == name])
                self._dirty_heads[name] = None
        found: list[Incident] = []
        for name in sorted(self._tenants):
            tenant = self._tenants[name]
            moved = tenant.fold()
            if tenant.touched or moved or self._is_due(tenant):
                found.extend(self._evaluate(tenant))
        return found

    @property
    def due_us(self) -> int:
        """Event time at which an incident is looked at again though nothing comes."""
        looked_at = (tenant.head.evaluated_us for tenant in self._tenants.values() if tenant.incidents)
        return min(looked_at, default=NEVER_US) + self._settings.revise_us

    def frozen(self, window: HealthWindow) -> bool:
        """Return whether an open incident speaks of a window's key: detectors must not learn from it."""
        tenant = self._tenants.get(window.tenant)
        return tenant is not None and any(i.touches(window.chain, window.component) for i in tenant.open())

    def scene(self, tenant: str) -> Scene:
        """Return what root-cause readers may look at; it changes with what is observed."""
        found = self._tenants.get(tenant)
        return found.scene() if found else Tenant(tenant, self._settings).scene()

    def _tenant(self, name: str) -> Tenant | None:
        """Return a tenant, a new one if there is room."""
        tenant = self._tenants.get(name)
        if tenant is None:
            if not self._has_room():
                return None
            tenant = self._tenants[name] = Tenant(name, self._settings, self.reached)
            self._dirty_heads[name] = None
        if tenant.head.seen_us != self._clock_us:
            tenant.head.seen_us = self._clock_us
            self._dirty_heads[name] = None
        return tenant

    def _has_room(self) -> bool:
        """Return whether another tenant can be analysed, if need be in place of some that were not seen for longest."""
        limit = self._settings.max_tenants
        if len(self._tenants) < limit:
            return True
        self.reached["tenants_over_limit"] += 1
        idle = [tenant for tenant in self._tenants.values() if not tenant.open()]
        for tenant in sorted(idle, key=lambda tenant: (tenant.head.seen_us, tenant.name))[: 1 + limit // 8]:
            self._forget(tenant.name)
        return bool(idle)

    def _forget(self, name: str) -> None:
        tenant = self._tenants.pop(name)
        unsaved = [key for key, _ in _memory_changes(tenant)]
        gone = [key_of(_INCIDENT, *incident) for incident in self._dirty_incidents if incident[0] == name]
        self._forgotten |= dict.fromkeys((*_keys(tenant), *unsaved, *gone))

    def _is_due(self, tenant: Tenant) -> bool:
        waited = self._clock_us - tenant.head.evaluated_us
        return bool(tenant.incidents) and waited >= self._settings.revise_us

    def _evaluate(self, tenant: Tenant) -> list[Incident]:
        tenant.touched = False
        tenant.head.evaluated_us = self._clock_us
        self._dirty_heads[tenant.name] = None
        for trouble in tenant.troubles(self._clock_us):
            self._attach(tenant, self._home(tenant, trouble), trouble)
        found = []
        for incident in tenant.open():
            if self._has_ended(tenant, incident):
                incident.resolved_us = self._clock_us
            published = self._revise(tenant, incident)
            if published is not None:
                found.append(published)
        self._drop_old(tenant)
        return found

    def _home(self, tenant: Tenant, trouble: Trouble) -> OpenIncident:
        """Return the open incident that a trouble belongs to, or open one."""
        candidates = tenant.open()
        for incident in candidates:
            if incident.find((trouble.chain, trouble.step, trouble.component)) is not None:
                return incident
        for incident in candidates:
            if self._belongs(tenant, incident, trouble):
                return incident
        if len(candidates) >= self._settings.max_open:
            self.reached["incidents_over_limit"] += 1
            return candidates[-1]
        window = self._settings.memory.window_us
        incident = OpenIncident(
            incident_id(tenant.name, trouble),
            tenant.name,
            max(self._clock_us, trouble.since_us),
            trouble.since_us + window - 1,
            trouble.last_us + window,
            trouble.since_us,
        )
        return tenant.incidents.setdefault(incident.id, incident)

    def _belongs(self, tenant: Tenant, incident: OpenIncident, trouble: Trouble) -> bool:
        if trouble.since_us - incident.last_us > self._settings.join_us:
            return False
        if trouble.chain and trouble.chain in incident.chains():
            return True
        return any(
            self._near(tenant, trouble.component, other) for other in incident.components() if trouble.component
        )

    def _near(self, tenant: Tenant, one: str, other: str) -> bool:
        hops = self._settings.join_hops
        ahead = tenant.graph.distance(one, other, hops)
        return ahead is not None or tenant.graph.distance(other, one, hops) is not None

    def _attach(self, tenant: Tenant, incident: OpenIncident, trouble: Trouble) -> None:
        context = (trouble.chain, trouble.step, trouble.component)
        window = self._settings.memory.window_us
        incident.last_us = max(incident.last_us, trouble.last_us + window)
        incident.severity = max(incident.severity, severity_of(trouble, self._settings))
        known = incident.find(context)
        if known is None:
            if len(incident.faulty) >= self._settings.max_keys:
                self.reached["incident_keys_over_limit"] += 1
                return
            first = self._absorb(tenant, incident, trouble)
            known = Faulty(*context, trouble.kind, trouble.count, trouble.total, first, trouble.last_us + window)
            incident.faulty.append(known)
            incident.grown = True
        known.last_us = max(known.last_us, trouble.last_us + window)
        if known.kind == ANOMALOUS != trouble.kind or trouble.count > known.count:
            known.kind, known.count, known.total = trouble.kind, trouble.count, trouble.total
        if trouble.kind == ANOMALOUS:
            self._attach_anomalies(tenant, incident, trouble)

    def _attach_anomalies(self, tenant: Tenant, incident: OpenIncident, trouble: Trouble) -> None:
        context = (trouble.chain, trouble.step, trouble.component)
        for item in tenant.head.anomalies:
            if (item.chain, item.step, item.component) == context and item.id not in incident.anomalies:
                incident.grown = True
                incident.anomalies = [*incident.anomalies, item.id][: self._settings.max_anomalies]

    def _absorb(self, tenant: Tenant, incident: OpenIncident, trouble: Trouble) -> int:
        """Add what the remembered windows hold of a context; return the time of its first violation."""
        memory = tenant.memory.components.get(trouble.component)
        firsts = []
        for start, window in sorted(memory.recent.items()) if memory else ():
            counts = window.get((trouble.chain, trouble.step))
            if counts is not None and start >= trouble.since_us:
                incident.absorb(counts.violations, counts.damage, self._settings.sample)
                if counts.damage is not None and counts.damage.first_us:
                    firsts.append(counts.damage.first_us)
        return min(firsts, default=trouble.since_us)

    def _has_ended(self, tenant: Tenant, incident: OpenIncident) -> bool:
        """Return whether an incident is over: quiet for long enough, and its keys have been seen to work again."""
        quiet = self._clock_us - incident.last_us
        if quiet >= self._settings.abandon_us:
            return True
        again = (tenant.works_again(item, incident.last_us) for item in incident.faulty)
        return quiet >= self._settings.quiet_us and any(again)

    def _revise(self, tenant: Tenant, incident: OpenIncident) -> Incident | None:
        """Rank again and return the incident if that, or anything else, makes it differ from what was published."""
        self._dirty_incidents[tenant.name, incident.id] = None
        waited = self._clock_us - incident.published_us
        if incident.revision >= 0 and waited < self._settings.revise_us and not incident.resolved_us:
            return None
        if not incident.resolved_us:
            self._explain(tenant, incident)
        digest = digest_of(incident)
        if digest == incident.digest:
            return None
        incident.digest = digest
        incident.revision += 1
        incident.updated_us = incident.published_us = max(self._clock_us, incident.opened_us)
        return record(incident)

    def _explain(self, tenant: Tenant, incident: OpenIncident) -> None:
        """Name suspects that can have hurt what is in trouble, and what they will hurt next."""
        parts = incident.components()
        if self._may_rank(tenant, incident):
            suspects = self._ranking.suspects(tenant.scene(parts))
            able = [s for s in suspects if any(self._near(tenant, s.component, part) for part in parts)]
            elapsed = self._clock_us - incident.ranked_us
            weight = 0.5 ** (elapsed / self._settings.belief_half_life_us) if incident.suspects else 0.0
            incident.suspects = [s.model_dump() for s in blend(incident.suspects, able, weight, self._settings.ranking)]
            incident.ranked_us, incident.grown = self._clock_us, False
        able = [Suspect.model_validate(item) for item in incident.suspects]
        lead = able[0].component if able else (parts[0] if parts else "")
        hurt = blast_radius(incident, lead, tenant.graph, tenant.memory, self._settings)
        incident.hurt = [item.model_dump() for item in hurt]

    def _may_rank(self, tenant: Tenant, incident: OpenIncident) -> bool:
        """Rank on new evidence; the more contexts a tenant has, the more seldom, so that ranking keeps its share of CPU."""
        pause = self._settings.revise_us * tenant.memory.context_count() // self._settings.contexts_per_ranking
        return incident.revision < 0 or (incident.grown and self._clock_us >= incident.ranked_us + pause)

    def _drop_old(self, tenant: Tenant) -> None:
        """Forget resolved incidents once none of their windows is remembered any more."""
        kept = self._settings.memory.recent_windows * self._settings.memory.window_us
        for incident in list(tenant.incidents.values()):
            if incident.resolved_us and self._clock_us - incident.resolved_us > kept:
                del tenant.incidents[incident.id]
                self._dirty_incidents[tenant.name, incident.id] = None

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the entries changed since the last call; None = forget it."""
        for key in self._forgotten:
            yield key, None
        for name in sorted(self._tenants):
            yield from _memory_changes(self._tenants[name])
        for name, identity in self._dirty_incidents:
            tenant = self._tenants.get(name)
            incident = tenant.incidents.get(identity) if tenant else None
            yield key_of(_INCIDENT, name, identity), _encode(incident) if incident else None
        for name in self._dirty_heads:
            if name in self._tenants:
                yield key_of(_HEAD, name), _encode(self._tenants[name].head)
        yield key_of(_CLOCK), _encode(self._clock_us)
        self._forgotten, self._dirty_incidents, self._dirty_heads = {}, {}, {}

    def restore(self, key: str, value: bytes) -> None:
        """Take back one entry; raises ValueError if it is not one."""
        kind, *parts = parts_of(key)
        if kind == _CLOCK:
            self._clock_us = msgspec.msgpack.decode(value, type=int)
            return
        tenant = self._tenants.setdefault(parts[0], Tenant(parts[0], self._settings, self.reached)) if parts else None
        if tenant is None or kind not in (_MEMORY, _GRAPH, _INCIDENT, _HEAD):
            raise ValueError(f"not an entry of the impact stage: {key!r}")
        if kind == _HEAD:
            tenant.head = msgspec.msgpack.decode(value, type=Head)
            tenant.memory.newest_us = max(tenant.memory.newest_us, tenant.head.folded_us)
        elif kind == _INCIDENT:
            tenant.incidents[parts[1]] = msgspec.msgpack.decode(value, type=OpenIncident)
        elif kind == _GRAPH:
            tenant.graph.restore(msgspec.msgpack.decode(value, type=list[Edge]))
        else:
            start = None if parts[2] == _NORMAL else int(parts[2])
            tenant.memory.restore(parts[1], start, msgspec.msgpack.decode(value, type=list[Counts]))


def _memory_changes(tenant: Tenant) -> Iterator[tuple[str, bytes | None]]:
    for component, start, counts in tenant.memory.changes():
        place = _NORMAL if start is None else str(start)
        yield key_of(_MEMORY, tenant.name, component, place), _encode(counts) if counts else None
    for source, edges in tenant.graph.changes():
        yield key_of(_GRAPH, tenant.name, source), _encode(edges) if edges else None


def _keys(tenant: Tenant) -> Iterator[str]:
    """Yield the keys of all entries that a tenant may have saved."""
    yield key_of(_HEAD, tenant.name)
    yield from (key_of(_INCIDENT, tenant.name, identity) for identity in tenant.incidents)
    yield from (key_of(_GRAPH, tenant.name, source) for source in tenant.graph.nodes())
    for name, memory in tenant.memory.components.items():
        yield key_of(_MEMORY, tenant.name, name, _NORMAL)
        yield from (key_of(_MEMORY, tenant.name, name, str(start)) for start in memory.recent)
