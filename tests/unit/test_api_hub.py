"""The rings behind live streams: places of clients, gaps, and where a ring reaches back to."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.http.live.frames import STREAMS, Facts, Frame, frame, position_id, position_of
from connectors.http.live.hub import Gap, Hub, Subscription


def made(partition: int, offset: int, tenant: str = "t") -> Frame:
    return frame(STREAMS["alerts"], partition, offset, Facts(tenant), b"{}", {partition: offset})


def offsets(items: list[Frame | Gap]) -> list[int | str]:
    return [item.offset if isinstance(item, Frame) else "gap" for item in items]




def test_a_client_gets_what_comes_after_it_and_only_what_matches() -> None:
    hub = Hub(10)
    hub.publish({"alerts": [made(0, 1)]})

    async def follow() -> list[int | str]:
        with Subscription(hub, ["alerts"], lambda facts: facts.tenant == "t") as subscription:
            hub.publish({"alerts": [made(0, 2), made(0, 3, "other"), made(0, 4)]})
            return offsets(await subscription.next())

    assert asyncio.run(follow()) == [2, 4]


def test_a_slow_client_is_told_the_gap_once_and_goes_on_at_the_oldest() -> None:
    hub = Hub(3)

    async def follow() -> list[list[int | str]]:
        with Subscription(hub, ["alerts"], lambda _: True) as subscription:
            hub.publish({"alerts": [made(0, n) for n in range(1, 8)]})
            first = offsets(await subscription.next())
            hub.publish({"alerts": [made(0, 8)]})
            return [first, offsets(await subscription.next())]

    assert asyncio.run(follow()) == [["gap", 5, 6, 7], [8]]


def test_a_client_that_is_gone_is_forgotten() -> None:
    hub = Hub(3)

    async def follow() -> None:
        with Subscription(hub, ["alerts", "health"], lambda _: True):
            assert [len(hub.rings[name].waiting) for name in ("alerts", "health")] == [1, 1]

    asyncio.run(follow())
    assert not any(ring.waiting for ring in hub.rings.values())


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), max_size=40), st.integers(0, 40), st.integers(1, 12))
def test_whoever_resumes_misses_nothing_that_the_ring_says_it_has(steps: list[tuple[int, int]], seen: int, size: int) -> None:
    """Offsets have holes, because marks of transactions take some; partitions mix in any order."""
    hub = Hub(size)
    hub.begin({"alerts": {0: 0, 1: 0, 2: 0}})
    log, at, position = [], {0: -1, 1: -1, 2: -1}, {0: -1, 1: -1, 2: -1}
    for number, (partition, step) in enumerate(steps):
        at[partition] += step
        log.append(made(partition, at[partition]))
        if number < seen:
            position[partition] = at[partition]
    hub.publish({"alerts": log})
    wanted = [(x.partition, x.offset) for x in log[seen:]]

    async def follow() -> list[Frame | Gap]:
        with Subscription(hub, ["alerts"], lambda _: True) as subscription:
            subscription.resume("alerts", position)
            return await asyncio.wait_for(subscription.next(), 5)

    if hub.rings["alerts"].reaches(position):
        if wanted:
            assert [(x.partition, x.offset) for x in asyncio.run(follow()) if isinstance(x, Frame)] == wanted
    else:
        assert len(wanted) > 0 and len(log) > size


@pytest.mark.parametrize("text", ["", "alerts", "alerts@x", "alerts@0:1:2", "nothing@0:1"])
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a position|invalid literal|values to unpack"):
        position_of(text)


@given(st.dictionaries(st.integers(0, 99), st.integers(-1, 10**12)))
def test_positions_go_there_and_back(position: dict[int, int]) -> None:
    assert position_of(position_id("health", position)) == ("health", position)
