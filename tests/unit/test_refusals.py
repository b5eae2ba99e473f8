"""The dead-letter limit: over the last records of a worker, and of the worker before it."""

from streams.refusals import Refusals


def test_no_limit_before_the_window_is_full() -> None:
    found = Refusals(100, 0.5)
    assert not found.add(0, 99, 99)
    assert found.add(1, 1, 1)


def test_exactly_the_ratio_is_allowed() -> None:
    found = Refusals(100, 0.5)
    assert not found.add(0, 100, 50)
    assert found.add(0, 100, 51)


def test_only_the_last_records_count() -> None:
    found = Refusals(100, 0.5)
    found.add(0, 60, 60)
    assert not found.add(0, 100, 0)
    assert found.total == (100, 0)


def test_the_window_of_the_worker_before_stops_the_next_at_its_first_bad_chunk() -> None:
    before, after = Refusals(100, 0.5), Refusals(100, 0.5)
    assert before.add(0, 60, 60) is False
    assert before.add(1, 60, 60)
    after.restore(0, *before.of(0))
    after.restore(1, *before.of(1))
    assert after.total == (120, 120)
    assert after.add(0, 10, 6)


def test_it_goes_on_once_the_input_is_good() -> None:
    found = Refusals(100, 0.5)
    found.restore(0, 5_000, 5_000)
    assert not found.add(0, 10, 5)
    assert not found.add(0, 90, 0)
    assert found.total == (100, 5)


def test_a_partition_that_goes_takes_its_records_along() -> None:
    found = Refusals(100, 0.5)
    found.add(0, 80, 80)
    found.add(1, 19, 0)
    found.forget(0)
    assert found.total == (19, 0)
    assert found.of(0) == (0, 0)
