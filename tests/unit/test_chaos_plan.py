"""The plan of chaos is data, drawn from a seed; what happens to events on the way is counted."""

from collections import Counter
from random import Random

import orjson
import pytest

from infra.chaos.disturb import SHARES, Disturber
from infra.chaos.plan import OUTAGE_S, PAUSE_S, Plan, draw
from infra.simulator.load import Stamped
from infra.supervisor import WORKERS
from streams.limits import Limits

FULL = 600.0
START = 1_750_000_000_000_000


@pytest.fixture(params=range(5))
def plan(request: pytest.FixtureRequest) -> Plan:
    return draw(request.param, FULL, 20_000)


def test_the_same_seed_gives_the_same_plan_and_another_one_another() -> None:
    assert draw(1, FULL, 20_000) == draw(1, FULL, 20_000) != draw(2, FULL, 20_000)


def test_twenty_kills_hit_workers_of_all_kinds(plan: Plan) -> None:
    kills = Counter(action.target for action in plan.actions if action.kind == "kill")
    assert kills.total() >= 20 and set(kills) == set(WORKERS)


def test_databases_are_away_for_a_minute_each_and_once_both(plan: Plan) -> None:
    gone = {"postgres": [], "clickhouse": []}
    for action in plan.actions:
        if action.target in gone and action.kind in ("engine_kill", "engine_stop"):
            gone[action.target].append(action.at_s)
        elif action.target in gone and action.kind == "engine_start":
            assert action.at_s - gone[action.target][-1] == pytest.approx(OUTAGE_S)
    assert [len(times) for times in gone.values()] == [2, 2]
    assert len({*gone["postgres"]} & {*gone["clickhouse"]}) == 1


def test_the_broker_is_killed_and_comes_back(plan: Plan) -> None:
    assert [a.kind for a in plan.actions if a.target == "kafka"] == ["engine_kill", "engine_start"] * 2


@pytest.mark.parametrize("name", WORKERS)
def test_every_kind_of_worker_is_scaled_paused_and_ended_in_good_order(plan: Plan, name: str) -> None:
    its = [action for action in plan.actions if action.target == name]
    assert [action.number for action in its if action.kind == "scale"] == [3, 2]
    paused, resumed = (next(a.at_s for a in its if a.kind == kind) for kind in ("pause", "resume"))
    assert resumed - paused == pytest.approx(PAUSE_S)
    assert any(action.kind == "term" for action in its)
    assert any(action.kind == "roll" for action in plan.actions)


def test_a_short_plan_has_some_of_everything() -> None:
    plan = draw(1, 60, 20_000)
    assert {action.kind for action in plan.actions} == {action.kind for action in draw(1, FULL, 20_000).actions} | {"engine_kill"}
    assert all(0 < action.at_s < 75 for action in plan.actions)


def test_disturbed_events_are_counted_and_every_other_is_sent_as_it_is() -> None:
    disturber = Disturber(Random(1), Limits())
    value = orjson.dumps({"type": "step.started", "time_unix_us": START})
    sent = [each for _ in range(50_000) for each in disturber.send(Stamped(START, b"e", value))]
    counts = disturber.counts
    assert set(counts) == set(SHARES)
    beside = sum(counts[kind] for kind in ("duplicate", "too late", "future", "poison"))
    assert len(sent) == 50_000 + beside
    changed = sum(counts[kind] for kind in ("clock ahead", "clock behind", "too late", "future", "poison"))
    assert sum(each[2] != value for each in sent) == changed
    held = sum(counts[kind] for kind in ("duplicate", "reordered", "late"))
    assert sum(at_us > START for at_us, _, _ in sent) == pytest.approx(held, abs=5)
