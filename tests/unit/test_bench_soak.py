"""The verdict of a soak, and the load that it and the kills stand on."""

import pytest

from infra.bench import soak
from infra.bench.processes import BenchError
from infra.bench.recovery import _opening
from infra.bench.soak import MB, Outcome, Reading, judge, slope
from streams.events import ExecutionStarted, decode_record


def readings(*megabytes: float) -> list[Reading]:
    return [Reading(5.0 * number, {"ingest": round(size * MB)}) for number, size in enumerate(megabytes)]


def test_slope_is_not_moved_by_a_few_jumps() -> None:
    values = [10.0 + 2 * number for number in range(20)]
    values[3], values[11] = 500.0, -200.0
    assert slope([float(number) for number in range(20)], values) == pytest.approx(2.0)


def test_warm_up_is_not_judged_and_growth_is_seen() -> None:
    steady = judge("ingest", readings(*range(100, 200, 5), *([200, 201] * 20)))
    assert (steady.flat, steady.first) == (True, 100 * MB)
    growing = judge("ingest", readings(*range(100, 160)))
    assert not growing.flat
    assert growing.slope_per_h == pytest.approx(720 * MB)


def test_too_few_readings_are_no_verdict() -> None:
    with pytest.raises(BenchError, match="too few"):
        judge("ingest", readings(1, 2))


def test_document_holds_series_and_verdict() -> None:
    document = Outcome(100, 1, 6_000, 0, 3, readings(*([50] * 12))).document()
    assert (document["flat"], document["workers"]["ingest"]["median_mb"], len(document["series"])) == (True, 50.0, 12)


def test_executions_that_stay_open_are_events() -> None:
    events = [decode_record(value) for _, value in _opening(3, 5)]
    assert [type(event) for event in events] == [ExecutionStarted] * 2


def test_every_round_of_the_load_has_times_that_can_be_moved() -> None:
    event = next(soak.record(1, soak.EXECUTIONS_PER_S).round(0, 0))
    assert b'"time_unix_us":%d' % event.time_us in event.value
