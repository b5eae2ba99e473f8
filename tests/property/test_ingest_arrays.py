"""An array of events is the same as its events one after the other in records of their own, but for the offsets."""

from typing import Any

import msgspec
from hypothesis import given, settings
from ingest_world import LIMITS, MS, Record, T, World, arrays, run

from schemas.internal import Delta, Execution, Step
from schemas.violations import Violation


def outcome(world: World) -> dict[str, Any]:
    """Return everything that a world has seen, without what names a place on the log."""
    return {
        "violations": sorted(map(without_places, world.violations)),
        "refused": [stage for _, stage in world.refused],
        "finished": sorted((told(x) for x in world.finished().values()), key=repr),
        "deltas": {key: fields(delta, Delta, "first_offset", "last_offset") for key, delta in world.deltas.items()},
        "edges": world.edges,
        "state": (world.tracker.watermark_us, world.tracker.open_executions),
    }


def without_places(violation: str) -> str:
    found = Violation.decode(violation)
    return found.model_copy(update={"id": "", "position": None}).encode().decode()


def told(x: Execution) -> dict[str, Any]:
    steps = [fields(step, Step, "offset") for step in x.steps.values()]
    return fields(x, Execution, "first_offset", "last_offset", "ordinal") | {"steps": steps}


def fields(value: Any, kind: type[msgspec.Struct], *without: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in kind.__struct_fields__ if name not in without}


@settings(max_examples=100, deadline=None)
@given(arrays(size=40))
def test_arrays_mean_what_their_events_mean(pair: tuple[list[Record], list[Record]]) -> None:
    packed, single = pair
    assert outcome(run(packed)) == outcome(run(single))


@settings(max_examples=60, deadline=None)
@given(arrays())
def test_any_restart_between_arrays_gives_the_same(pair: tuple[list[Record], list[Record]]) -> None:
    packed, _ = pair
    everywhere = list(range(1, len(packed)))
    assert outcome(run(packed, restarts=everywhere)) == outcome(run(packed))


@settings(max_examples=60, deadline=None)
@given(arrays())
def test_the_oldest_is_closed_first_also_of_those_that_began_in_one_array(pair: tuple[list[Record], list[Record]]) -> None:
    packed, single = pair
    limits = msgspec.structs.replace(LIMITS, max_open=2)
    everywhere = list(range(1, len(packed)))
    assert outcome(run(packed, restarts=everywhere, limits=limits)) == outcome(run(single, limits=limits))


def begins(execution: str, ms: int) -> bytes:
    return msgspec.json.encode({"type": "execution.failed", "chain": "free", "execution": execution, "time_unix_us": T + ms * MS, "error_type": "Boom"})


def test_executions_that_begin_in_one_array_are_all_published() -> None:
    packed = b"[%b,%b,%b]" % (begins("a", 0), begins("b", 0), begins("c", 1))
    found = run([(packed, T + MS)]).finished()
    assert sorted((name, ordinal) for _, name, _, ordinal in found) == [("a", 0), ("b", 1), ("c", 2)]


def test_second_runs_in_one_array_are_two_violations() -> None:
    step = {"type": "step.completed", "chain": "free", "execution": "e", "step": "s", "span": "s", "time_unix_us": T}
    packed = msgspec.json.encode([step | {"id": name} for name in "xyz"])
    violations = [Violation.decode(found) for found in run([(packed, T)]).violations]
    assert [found.type for found in violations] == ["step.duplicated", "step.duplicated"]
    assert len({found.id for found in violations}) == 2
