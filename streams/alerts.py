"""The alert stage: incidents in, what pages a person out; corrected by revisions of one id, never repeated.

An alert is opened once per incident. It is updated only when something a person acts on has changed: the cause, the
severity, or what is affected; at most once per `update_us` of event time, except when it becomes more severe. It ends as
resolved, or as retracted when the incident turned out to be nothing.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from schemas.analysis import Alert, Cause, Incident, Severity, Suspect
from streams.ids import derived_id
from streams.rootcause.base import clock
from streams.timers import NEVER_US

_RANK: dict[str, int] = {"info": 0, "warning": 1, "critical": 2}
_HEARSAY = frozenset(("step.missing", "step.delayed", "step.out_of_order"))
"""What shows nothing by itself: a missing step may be under way, and order is a matter of clocks."""
_encode = msgspec.msgpack.Encoder().encode


class AlertSettings(msgspec.Struct, frozen=True):
    """When people hear of an incident."""

    least_severity: Severity = "info"
    """Incidents below it are not alerted (until they get worse)."""
    update_us: int = 10_000_000
    cause_probability: float = 0.4
    """A suspect at least so probable is named as the cause."""
    cause_margin: float = 0.1
    """Another one must lead the cause named last by so much to be named in its place: no flapping between two."""
    least_anomalies: int = 3
    """An incident of anomalies alone, fewer than so many and without a suspect, is retracted at its end."""
    max_suspects: int = 5
    max_affected: int = 20
    max_remembered: int = 10_000
    """Alerts remembered; beyond it the tenth that ended first is forgotten. While none has ended, a further incident is
    not alerted: to forget one that is open would page again for it."""


DEFAULTS = AlertSettings()


class NamedCause(msgspec.Struct):
    """A cause that was named, in the words and with the probability that it had while it was likely."""

    component: str
    step: str
    probability: float
    reason: str


class AlertState(msgspec.Struct):
    """What was said of one incident."""

    incident: str
    incident_revision: int
    revision: int = -1
    said_us: int = 0
    severity: str = ""
    cause: NamedCause | None = None
    """Stays named until another one overtakes it: the evidence against it fades while a fault ends."""
    affected: list[str] = []
    ended: bool = False
    seen_us: int = 0
    pending: bytes | None = None
    """An incident's revision that waits for its turn."""


