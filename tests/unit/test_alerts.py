"""The alert stage: what a person hears, and what he is spared."""

import pytest
from test_rootcause_world import SECOND, START_US, Fault, World, run

from schemas.analysis import Alert, Incident
from streams.alerts import AlertSettings, AlertStage, alert_id

NOW = START_US


def suspect(component: str, probability: float) -> dict[str, object]:
    return {"component": component, "score": 1.0, "probability": probability, "reader": "faults", "reason": "because"}


def incident(revision: int, second: int, **more: object) -> Incident:
    fields: dict[str, object] = {
        "id": "i", "revision": revision, "tenant": "acme", "status": "open", "opened_unix_us": NOW,
        "first_fault_unix_us": NOW, "updated_unix_us": NOW + second * SECOND, "severity": "warning", "title": "it fails",
        "suspects": [suspect("db", 0.9)], "blast_radius": [], "chains": ["order"], "affected_executions": 3,
        "affected_sample": ["e"], "violations": {"step.failed": 3}, "anomalies": [], "evidence": [],
    }  # fmt: skip
    if more.get("status") == "resolved":
        more["resolved_unix_us"] = NOW + second * SECOND
    return Incident.model_validate({**fields, **more})


def told(*incidents: Incident, stage: AlertStage | None = None) -> list[Alert]:
    stage = stage or AlertStage()
    return [alert for item in incidents for alert in stage.apply([item])]


def test_opened_once_with_cause_and_summary() -> None:
    alerts = told(incident(0, 0), incident(1, 20, affected_executions=900), incident(1, 20))
    assert [(alert.status, alert.revision, alert.id) for alert in alerts] == [("opened", 0, alert_id("i"))]
    assert alerts[0].cause is not None
    assert alerts[0].cause.component == "db"
    assert "probable cause (90 %): because" in alerts[0].summary


def test_updated_when_the_cause_changes_but_not_when_two_flap() -> None:
    flap = [suspect("web", 0.48), suspect("db", 0.45)]
    clear = [suspect("web", 0.8), suspect("db", 0.1)]
    alerts = told(incident(0, 0), incident(1, 20, suspects=flap), incident(2, 40, suspects=clear))
    assert [(a.status, a.cause and a.cause.component) for a in alerts] == [("opened", "db"), ("updated", "web")]


def test_named_cause_stays_when_the_evidence_fades_until_another_overtakes_it() -> None:
    faded = incident(1, 20, suspects=[suspect("db", 0.3), suspect("web", 0.25)], chains=["order", "search"])
    over = incident(2, 90, status="resolved", suspects=[])
    alerts = told(incident(0, 0), faded, over)
    assert [(a.status, a.cause and (a.cause.component, a.cause.probability)) for a in alerts] == [
        ("opened", ("db", 0.9)), ("updated", ("db", 0.9)), ("resolved", ("db", 0.9)),
    ]  # fmt: skip
    overtaken = told(incident(0, 0), incident(1, 20, suspects=[suspect("web", 0.5)]))[-1]
    assert overtaken.cause is not None
    assert overtaken.cause.component == "web"


def test_updates_wait_for_their_turn_but_are_not_lost() -> None:
    stage = AlertStage(AlertSettings(update_us=10 * SECOND))
    assert len(told(incident(0, 0), incident(1, 3, chains=["order", "search"]), stage=stage)) == 1
    assert stage.apply([], NOW + 9 * SECOND) == []
    late = stage.apply([], NOW + 10 * SECOND)
    assert [(alert.status, alert.affected_chains) for alert in late] == [("updated", ["order", "search"])]
    assert stage.apply([], NOW + 60 * SECOND) == []


def test_worse_severity_does_not_wait() -> None:
    assert [a.severity for a in told(incident(0, 0), incident(1, 1, severity="critical"))] == ["warning", "critical"]


def test_resolved_once() -> None:
    over = incident(1, 90, status="resolved")
    assert [a.status for a in told(incident(0, 0), over, over, incident(2, 95))] == ["opened", "resolved"]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"violations": {}, "anomalies": ["a"], "suspects": []}, "retracted"),
        ({"violations": {}, "anomalies": ["a", "b", "c"], "suspects": []}, "resolved"),
        ({"violations": {"step.missing": 10, "step.delayed": 10}}, "retracted"),
        ({"violations": {"step.missing": 10, "step.delayed": 9}}, "resolved"),
        ({"violations": {"step.missing": 10, "step.late": 10}}, "resolved"),
        ({"violations": {"step.missing": 10, "step.delayed": 10, "step.failed": 1}}, "resolved"),
    ],
)
def test_what_was_nothing_is_taken_back(more: dict[str, object], status: str) -> None:
    assert told(incident(0, 0), incident(1, 90, status="resolved", **more))[-1].status == status


def test_below_the_least_severity_nobody_hears_until_it_gets_worse() -> None:
    stage = AlertStage(AlertSettings(least_severity="warning"))
    alerts = told(incident(0, 0, severity="info"), incident(1, 1), incident(2, 2, status="resolved"), stage=stage)
    assert [alert.status for alert in alerts] == ["opened", "resolved"]
    silent = AlertStage(AlertSettings(least_severity="critical"))
    assert told(incident(0, 0), incident(1, 9, status="resolved"), stage=silent) == []


@pytest.mark.parametrize("cut", range(4))
def test_restored_stage_goes_on_exactly(cut: int) -> None:
    steps = [incident(0, 0), incident(1, 3, chains=["x"]), incident(2, 5, chains=["x", "y"]), incident(3, 9, status="resolved")]
    whole, stage, found = told(*steps), AlertStage(), []
    for number, item in enumerate(steps):
        if number == cut:
            fresh = AlertStage()
            for key, value in stage.changes():
                assert value is not None
                fresh.restore(key, value)
            stage = fresh
        found += stage.apply([item])
    assert found == whole


def test_memory_is_bounded() -> None:
    stage = AlertStage(AlertSettings(max_remembered=2))

    def heard(number: int, **more: object) -> list[Alert]:
        return stage.apply([incident(1 if more else 0, number, **more).model_copy(update={"id": f"i{number}"})])

    assert [len(heard(number)) for number in range(3)] == [1, 1, 0]  # to forget an open one would page for it again
    assert heard(1, status="resolved")
    assert [len(heard(number)) for number in (0, 3)] == [0, 1]
    assert {key for key, value in stage.changes() if value is None} == {"i1"}
    assert stage.reached["alerts_over_limit"] == 2


def test_foreign_entry_is_refused() -> None:
    stage = AlertStage()
    stage.apply([incident(0, 0)])
    ((_, value),) = stage.changes()
    with pytest.raises(ValueError, match="not an entry"):
        AlertStage().restore("other", value or b"")


def test_a_real_fault_pages_a_few_times_not_every_revision() -> None:
    stage = AlertStage()
    alerts: list[Alert] = []
    revisions = 0
    for item in run(World(Fault("database", "error", 60, 100)), 240):
        revisions += 1
        alerts += stage.apply([item], item.updated_unix_us)
    assert alerts[0].status == "opened"
    assert alerts[-1].status == "resolved"
    assert len(alerts) <= 6 < revisions
    assert {alert.cause.component for alert in alerts if alert.cause} == {"database"}
