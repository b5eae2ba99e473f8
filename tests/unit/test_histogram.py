"""The mergeable histogram of durations."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.histogram import PER_DOUBLING, RELATIVE_ERROR, ZERO, bucket_index, bucket_value, buckets, merge, quantile

DURATIONS = st.integers(0, 4_102_444_800_000_000)
BUCKETS = st.dictionaries(st.integers(-1, 900), st.integers(1, 10**9))


def book(values: list[int]) -> dict[int, int]:
    booked: dict[int, int] = {}
    for value in values:
        merge(booked, {bucket_index(value): 1})
    return booked


@pytest.mark.parametrize(("value", "index"), [(0, ZERO), (1, 0), (2, 15), (3, 25), (4, 31), (1024, 159)])
def test_index(value: int, index: int) -> None:
    assert bucket_index(value) == index


@pytest.mark.parametrize("power", range(1, 52))
def test_power_of_two_is_the_upper_bound_of_its_bucket(power: int) -> None:
    assert bucket_index(2**power) == power * PER_DOUBLING - 1
    if power > 4:  # below, whole numbers are further apart than buckets
        assert bucket_index(2**power + max(1, 2**power // 10**6)) == power * PER_DOUBLING


@given(DURATIONS)
def test_bucket_stands_for_its_values_within_the_stated_error(value: int) -> None:
    found = bucket_value(bucket_index(value))
    assert abs(found - value) <= value * RELATIVE_ERROR * (1 + 1e-9)


@given(st.lists(DURATIONS))
def test_counting_many_at_once_is_counting_one_by_one(values: list[int]) -> None:
    assert buckets(values) == book(values)


def test_every_bound_of_a_bucket_is_counted_into_it() -> None:
    bounds = [int(2 ** (index / PER_DOUBLING)) for index in range(52 * PER_DOUBLING)]
    near = [value for bound in bounds for value in (bound - 1, bound, bound + 1)]
    assert buckets(near) == book(near)


def test_stated_error_is_what_the_documentation_says() -> None:
    assert math.isclose(RELATIVE_ERROR, 0.0219, abs_tol=1e-4)


@given(DURATIONS, DURATIONS)
def test_index_grows_with_the_value(a: int, b: int) -> None:
    assert (bucket_index(a) <= bucket_index(b)) or a > b


@given(BUCKETS, BUCKETS, BUCKETS)
def test_merging_is_associative_and_commutative(a: dict[int, int], b: dict[int, int], c: dict[int, int]) -> None:
    left, right, swapped = dict(a), dict(b), dict(c)
    merge(left, b)
    merge(left, c)
    merge(right, c)
    first = dict(a)
    merge(first, right)
    merge(swapped, b)
    merge(swapped, a)
    assert left == first == swapped
    assert sum(left.values()) == sum(map(sum, (a.values(), b.values(), c.values())))


@given(st.lists(DURATIONS, min_size=1), st.sampled_from([0.0, 0.25, 0.5, 0.95, 0.99, 1.0]))
def test_quantile_is_within_the_stated_error_of_the_value_at_its_rank(values: list[int], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert abs(quantile(book(values), q) - exact) <= exact * RELATIVE_ERROR * (1 + 1e-9)


@given(st.lists(DURATIONS, min_size=1), st.integers(0, 100))
def test_quantile_of_a_merged_histogram_is_that_of_all_values(values: list[int], cut: int) -> None:
    merged = book(values[:cut])
    merge(merged, book(values[cut:]))
    assert merged == book(values)


def test_quantile_of_nothing_is_zero() -> None:
    assert quantile({}, 0.5) == 0.0


@pytest.mark.parametrize("value", [0, 1, 2, 86_400_000_000, 7 * 86_400_000_000, 4_102_444_800_000_000])
def test_extremes_are_within_the_stated_error(value: int) -> None:
    """Nothing, 1 µs, a day, a week, the largest duration that the contract allows."""
    assert buckets([value]) == book([value])
    assert abs(quantile(buckets([value] * 3), 0.5) - value) <= value * RELATIVE_ERROR * (1 + 1e-9)
    assert quantile(buckets([0, 0, value]), 0.5) == 0.0
