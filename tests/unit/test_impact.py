"""The impact stage: what opens an incident, what it says, how it ends, and that it survives restarts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rootcause_world import HEALTHY, SECOND, START_US, TOPIC, Fault, World, additions, run

from schemas.analysis import Anomaly, Incident
from schemas.health import HealthWindow
from schemas.internal import EdgeDelta
from streams.ids import key_of, parts_of
from streams.impact import ImpactSettings, ImpactStage

BROKEN = Fault("database", "error", 60)


def names(incident: Incident, kind: str, observed: bool) -> set[str]:
    return {hurt.name for hurt in incident.blast_radius if hurt.kind == kind and hurt.observed == observed}


def anomaly(component: str, step: str, window: int, score: float = 0.9, feature: str = "p95_us", direction: str = "higher") -> Anomaly:
    start = START_US + window * 10 * SECOND
    return Anomaly.model_validate(
        {
            "id": f"{component}-{step}-{window}", "tenant": "acme", "chain": "order", "step": step, "component": component,
            "window_start_unix_us": start, "window_end_unix_us": start + 10 * SECOND, "score": score, "threshold": 0.8,
            "direction": direction, "learned_windows": 100, "detectors_version": "1",
            "features": [{"feature": feature, "detector": "d", "value": 1.0, "contribution": 1.0}],
        }
    )  # fmt: skip


def test_error_burst_opens_one_incident_with_cause_and_blast_radius() -> None:
    found = list(run(World(BROKEN), 90))
    assert len({incident.id for incident in found}) == 1
    first, last = found[0], found[-1]
    assert first.opened_unix_us <= START_US + 63 * SECOND
    assert first.first_fault_unix_us - START_US < 61 * SECOND
    assert [incident.revision for incident in found] == list(range(len(found)))
    assert last.suspects[0].component == "database"
    assert names(last, "component", True) == {"hub", "gateway"}
    assert {"trading", "billing"} <= names(last, "component", False)
    assert names(last, "chain", True) == {"order", "search"}
    assert names(last, "topic", False) == {"orders"}
    paths = {hurt.name: (hurt.hops, hurt.path) for hurt in last.blast_radius}
    assert paths["trading"] == (2, ["database", "hub", "orders", "trading"])
    assert last.severity == "critical"
    assert last.affected_executions == 30 * 6
    assert 0 < len(last.affected_sample) <= 20
    assert last.evidence[0].topic == TOPIC
    assert last.title == "database/store fails in order, search"


def test_reader_that_only_a_definition_knows_is_hurt_next_through_the_topic() -> None:
    stage = ImpactStage()
    stage.observe([], [EdgeDelta("acme", "report", "topic", "", "archive", "orders", 0)], TOPIC, 0)
    last = list(run(World(BROKEN), 90, stage))[-1]
    (hurt,) = (hurt for hurt in last.blast_radius if hurt.name == "archive")
    assert (hurt.kind, hurt.observed, hurt.path) == ("component", False, ["database", "hub", "orders", "archive"])


def test_expected_arrival_is_after_the_first_fault_and_grows_with_the_way() -> None:
    last = list(run(World(BROKEN), 90))[-1]
    arrivals = {hurt.name: hurt.expected_arrival_unix_us or 0 for hurt in last.blast_radius if hurt.kind == "component"}
    assert last.first_fault_unix_us <= arrivals["trading"] < arrivals["billing"]


@pytest.mark.parametrize("seed", range(8))
def test_healthy_noise_opens_nothing(seed: int) -> None:
    assert list(run(World(HEALTHY, seed, noise=0.002), 300)) == []


def test_two_failures_open_nothing() -> None:
    assert list(run(World(Fault("database", "error", 60, 61, share=0.3), seed=4), 90)) == []


def test_fault_of_one_tenant_is_that_tenants_incident() -> None:
    found = list(run(World(Fault("database", "error", 30, tenant="acme")), 60, tenants=("acme", "other")))
    assert {incident.tenant for incident in found} == {"acme"}


def test_incident_is_resolved_after_quiet_and_not_before() -> None:
    found = list(run(World(Fault("database", "error", 60, 80)), 240))
    assert len({incident.id for incident in found}) == 1
    last = found[-1]
    assert last.status == "resolved"
    assert last.resolved_unix_us is not None
    assert 140 * SECOND <= last.resolved_unix_us - START_US <= 170 * SECOND
    assert all(incident.status == "open" for incident in found[:-1])


def test_incident_goes_on_while_the_fault_flaps() -> None:
    stage = ImpactStage()
    found = list(run(World(Fault("database", "error", 60, 75)), 100, stage))
    found += run(World(Fault("database", "error", 100, 115), seed=3), 60, stage, first=100)
    assert len({incident.id for incident in found}) == 1


def test_nothing_is_resolved_while_everything_is_silent() -> None:
    stage = ImpactStage()
    found = list(run(World(BROKEN), 70, stage))
    for second in range(70, 400):
        found += stage.advance(START_US + second * SECOND, [])
    assert found[-1].status == "open"
    found += stage.advance(START_US + 2_000 * SECOND, [])
    assert found[-1].status == "resolved"


def test_one_weak_anomaly_opens_nothing_two_do_and_find_the_slow_component() -> None:
    stage = ImpactStage()
    assert list(run(World(Fault("hub", "slow", 60)), 80, stage)) == []
    assert stage.advance(START_US + 80 * SECOND, [anomaly("hub", "route", 6)]) == []
    found = stage.advance(START_US + 90 * SECOND, [anomaly("hub", "route", 7)])
    assert found[0].severity == "info"
    assert found[0].suspects[0].component == "hub"
    assert found[0].anomalies == ["hub-route-6", "hub-route-7"]


def test_more_load_is_no_trouble_less_is() -> None:
    stage = ImpactStage()
    assert list(run(World(), 80, stage)) == []
    more = [anomaly("hub", "route", n, feature="throughput_per_s") for n in (6, 7)]
    assert stage.advance(START_US + 90 * SECOND, more) == []
    less = [anomaly("hub", "route", n, feature="throughput_per_s", direction="lower") for n in (6, 7)]
    assert len(stage.advance(START_US + 90 * SECOND, less)) == 1


def test_less_load_of_everybody_is_the_end_of_traffic_and_no_trouble() -> None:
    stage = ImpactStage()
    assert list(run(World(), 80, stage)) == []
    less = [anomaly("hub", "route", n, feature="throughput_per_s", direction="lower") for n in (8, 9)]
    assert stage.advance(START_US + 110 * SECOND, less) == []


def window(component: str, chain: str = "order", tenant: str = "acme") -> HealthWindow:
    return HealthWindow.model_construct(tenant=tenant, chain=chain, step="s", component=component)


def test_detectors_are_frozen_for_what_the_incident_speaks_of() -> None:
    stage = ImpactStage()
    list(run(World(BROKEN), 70, stage))
    assert stage.frozen(window("database"))
    assert stage.frozen(window("hub"))
    assert stage.frozen(window(""))
    assert not stage.frozen(window("", chain="another"))
    assert not stage.frozen(window("billing"))
    assert not stage.frozen(window("database", tenant="other"))


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_within_a_step_of_progress_does_not_matter(random: object) -> None:
    def shuffled(shuffle: bool) -> list[bytes]:
        stage, world, found = ImpactStage(), World(BROKEN), []
        for second in range(56, 68):
            deltas, edges = additions(world.second(second))
            if shuffle:
                random.shuffle(deltas)  # type: ignore[attr-defined]
                random.shuffle(edges)  # type: ignore[attr-defined]
            stage.observe(deltas, edges, TOPIC, 0)
            found += stage.advance(START_US + (second + 1) * SECOND, [])
        return [incident.id.encode() + repr([s.component for s in incident.suspects]).encode() for incident in found]

    assert shuffled(True) == shuffled(False)


@pytest.mark.parametrize("cut", [30, 62, 75, 130, 170])
def test_restored_stage_goes_on_exactly(cut: int) -> None:
    fault = Fault("database", "error", 60, 80)
    whole = [incident.encode() for incident in run(World(fault), 200)]
    world, stage, saved = World(fault), ImpactStage(), {}
    found = []
    for second in range(200):
        found += [incident.encode() for incident in run(world, 1, stage, first=second)]
        for key, value in stage.changes():
            saved[key] = value
            if value is None:
                del saved[key]
        if second == cut:
            stage = ImpactStage()
            for key, value in reversed(saved.items()):
                stage.restore(key, value)
    assert found == whole


def test_only_what_changed_is_saved_and_entries_are_moderate() -> None:
    stage = ImpactStage()
    list(run(World(BROKEN), 100, stage))
    assert max(len(value or b"") for _, value in stage.changes()) < 20_000
    list(run(World(BROKEN, seed=2), 1, stage, first=100))
    keys = [key for key, _ in stage.changes()]
    assert sum(parts_of(key)[0] == "m" for key in keys) <= 8
    assert [key for key, _ in stage.changes()] == [key_of("c")]


def test_state_is_bounded_by_tenants() -> None:
    stage = ImpactStage(ImpactSettings(max_tenants=2))
    saved: dict[str, bytes] = {}
    for number in range(5):
        list(run(World(), 1, stage, first=number, tenants=(f"t{number}",)))
        for key, value in stage.changes():
            saved[key] = value or b""
    alive = {parts_of(key)[1] for key, value in saved.items() if value and len(parts_of(key)) > 1}
    assert alive == {"t3", "t4"}


def test_foreign_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="not an entry"):
        ImpactStage().restore(key_of("x", "acme"), b"\xc0")
