"""What the impact stage knows of one tenant."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from schemas.analysis import Anomaly
from schemas.internal import Delta
from streams.graph import Graph
from streams.impact.incident import ANOMALOUS, Faulty, OpenIncident
from streams.impact.settings import ImpactSettings
from streams.rootcause.base import Scene
from streams.rootcause.memory import Context, Damage, Memory
from streams.rootcause.silence import others_work, unanswering
from streams.rootcause.troubles import SILENT, Trouble, troubles

_LOAD = ("throughput", "events", "count", "started", "completed", "requests", "rate", "load")
"""Features that speak of load: more of it is no trouble, less is."""


class SeenAnomaly(Struct):
    """One anomalous window of one key."""

    id: str
    chain: str
    step: str
    component: str
    start_us: int
    end_us: int
    score: float
    less: bool = False
    """Its load was lower than expected."""


class Head(Struct):
    """The rest of a tenant's state: small, saved as one entry."""

    seen_us: int = 0
    evaluated_us: int = 0
    folded_us: int = 0
    anomalies: list[SeenAnomaly] = []


class Tenant:
    """Memory, graph and incidents of one tenant."""

    def __init__(self, name: str, settings: ImpactSettings, reached: Counter[str] | None = None) -> None:
        """`reached` counts how often a bound was reached, by its name."""
        self.name = name
        self.settings = settings
        self.memory = Memory(settings.memory, reached)
        self.graph = Graph(settings.graph, reached)
        self.incidents: dict[str, OpenIncident] = {}
        self.head = Head()
        self.touched = False

    def open(self) -> list[OpenIncident]:
        """Return the open incidents, oldest first."""
        found = [incident for incident in self.incidents.values() if not incident.resolved_us]
        return sorted(found, key=lambda incident: (incident.opened_us, incident.id))

    def observe(self, delta: Delta, place: str) -> list[OpenIncident]:
        """Take in one delta; return the incidents that grew by it."""
        counts = self.memory.observe(delta)
        if not delta.violations:
            return []
        self.touched = True
        damage = _damage(delta, place)
        if counts is not None:
            counts.damage = counts.damage or Damage()
            counts.damage.add(damage, self.settings.sample)
        context = (delta.chain, delta.step, delta.component)
        start = delta.window_start_unix_us
        grown = [i for i in self.open() if start >= i.since_us and i.find(context) is not None]
        for incident in grown:
            incident.absorb(delta.violations, damage, self.settings.sample)
        return grown

    def fold(self) -> bool:
        """Let windows that are no longer recent become normal; return whether a new window has begun."""
        if self.memory.newest_us == self.head.folded_us:
            return False
        self.head.folded_us = self.memory.newest_us
        self.memory.fold(self.ill)
        return True

    def ill(self, context: Context, start_us: int) -> bool:
        """Return whether an incident spoke of a context in a window."""
        return any(
            incident.since_us <= start_us
            and (not incident.resolved_us or start_us <= incident.last_us)
            and incident.touches(context[0], context[2])
            for incident in self.incidents.values()
        )

    def scene(self, hurt: tuple[str, ...] = ()) -> Scene:
        """Return what root-cause readers look at."""
        return Scene(self.memory, self.graph, self.ill, hurt)

    def take_anomalies(self, anomalies: Sequence[Anomaly]) -> None:
        """Remember the harmful ones of the last windows of each key; a later revision replaces the earlier."""
        known = {item.id: item for item in self.head.anomalies}
        for anomaly in anomalies:
            if _is_harmful(anomaly):
                known[anomaly.id] = _seen(anomaly)
                self.touched = True
        span = self.settings.anomaly_span * self.settings.memory.window_us
        newest = max((item.start_us for item in known.values()), default=0)
        recent = [item for item in known.values() if item.start_us > newest - span]
        self.head.anomalies = sorted(recent, key=lambda item: (item.start_us, item.id))[-self.settings.max_anomalies :]

    def troubles(self, now_us: int) -> list[Trouble]:
        """Return what is wrong now, what was first wrong first; chains as a whole after their steps."""
        found = troubles(self.scene(), self.settings.faults) + self._silent() + self._anomalous()
        window = self.settings.memory.window_us
        fresh = [trouble for trouble in found if trouble.last_us + window > now_us - self.settings.quiet_us]
        return sorted(fresh, key=lambda t: (t.since_us, not t.component, t.kind == ANOMALOUS, t.chain, t.step, t.component))

    def _silent(self) -> list[Trouble]:
        """Return busy components that have gone silent on their own: where a chain begins nothing else tells."""
        scene, newest = self.scene(), self.memory.newest_us
        before = newest - self.memory.settings.window_us
        return [
            Trouble("", "", s.component, SILENT, s.expected, s.expected, 0.0, s.expected, s.since_us, newest)
            for s, share in unanswering(scene, self.settings.faults).silent.values()
            if s.expected >= self.settings.faults.silent_opens and s.since_us and not s.seen and share == 1.0
            if others_work(scene, s.component, before, newest)
        ]

    def works_again(self, item: Faulty, since_us: int) -> bool:
        """Return whether a key has completed something in the windows from then on; a component, given a sign of life."""
        memory = self.memory.components.get(item.component)
        return any(
            counts.completed > 0 if item.chain else counts.events > 0
            for start, window in (memory.recent.items() if memory else ())
            if start >= since_us
            for key, counts in window.items()
            if not item.chain or key == (item.chain, item.step)
        )

    def _anomalous(self) -> list[Trouble]:
        by_key: dict[Context, list[SeenAnomaly]] = {}
        for item in self.head.anomalies:
            by_key.setdefault((item.chain, item.step, item.component), []).append(item)
        found = []
        for context, items in by_key.items():
            items = [item for item in items if not item.less or others_work(self.scene(), item.component, item.start_us)]
            if not items:
                continue
            best = max(item.score for item in items)
            if len(items) >= self.settings.anomaly_windows or best >= self.settings.strong_anomaly_score:
                span = float(self.settings.anomaly_span)
                first, last = items[0].start_us, items[-1].start_us
                found.append(Trouble(*context, ANOMALOUS, len(items), span, 0.0, best, first, last))
        return found


def _damage(delta: Delta, place: str) -> Damage:
    return Damage(
        delta.first_violation_unix_us,
        delta.affected_executions,
        list(delta.affected),
        list(delta.users),
        {place: (delta.first_offset, delta.last_offset)},
    )


def _is_harmful(anomaly: Anomaly) -> bool:
    return anomaly.direction == "other" or _is_load(anomaly) == (anomaly.direction == "lower")


def _is_load(anomaly: Anomaly) -> bool:
    return bool(anomaly.features) and anomaly.features[0].feature.startswith(_LOAD)


def _seen(anomaly: Anomaly) -> SeenAnomaly:
    return SeenAnomaly(
        anomaly.id,
        anomaly.chain,
        anomaly.step,
        anomaly.component,
        anomaly.window_start_unix_us,
        anomaly.window_end_unix_us,
        anomaly.score,
        _is_load(anomaly),
    )