class AlertStage:
    """Decides what a person needs to hear."""

    def __init__(self, settings: AlertSettings = DEFAULTS) -> None:
        self._settings = settings
        self.reached: Counter[str] = Counter()
        self._states: dict[str, AlertState] = {}
        self._waiting: dict[str, None] = {}
        self._dirty: dict[str, None] = {}

    def apply(self, incidents: Sequence[Incident], watermark_us: int = 0) -> list[Alert]:
        """Return the alerts that follow from revised incidents, and updates whose time has come by the watermark."""
        found = [alert for incident in incidents if (alert := self._take(incident)) is not None]
        for name in sorted(self._waiting):
            state = self._states[name]
            if state.pending is not None and watermark_us >= state.said_us + self._settings.update_us:
                found.append(self._say(state, Incident.decode(state.pending), "updated", watermark_us))
        return found

    @property
    def due_us(self) -> int:
        """Event time at which the next update's turn comes."""
        return min((self._states[name].said_us + self._settings.update_us for name in self._waiting), default=NEVER_US)

    def _take(self, incident: Incident) -> Alert | None:
        state = self._states.get(incident.id)
        if state is None:
            if not self._has_room():
                return None
            state = self._states[incident.id] = AlertState(incident.id, -1, seen_us=incident.updated_unix_us)
        if state.ended or incident.revision <= state.incident_revision:
            return None
        state.incident_revision, state.seen_us = incident.revision, incident.updated_unix_us
        self._dirty[incident.id] = None
        if state.revision < 0:
            return self._open(state, incident)
        if incident.status == "resolved":
            state.ended = True
            return self._say(state, incident, "retracted" if self._was_nothing(incident) else "resolved")
        return self._update(state, incident)

    def _open(self, state: AlertState, incident: Incident) -> Alert | None:
        if incident.status == "resolved":
            state.ended = True
            return None
        if _RANK[incident.severity] < _RANK[self._settings.least_severity]:
            return None
        return self._say(state, incident, "opened")

    def _update(self, state: AlertState, incident: Incident) -> Alert | None:
        if not self._differs(state, incident):
            self._wait(state, None)
            return None
        worse = _RANK[incident.severity] > _RANK[state.severity]
        if worse or incident.updated_unix_us >= state.said_us + self._settings.update_us:
            return self._say(state, incident, "updated")
        self._wait(state, incident)
        return None

    def _wait(self, state: AlertState, incident: Incident | None) -> None:
        state.pending = incident.encode() if incident is not None else None
        if incident is not None:
            self._waiting[state.incident] = None
        else:
            self._waiting.pop(state.incident, None)

    def _differs(self, state: AlertState, incident: Incident) -> bool:
        """Return whether something a person acts on has changed since the last word."""
        return (
            incident.severity != state.severity
            or _component(self._cause(incident, state.cause)) != _component(state.cause)
            or not set(_affected(incident)) <= set(state.affected)
        )

    def _cause(self, incident: Incident, named: NamedCause | None) -> NamedCause | None:
        """Return the cause to name: the one named last, unless another one has clearly overtaken it."""
        likely = [s for s in incident.suspects if s.probability >= self._settings.cause_probability]
        if named is not None:
            held = next((s.probability for s in incident.suspects if s.component == named.component), 0.0)
            least = held + self._settings.cause_margin
            likely = [s for s in likely if s.component == named.component or s.probability >= least]
        return _named(likely[0]) if likely else named

    def _was_nothing(self, incident: Incident) -> bool:
        """Return whether nothing has happened: every missing step had come in time and was only heard of too late."""
        counts = incident.violations
        if counts.keys() - _HEARSAY:
            return False
        if missing := counts.get("step.missing", 0):
            return counts.get("step.delayed", 0) >= missing
        return not incident.suspects and len(incident.anomalies) < self._settings.least_anomalies

    def _say(self, state: AlertState, incident: Incident, status: str, time_us: int = 0) -> Alert:
        state.cause = self._cause(incident, state.cause)
        state.revision += 1
        state.said_us = max(incident.updated_unix_us, time_us)
        state.severity = incident.severity
        state.affected = sorted(set(state.affected) | set(_affected(incident)))
        self._wait(state, None)
        self._dirty[incident.id] = None
        return _alert(state, incident, status, self._settings)

    def _has_room(self) -> bool:
        """Return whether another incident can be remembered, if need be in place of some that are over."""
        limit = self._settings.max_remembered
        if len(self._states) < limit:
            return True
        self.reached["alerts_over_limit"] += 1
        over = sorted((state for state in self._states.values() if state.ended), key=lambda s: (s.seen_us, s.incident))
        for state in over[: 1 + limit // 10]:
            del self._states[state.incident]
            self._dirty[state.incident] = None
        return bool(over)

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the entries (one per incident) changed since the last call; None = forget it."""
        for name in self._dirty:
            state = self._states.get(name)
            yield name, _encode(state) if state is not None else None
        self._dirty = {}

    def restore(self, key: str, value: bytes) -> None:
        """Take back one entry; raises ValueError if it is not one."""
        state = msgspec.msgpack.decode(value, type=AlertState)
        if state.incident != key:
            raise ValueError(f"not an entry of the alert stage: {key!r}")
        self._states[key] = state
        if state.pending is not None:
            self._waiting[key] = None


def alert_id(incident: str) -> str:
    """Return the id of an incident's alert."""
    return derived_id("alert", incident)


def _affected(incident: Incident) -> list[str]:
    observed = [f"{hurt.kind} {hurt.name}" for hurt in incident.blast_radius if hurt.observed]
    return observed + [f"chain {chain}" for chain in incident.chains]


def _alert(state: AlertState, incident: Incident, status: str, settings: AlertSettings) -> Alert:
    cause = state.cause
    return Alert.model_validate(
        {
            "id": alert_id(incident.id),
            "revision": state.revision,
            "status": status,
            "severity": incident.severity,
            "tenant": incident.tenant,
            "incident": incident.id,
            "title": incident.title,
            "summary": _summary(incident, status, cause)[:1024],
            "cause": Cause.model_validate(msgspec.structs.asdict(cause)) if cause else None,
            "suspects": incident.suspects[: settings.max_suspects],
            "affected": incident.blast_radius[: settings.max_affected],
            "affected_chains": incident.chains,
            "affected_executions": incident.affected_executions,
            "affected_sample": incident.affected_sample,
            "violations": incident.violations,
            "first_fault_unix_us": incident.first_fault_unix_us,
            "opened_unix_us": incident.opened_unix_us,
            "updated_unix_us": state.said_us,
            "resolved_unix_us": incident.resolved_unix_us,
            "evidence": incident.evidence,
        }
    )


def _named(suspect: Suspect) -> NamedCause:
    return NamedCause(suspect.component, suspect.step, suspect.probability, suspect.reason)


def _component(cause: NamedCause | None) -> str:
    return cause.component if cause else ""


def _summary(incident: Incident, status: str, cause: NamedCause | None) -> str:
    """Return what a person reads first: since when, why, who."""
    begin = f"{incident.title} since {clock(incident.first_fault_unix_us)} UTC"
    if status == "retracted":
        return f"{begin}: taken back, it was nothing"
    parts = [begin + (": over" if status == "resolved" else "")]
    if cause is not None:
        parts.append(f"probable cause ({100 * cause.probability:.0f} %): {cause.reason}")
    elif status != "resolved":
        parts.append("cause not known yet: too little evidence")
    users = f", users such as {', '.join(incident.affected_users[:3])}" if incident.affected_users else ""
    parts.append(f"{incident.affected_executions} executions affected{users}")
    observed = [hurt.name for hurt in incident.blast_radius if hurt.observed and hurt.kind == "component"]
    expected = [hurt.name for hurt in incident.blast_radius if not hurt.observed and hurt.kind != "topic"]
    if observed:
        parts.append("hurt: " + ", ".join(observed[:8]))
    if expected and status != "resolved":
        parts.append("next: " + ", ".join(expected[:8]))
    return ". ".join(parts)
