"""Health windows do not depend on how the partitions' pieces mix, nor on how they are grouped or saved."""

import copy
from collections.abc import Sequence
from typing import Any

import msgspec
from health_world import Health, piece
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.internal import Delta, EdgeDelta, Partial
from streams.limits import Limits
from streams.windows import merge_delta

T = 1_800_000_000_000_000
S = 1_000_000
LIMITS = Limits(window_us=10 * S, lateness_us=2 * S, grace_us=60 * S, slice_us=1)
PARTITIONS = 3
COUNTS = ("events", "started", "completed", "failed", "duration_sum_us", "cpu_us", "broker_count", "broker_sum_us", "affected_executions")


@st.composite
def deltas(draw: st.DrawFn, window: int) -> Delta:
    more: dict[str, Any] = {name: draw(st.integers(0, 30)) for name in COUNTS}
    more |= {name: draw(st.integers(0, 9)) for name in ("duration_max_us", "memory_max_bytes", "first_violation_unix_us")}
    more["durations"] = draw(st.dictionaries(st.integers(-1, 300), st.integers(1, 9), max_size=3))
    more["violations"] = draw(st.dictionaries(st.sampled_from(["step.slow", "step.late"]), st.integers(1, 9)))
    more["affected"] = sorted(draw(st.sets(st.sampled_from("abcdefghijkl"), max_size=8)))
    more["samples"] = draw(st.dictionaries(st.just("cpu_ratio"), st.tuples(st.integers(1, 3), st.integers(0, 9), st.floats(0, 9))))
    step = draw(st.sampled_from(["", "a", "b"]))
    first = draw(st.integers(0, 50))
    tenant, chain = draw(st.sampled_from("tu")), draw(st.sampled_from(["c", "d"]))
    return Delta(tenant, chain, step, step.upper(), T + window * 10 * S, first, first + draw(st.integers(0, 50)), **more)


@st.composite
def partition_logs(draw: st.DrawFn, partition: int, late: bool) -> list[Partial]:
    """The pieces of one source partition: its watermark rises, its events are at most `lateness` behind it, or late.

    Late ones are within the grace of the end of their slice, as ingest, which refuses older ones, cuts it.
    """
    at_s, partials = 0, []
    for _ in range(draw(st.integers(0, 6))):
        before_s = at_s
        at_s += draw(st.sampled_from([0, 1, 3, 9, 25]))
        oldest_s = max(0, at_s - 50 if late else before_s - 2)
        windows = st.integers(oldest_s // 10, at_s // 10)
        pieces = [draw(deltas(draw(windows))) for _ in range(draw(st.integers(0, 3)))]
        edges = [
            EdgeDelta("t", "c", "call", "A", "B", "", T + draw(windows) * 10 * S, *draw(st.tuples(*[st.integers(1, 9)] * 4)))
            for _ in range(draw(st.integers(0, 1)))
        ]
        partials.append(piece(partition, T + at_s * S, pieces, edges, waiting_for=list(range(PARTITIONS))))
    tick = piece(partition, T + 200 * S, [], [], waiting_for=list(range(PARTITIONS)))  # silence at the end
    return [*partials, tick]


@st.composite
def mixes(draw: st.DrawFn, sources: Sequence[list[Partial]]) -> list[Partial]:
    """Any order that keeps the order of each partition, and any grouping of neighbours of one partition."""
    left = [list(source) for source in sources]
    mixed: list[Partial] = []
    for choice in draw(st.lists(st.integers(0, PARTITIONS - 1), max_size=60)):
        if left[choice]:
            mixed.append(left[choice].pop(0))
    mixed += [partial for source in left for partial in source]
    return _grouped(mixed) if draw(st.booleans()) else mixed


def _grouped(partials: list[Partial]) -> list[Partial]:
    """What ingest writes where two transactions had been one."""
    grouped: list[Partial] = []
    for partial in partials:
        last = grouped[-1] if grouped else None
        if last is not None and last.source_partition == partial.source_partition:
            grouped[-1] = msgspec.structs.replace(
                partial, slices=[*last.slices, *partial.slices],
                watermark_unix_us=max(last.watermark_unix_us, partial.watermark_unix_us),
            )  # fmt: skip
        else:
            grouped.append(partial)
    return grouped


def final(partials: list[Partial], restart_after: int | None = None, silence: bool = True) -> dict[str, dict[str, Any]]:
    """The last word on every window and edge, without when it was said."""
    stage, store = Health(LIMITS), dict[str, bytes | None]()
    words: dict[str, Any] = {}
    for number, partial in enumerate(copy.deepcopy(partials)):
        closed = stage.apply(partial)
        for said in (*closed.windows, *closed.dependencies):
            known = words.get(said.id)
            assert known is None or said.revision > known.revision, "a correction has a higher revision"
            words[said.id] = said
        if number == restart_after:
            store |= dict(stage.changes())
            stage = Health(LIMITS)
            for key, value in store.items():
                if value is not None:
                    stage.restore(key, value)
    kept = {key: word.model_dump(exclude={"revision", "watermark_unix_us"}) for key, word in words.items()}
    return {key: word for key, word in kept.items() if silence or word.get("sources") != []}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_and_grouping_gives_the_same_windows(data: st.DataObject) -> None:
    sources = [data.draw(partition_logs(partition, late=False)) for partition in range(PARTITIONS)]
    assert final(data.draw(mixes(sources))) == final([partial for source in sources for partial in source])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_late_pieces_give_the_same_windows_in_the_end(data: st.DataObject) -> None:
    """All but the empty ones: what had been silent until then is told as silent when it was."""
    sources = [data.draw(partition_logs(partition, late=True)) for partition in range(PARTITIONS)]
    straight = final([partial for source in sources for partial in source], silence=False)
    assert final(data.draw(mixes(sources)), silence=False) == straight


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_restart_gives_the_same_windows(data: st.DataObject) -> None:
    sources = [data.draw(partition_logs(partition, late=True)) for partition in range(PARTITIONS)]
    mixed = data.draw(mixes(sources))
    assert final(mixed, restart_after=data.draw(st.integers(0, len(mixed)))) == final(mixed)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_nothing_is_lost_or_counted_twice(data: st.DataObject) -> None:
    sources = [data.draw(partition_logs(partition, late=True)) for partition in range(PARTITIONS)]
    sent = sum(delta.events for source in sources for partial in source for one in partial.slices for delta in one.deltas)
    windows = final(data.draw(mixes(sources))).values()
    assert sum(word["events"] for word in windows if "events" in word) == sent


@settings(max_examples=60, deadline=None)
@given(st.lists(deltas(0), min_size=3, max_size=3), st.permutations(range(3)))
def test_deltas_add_up_the_same_in_any_order_and_grouping(pieces: list[Delta], order: list[int]) -> None:
    def total(*parts: Delta) -> Delta:
        into = copy.deepcopy(parts[0])
        for part in parts[1:]:
            merge_delta(into, copy.deepcopy(part))
        return msgspec.structs.replace(into, tenant="", chain="", step="", component="", first_offset=0, last_offset=0)

    a, b, c = pieces
    assert total(a, b, c) == total(*(pieces[index] for index in order)) == total(a, total(b, c))
