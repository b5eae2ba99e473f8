"""What the benches compute, without engines: quantiles, the search over rates, the cost that grows."""

import pytest

from infra.bench import growth
from infra.bench.e2e import judge, search
from infra.bench.figures import quantile, spread
from infra.cli.benching import numbers
from infra.cli.common import CommandError


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert quantile([7.0], 0.5) == 7.0


def test_of_nothing_there_are_no_figures() -> None:
    assert spread([]) == {"p50": None, "p95": None, "p99": None, "max": None, "count": 0}


@pytest.mark.parametrize(("bearable", "found"), [(3_300, 3_000), (900, 875), (100, 0)])
def test_search_ends_below_what_is_bearable(bearable: int, found: int) -> None:
    assert search(lambda rate: rate <= bearable, 1_000, 2) == found


def readings(*lags: int) -> list[dict[str, int]]:
    return [{"ingest": lag, "analysis": 3} for lag in lags]


def test_a_rate_holds_while_the_lag_is_flat() -> None:
    assert judge(1_000, 1_000, readings(0, 200, 100, 300, 100, 200, 150, 100, 200, 100)).bound == ""


def test_a_worker_whose_lag_grows_is_named() -> None:
    assert judge(1_000, 1_000, readings(*range(0, 10_000, 1_000))).bound == "ingest"


def test_a_producer_that_is_too_slow_is_the_bound() -> None:
    assert judge(1_000, 900, readings(*[0] * 10)).bound == "producer"


@pytest.mark.parametrize("axis", growth.AXES)
def test_growth_measures_every_axis(axis: str) -> None:
    document = growth.measure({axis: (20, 10)}, 2_000, lambda *_: None)
    assert [(point["axis"], point["size"]) for point in document["points"]] == [(axis, 10), (axis, 20)]
    assert document["points"][0]["ingest_ratio"] == document["points"][0]["analysis_ratio"] == 1.0
    assert all(point["ingest_us_per_event"] > 0 for point in document["points"])


def test_options_with_numbers_are_checked() -> None:
    assert numbers("1,10") == (1, 10)
    for text in ("", "a", "1,0", "1,,2"):
        with pytest.raises(CommandError, match="list of positive numbers"):
            numbers(text)
