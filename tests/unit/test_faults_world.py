"""What is said of every kind of fault that the simulator knows, from the event to the alert.

Thresholds were chosen on seed 1; here only other seeds run. Times are asserted nowhere: `Run.right_after_s` prints them.
"""

import pytest
from faults_world import SECOND, START_US, Record, Run, follow, record, run

from infra.simulator import FAULT_KINDS, Config, Truth
from schemas.analysis import Alert

LEAK_S, CATCH_UP_S = 30.0, 30.0
SAMPLES = "default"
"""The tenant that the services' resource samples belong to: it has no executions."""

FAULTS = [
    ("crash", "database-service", None, 2),
    ("crash", "trading-engine", None, 3),
    ("slow", "database-service", None, 3),
    ("slow", "trading-engine", "acme", 2),
    ("error_burst", "database-service", None, 2),
    ("error_burst", "database-service", "globex", 3),
    ("silence", "database-service", None, 3),
    ("silence", "trading-engine", None, 2),
    ("memory_leak", "database-service", None, 2),
    ("memory_leak", "trading-engine", None, 3),
    ("stuck_consumer", "database-service", None, 3),
    ("stuck_consumer", "trading-engine", None, 2),
    ("clock_skew", "database-service", None, 2),
    ("clock_skew", "data-bridge", None, 3),
]


def happened(kind: str, service: str, tenant: str | None, seed: int) -> Run:
    fault_s = LEAK_S if kind == "memory_leak" else 12.0
    after_s = CATCH_UP_S if kind == "stuck_consumer" else 12.0
    return run(kind, service, tenant, seed=seed, fault_s=fault_s, after_s=after_s)


def words(alert: Alert) -> tuple[str, str, str]:
    return alert.tenant, alert.status, alert.title


def test_every_kind_is_tried() -> None:
    assert {kind for kind, *_ in FAULTS} | {"poison"} == set(FAULT_KINDS)


@pytest.mark.parametrize(("kind", "service", "tenant", "seed"), FAULTS)
def test_fault_is_told_with_its_cause_to_whom_it_hurts_and_ends(
    kind: str, service: str, tenant: str | None, seed: int
) -> None:
    found = happened(kind, service, tenant, seed)
    alerts = [alert for alert in found.newest if alert.tenant != SAMPLES]
    said = [words(alert) for alert in found.newest]
    assert {alert.tenant for alert in alerts} == found.fault.affected_tenants, said
    assert [words(alert) for alert in alerts if alert.cause is None or alert.cause.component != service] == []
    assert {alert.status for alert in found.newest} == {"resolved"}, said
    assert all(alert.title.startswith(service) for alert in found.newest if alert.tenant == SAMPLES), said
    assert found.world.counted == found.truth.events_produced
    assert found.world.refused == []


@pytest.mark.parametrize("seed", [2, 3])
def test_nothing_is_told_where_nothing_is_wrong_nor_when_traffic_ends(seed: int) -> None:
    assert [words(alert) for alert in run(seed=seed, rate=60.0).newest] == []


def test_poison_is_refused_and_hurts_nobody() -> None:
    found = happened("poison", "database-service", None, 2)
    assert [words(alert) for alert in found.newest] == []
    assert len(found.world.refused) == found.truth.poison_records > 0
    assert found.world.counted == found.truth.events_produced


def test_wrong_clock_breaks_no_promise_of_anybody() -> None:
    assert set(happened("clock_skew", "database-service", None, 2).violations()) == {"clock.ahead"}


def test_late_executions_are_not_told_as_nothing() -> None:
    found = happened("stuck_consumer", "trading-engine", None, 2)
    assert found.violations()["step.late"] > 0
    assert "step.delayed" not in found.violations()


def test_late_delivery_alone_is_taken_back() -> None:
    """The events of one service wait 4 s in its network for 8 s: its steps are missed, and had come in time."""
    _, records = record(Config(40.0, 46.0, 2, (), 0.0, START_US))
    late = b'"component":"trading-engine"'
    stretch = range(START_US + 22 * SECOND, START_US + 30 * SECOND)
    delivered = [
        Record(at + 4 * SECOND, key, value) if late in value and at in stretch else Record(at, key, value)
        for at, key, value in records
    ]
    world = follow(sorted(delivered, key=lambda found: found.broker_us))
    newest = Run(Truth(2, START_US), world).newest
    assert newest != []
    assert {alert.status for alert in newest} == {"retracted"}
    assert all("it was nothing" in alert.summary for alert in newest)
