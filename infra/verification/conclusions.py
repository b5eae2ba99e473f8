"""What must hold of anomalies, incidents and alerts. Pure.

They are not computed a second time: an independent oracle would have to be the detectors and the ranking once more. What
is said is that their corrections are in order, and that what they refer to is there.
"""

from collections.abc import Container, Iterable, Mapping

from infra.verification.compare import Record, Tally
from schemas.analysis import Alert, Anomaly, Incident
from schemas.health import OffsetRange

Conclusion = Alert | Anomaly | Incident
FOLLOWS: Mapping[str, frozenset[str]] = {
    "": frozenset({"opened", "open"}),
    "opened": frozenset({"updated", "resolved", "retracted"}),
    "updated": frozenset({"updated", "resolved", "retracted"}),
    "open": frozenset({"open", "resolved"}),
    "resolved": frozenset(),
    "retracted": frozenset(),
}
"""Status -> those of the next revision."""
Held = Mapping[int, tuple[int, int]]
"""Per partition of the events topic, the first offset and the end."""


def check(tally: Tally, records: Iterable[Conclusion], topic: str, held: Held) -> set[str]:
    """Check each record against the ones before it; return the ids. Records come in the order of their partition."""
    newest: dict[str, Conclusion] = {}
    for record in records:
        tally.expected += 1
        tally.found += 1
        name = f"{record.id} revision {record.revision}"
        before = newest.get(record.id)
        expected = before.revision + 1 if before is not None else 0
        if before is not None and record.revision == before.revision:
            if record != before:
                tally.note("duplicated", name, "content", _facts(before), _facts(record))
            continue
        if record.revision != expected:
            tally.note("missing" if record.revision > expected else "duplicated", name, "revision", expected, record.revision)
        _check_status(tally, name, before, record)
        if not isinstance(record, Anomaly):
            _check_evidence(tally, name, record.evidence, topic, held)
        newest[record.id] = record
    return set(newest)


def check_incidents_of(tally: Tally, alerts: Iterable[Alert], incidents: set[str], slos: Container[str] = ()) -> None:
    """Check that each alert speaks of an incident, or of an objective, that was published."""
    for alert in alerts:
        if alert.incident not in (incidents if alert.slo is None else slos):
            tally.note("missing", f"{alert.id} revision {alert.revision}", "incident", alert.incident, None)


def _check_status(tally: Tally, name: str, before: Conclusion | None, record: Conclusion) -> None:
    if isinstance(record, Anomaly):
        return
    was = before.status if before is not None and not isinstance(before, Anomaly) else ""
    if record.status not in FOLLOWS[was] and not (was == "" and record.status == "resolved" and isinstance(record, Incident)):
        tally.note("different", name, "status", f"one of {sorted(FOLLOWS[was])} after {was or 'nothing'}", record.status)


def _check_evidence(tally: Tally, name: str, evidence: Iterable[OffsetRange], topic: str, held: Held) -> None:
    for span in evidence:
        end = held.get(span.partition, (0, 0))[1]
        if span.topic != topic or not span.first_offset <= span.last_offset < end:
            found = f"{span.topic}[{span.partition}] {span.first_offset}..{span.last_offset}"
            tally.note("different", name, "evidence", f"a stretch of {topic} before {end}", found)


def _facts(record: Conclusion) -> Record:
    return record.model_dump(mode="json", include={"revision", "status", "severity", "score", "title", "updated_unix_us"})
