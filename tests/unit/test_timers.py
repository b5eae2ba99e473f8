"""Event-time timers."""

from hypothesis import given
from hypothesis import strategies as st

from streams.timers import GRANULARITY_US, NEVER_US, Timers


def test_key_comes_up_once_its_moment_rounded_up_has_come() -> None:
    timers: Timers[str] = Timers()
    timers.at(GRANULARITY_US + 1, "x")
    assert timers.next_us == 2 * GRANULARITY_US
    assert list(timers.due(2 * GRANULARITY_US - 1)) == []
    assert list(timers.due(2 * GRANULARITY_US)) == ["x"]
    assert list(timers.due(NEVER_US)) == []
    assert timers.next_us == NEVER_US


def test_moment_on_the_grid_is_not_rounded() -> None:
    timers: Timers[str] = Timers()
    timers.at(GRANULARITY_US, "x")
    assert list(timers.due(GRANULARITY_US)) == ["x"]


def test_key_set_twice_comes_up_twice() -> None:
    timers: Timers[str] = Timers()
    timers.at(10, "x")
    timers.at(20, "x")
    assert list(timers.due(GRANULARITY_US)) == ["x", "x"]


def test_key_set_for_the_past_meanwhile_comes_up_too() -> None:
    timers: Timers[str] = Timers()
    timers.at(0, "x")
    seen = []
    for key in timers.due(10 * GRANULARITY_US):
        seen.append(key)
        if len(seen) < 3:
            timers.at(len(seen) * GRANULARITY_US, key + "x")
    assert seen == ["x", "xx", "xxx"]


@given(st.lists(st.integers(0, 10**7)), st.lists(st.integers(0, 10**7)))
def test_every_key_comes_up_once_in_order_and_never_early(times: list[int], looks: list[int]) -> None:
    timers: Timers[int] = Timers()
    for time_us in times:
        timers.at(time_us, time_us)
    seen: list[int] = []
    for now_us in [*sorted(looks), 10**8]:
        came = list(timers.due(now_us))
        assert all(time_us <= now_us for time_us in came)
        assert timers.next_us > now_us
        seen += came
    assert sorted(seen) == sorted(times)
    buckets = [-(-time_us // GRANULARITY_US) for time_us in seen]
    assert buckets == sorted(buckets)


@given(st.lists(st.integers(0, 10**7)), st.integers(0, 10**7))
def test_what_is_not_wanted_any_more_goes_and_the_rest_comes_up_as_before(times: list[int], now_us: int) -> None:
    timers: Timers[int] = Timers()
    for time_us in times:
        timers.at(time_us, time_us)
    gone = list(timers.due(now_us))
    left = sorted(times)[len(gone) :]
    timers.keep(lambda time_us: time_us % 2 == 0)
    wanted = [time_us for time_us in left if time_us % 2 == 0]
    assert len(timers) == len(wanted)
    assert timers.next_us == (-(-wanted[0] // GRANULARITY_US) * GRANULARITY_US if wanted else NEVER_US)
    assert sorted(timers.due(10**8)) == wanted
    assert len(timers) == 0
