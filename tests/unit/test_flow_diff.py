"""What differs between two definitions, and what drifts between a definition and what is seen."""

import json

import pytest

from infra.simulator.topology import definitions
from schemas.definitions import ChainDefinition
from streams.flows.dependencies import SeenEdge, declared_edges, drift
from streams.flows.diff import diff

BASE = {
    "name": "order",
    "steps": [
        {"name": "accept", "component": "shop", "expected_duration_ms": 40.0, "output": "orders"},
        {"name": "charge", "component": "payments", "deadline_ms": 900.0, "input": "orders", "optional": True},
        {"name": "pack", "component": "warehouse"},
    ],
}


def order(**changes: object) -> ChainDefinition:
    return ChainDefinition.model_validate_json(json.dumps({**BASE, **changes}))


def with_step(index: int, **changes: object) -> ChainDefinition:
    steps = [dict(step) for step in BASE["steps"]]  # type: ignore[call-overload]
    steps[index].update(changes)
    return order(steps=steps)


STEPS = BASE["steps"]
CHANGES: dict[str, tuple[ChainDefinition, list[str]]] = {
    "nothing": (order(), []),
    "description": (order(description="x"), ["description added: x"]),
    "shorter duration": (with_step(0, expected_duration_ms=20), ["steps[accept].expected_duration_ms: 40.0 → 20.0 [breaking]"]),
    "longer duration": (with_step(0, expected_duration_ms=60), ["steps[accept].expected_duration_ms: 40.0 → 60.0"]),
    "no duration any more": (with_step(0, expected_duration_ms=None), ["steps[accept].expected_duration_ms removed (was 40.0)"]),
    "new deadline": (with_step(2, deadline_ms=5), ["steps[pack].deadline_ms added: 5.0 [breaking]"]),
    "required now": (with_step(1, optional=False), ["steps[charge].optional removed (was True) [breaking]"]),
    "optional now": (with_step(2, optional=True), ["steps[pack].optional added: True"]),
    "other component": (with_step(2, component="depot"), ["steps[pack].component: warehouse → depot"]),
    "objective": (order(slo={"objective": 0.99}), ["slo added: {'objective': 0.99}"]),
    "step less": (
        order(steps=STEPS[:2]),  # type: ignore[index]
        ["steps[pack] removed (was {'component': 'warehouse'}) [breaking]", "edges[charge → pack] removed (was charge → pack)"],
    ),
    "optional step more": (
        order(steps=[*STEPS, {"name": "thank", "component": "mail", "optional": True}]),  # type: ignore[misc]
        ["steps[thank] added: {'component': 'mail', 'optional': True}", "edges[pack → thank] added: pack → thank [breaking]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_change_is_said_with_its_field_and_whether_it_breaks_what_runs(case: str) -> None:
    changed, expected = CHANGES[case]
    assert [str(change) for change in diff(order(), changed)] == expected


def seen(kind: str, source: str, target: str) -> SeenEdge:
    return SeenEdge(kind, source, target, events=3, first_unix_us=1, last_unix_us=9)  # type: ignore[arg-type]


def test_declared_edges_carry_what_passes() -> None:
    assert [(e.source, e.target, e.topic) for e in declared_edges(order())] == [("payments", "warehouse", ""), ("shop", "payments", "orders")]


def test_drift_is_what_was_not_declared_and_what_was_never_seen() -> None:
    observed = [seen("topic", "shop", "payments"), seen("flow", "shop", "warehouse"), seen("call", "warehouse", "shop"), seen("call", "shop", "cache")]
    found = [(d.what, d.source, d.target, d.kind, d.events, d.last_unix_us) for d in drift(order(), observed)]
    assert found == [
        ("undeclared", "shop", "cache", "call", 3, 9),
        ("undeclared", "shop", "warehouse", "flow", 3, 9),
        ("never seen", "payments", "warehouse", "", 0, 0),
    ]


def test_component_that_works_on_with_its_own_is_no_drift() -> None:
    assert drift(order(), [seen("flow", "shop", "shop"), seen("flow", "shop", "payments"), seen("flow", "payments", "warehouse")]) == []


def test_what_comes_from_outside_through_a_declared_input_is_no_drift() -> None:
    flow = with_step(0, input="baskets")
    inside = [seen("flow", "shop", "payments"), seen("flow", "payments", "warehouse")]
    through = [SeenEdge("topic", "web", "shop", "baskets"), SeenEdge("topic", "web", "shop", "wishes")]
    assert [(x.source, x.topic) for x in drift(flow, [*inside, *through])] == [("web", "wishes")]


def test_simulated_services_are_declared_by_their_definitions() -> None:
    for definition in definitions():
        edges = declared_edges(definition)
        assert drift(definition, [seen("flow", edge.source, edge.target) for edge in edges]) == []
