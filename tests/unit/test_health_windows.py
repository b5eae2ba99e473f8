"""Health windows: when they close, what they say, and how late data corrects them."""

import copy
import itertools
from typing import Any

import pytest
from health_world import Health, piece

from schemas.health import HealthWindow
from schemas.internal import Delta, EdgeDelta, Partial, Slice
from streams.booking import Window
from streams.health import SILENT_WINDOWS, Closed
from streams.histogram import buckets
from streams.ids import parts_of
from streams.limits import Limits

T = 1_800_000_000_000_000
S = 1_000_000
LIMITS = Limits(window_us=10 * S, lateness_us=2 * S, grace_us=60 * S, slice_us=1)


def delta(window: int = 0, step: str = "a", first: int = 0, **more: Any) -> Delta:
    """Deltas of a chain's own series where step is ""."""
    facts = {"events": 1, "completed": 1, **more}
    return Delta("t", facts.pop("chain", "c"), step, step.upper(), T + window * 10 * S, first, first + facts["events"] - 1, **facts)


def partial(partition: int, watermark_s: float, *deltas: Delta, **more: Any) -> Partial:
    """What came until the watermark, or until the newest window's end if that is earlier."""
    watermark_us = T + round(watermark_s * S)
    end_us = max((one.window_start_unix_us + 10 * S for one in deltas), default=watermark_us)
    edges = more.pop("edges", [])
    return piece(partition, watermark_us, copy.deepcopy(list(deltas)), edges, min(watermark_us, end_us), **more)


def stage() -> Health:
    return Health(LIMITS)


def feed(found: Health, *partials: Partial) -> Closed:
    """All that came of several partials."""
    closed = [found.apply(one) for one in partials]
    return Closed(
        found.watermark_us, "", *(list(itertools.chain(*(getattr(c, name) for c in closed))) for name in ("windows", "dependencies", "violations"))
    )  # fmt: skip


def said(closed: Closed) -> list[tuple[int, str, int, int]]:
    return [((w.window_start_unix_us - T) // (10 * S), w.step, w.events, w.revision) for w in closed.windows]


def test_window_closes_once_the_watermark_is_past_its_end_by_the_lateness() -> None:
    found = stage()
    assert said(found.apply(partial(0, 11.999999, delta()))) == []
    assert found.open_windows == 1
    assert said(found.apply(partial(0, 12))) == [(0, "a", 1, 0)]
    assert found.open_windows == 0
    assert said(found.apply(partial(0, 12.5))) == []


def test_smallest_watermark_of_all_partitions_counts() -> None:
    found = stage()
    feed(found, partial(0, 5, delta()), partial(1, 5))
    assert said(found.apply(partial(0, 100))) == []
    assert found.watermark_us == T + 5 * S
    assert said(found.apply(partial(1, 12)))[0] == (0, "a", 1, 0)


def test_unread_partitions_hold_windows_back_until_they_report() -> None:
    found = stage()
    assert said(found.apply(partial(0, 50, delta(), waiting_for=[1, 2]))) == []
    assert found.watermark_us == 0
    assert said(found.apply(partial(1, 50, delta()))) == []
    assert said(found.apply(partial(2, 12))) == [(0, "a", 2, 0)]


def test_pieces_of_a_batch_without_a_watermark_move_nothing() -> None:
    found = stage()
    part = Partial("events", 0, 0, 0, [Slice(T + 5 * S, [delta()])])
    assert feed(found, part, part).windows == []
    assert found.watermark_us == 0


def test_watermark_of_a_partition_never_goes_back() -> None:
    found = stage()
    feed(found, partial(0, 30), partial(0, 20))
    assert found.watermark_us == T + 30 * S


def test_late_piece_revises_its_window_at_most_once_per_window_length() -> None:
    found = stage()
    assert said(feed(found, partial(0, 12, delta())))[0] == (0, "a", 1, 0)
    assert said(feed(found, partial(0, 13, delta(first=7)), partial(0, 14, delta()))) == []
    (window,) = [w for w in found.apply(partial(0, 22)).windows if w.events]
    assert (window.events, window.revision) == (3, 1)
    assert [(r.partition, r.first_offset, r.last_offset) for r in window.sources] == [(0, 0, 7)]


def test_unchanged_window_is_not_told_again() -> None:
    found = stage()
    feed(found, partial(0, 12, delta(), delta(step="b")))
    later = found.apply(partial(0, 22, delta()))
    assert [(w.step, w.revision) for w in later.windows if w.events] == [("a", 1)]


def test_silent_windows_are_empty_and_end_after_a_while() -> None:
    found = stage()
    feed(found, partial(0, 12, delta()))
    assert said(found.apply(partial(0, 32))) == [(1, "a", 0, 0), (2, "a", 0, 0)]
    rest = said(found.apply(partial(0, 12 + 1_000)))
    assert [window for window, *_ in rest] == list(range(3, SILENT_WINDOWS + 1))
    assert said(found.apply(partial(0, 12 + 2_000))) == []


def test_series_that_speaks_again_is_not_told_silent() -> None:
    found = stage()
    feed(found, partial(0, 12, delta()))
    assert said(found.apply(partial(0, 32, delta(2)))) == [(1, "a", 0, 0), (2, "a", 1, 0)]
    assert said(found.apply(partial(0, 42))) == [(3, "a", 0, 0)]


def test_late_piece_for_a_silent_window_has_a_higher_revision_than_the_empty_one() -> None:
    found = stage()
    assert said(feed(found, partial(0, 12, delta()), partial(0, 22))) == [(0, "a", 1, 0), (1, "a", 0, 0)]
    corrected = [w for w in feed(found, partial(0, 23, delta(1)), partial(0, 32)).windows if w.events]
    assert [(w.events, w.revision) for w in corrected] == [(1, 1)]


def test_components_resources_are_never_told_silent() -> None:
    found = stage()
    sample = delta(chain="", step="", completed=0)
    noted = Window(0, 10, 0)
    noted.sampled("cpu_ratio", 0.5)
    noted.sampled("memory_bytes", 100.0)
    sample.samples = noted.samples
    (window,) = feed(found, partial(0, 12, sample)).windows
    assert (window.kind, window.events) == ("component", 1)
    assert {name: (r.count, r.mean, r.max) for name, r in window.resources.items()} == {
        "cpu_ratio": (1, 0.5, 0.5), "memory_bytes": (1, 100.0, 100.0),
    }  # fmt: skip
    assert found.apply(partial(0, 42)).windows == []


def test_window_says_counts_rates_and_quantiles() -> None:
    part = delta(events=12, started=2, completed=8, failed=2, cpu_us=5, io_wait_us=6, memory_max_bytes=7)
    part.broker_count, part.broker_sum_us, part.broker_max_us = 2, 30, 20
    took_us = range(1_000, 11_000, 1_000)
    part.durations, part.duration_sum_us, part.duration_max_us = buckets(took_us), sum(took_us), max(took_us)
    window: HealthWindow = feed(stage(), partial(0, 12, part)).windows[0]
    assert (window.kind, window.started, window.completed, window.failed) == ("step", 2, 8, 2)
    assert (window.error_ratio, window.throughput_per_s) == (0.2, 1.0)
    assert (window.mean_us, window.max_us) == (5_500, 10_000)
    assert window.p50_us == pytest.approx(5_000, rel=0.022)
    assert window.p99_us == pytest.approx(10_000, rel=0.022)
    assert (window.cpu_us, window.io_wait_us, window.memory_max_bytes) == (5, 6, 7)
    assert (window.broker_mean_us, window.broker_max_us) == (15, 20)
    assert sum(window.durations.buckets.values()) + window.durations.zero_count == 10
    assert window.window_end_unix_us - window.window_start_unix_us == 10 * S


def test_durations_of_zero_are_counted_apart() -> None:
    piece = delta(durations=buckets([0]))
    (window,) = feed(stage(), partial(0, 12, piece)).windows
    assert (window.durations.zero_count, window.durations.buckets, window.p99_us) == (1, {}, 0)


@pytest.mark.parametrize(
    ("ended", "failed", "exceeded"),
    [(20, 1, False), (20, 2, True), (100, 5, False), (100, 6, True), (1_000, 50, False), (1_000, 51, True), (19, 19, False), (60, 3, False)],
)  # fmt: skip
def test_error_rate_is_exceeded_above_five_per_cent_and_not_at_it(ended: int, failed: int, exceeded: bool) -> None:
    closed = feed(stage(), partial(0, 12, delta(events=ended, completed=ended - failed, failed=failed)))
    assert [(v.type, v.step, v.observed_ratio) for v in closed.violations] == (
        [("error_rate.exceeded", "a", failed / ended)] if exceeded else []
    )


def test_every_whole_boundary_is_on_the_safe_side() -> None:
    for twenty in range(1, 3_000, 7):
        found = feed(stage(), partial(0, 12, delta(events=20 * twenty, completed=19 * twenty, failed=twenty)))
        assert found.violations == []


def test_error_rate_of_a_whole_chain_is_left_to_its_steps() -> None:
    closed = feed(stage(), partial(0, 12, delta(step="", events=100, completed=0, failed=100)))
    assert [w.kind for w in closed.windows] == ["chain"]
    assert closed.violations == []


def test_pieces_of_the_error_rate_add_up_over_partitions() -> None:
    found = stage()
    piece, clean = delta(events=10, completed=9, failed=1), delta(events=10, completed=10)
    assert feed(found, partial(0, 5, piece), partial(1, 12, clean), partial(0, 12)).violations == []
    found = stage()
    worse = delta(events=10, completed=8, failed=2)
    (one,) = feed(found, partial(0, 5, piece), partial(1, 12, worse), partial(0, 12)).violations
    assert one.detail == "3 of 20 runs of a failed, more than 5%"


def test_edges_are_summed_and_revised() -> None:
    def edge(latency: int) -> EdgeDelta:
        return EdgeDelta("t", "c", "call", "A", "B", "", T, 1, 0, latency, latency)

    found = stage()
    (first,) = feed(found, partial(0, 12, edges=[edge(10), edge(30)])).dependencies
    assert (first.count, first.latency_mean_us, first.latency_max_us, first.revision) == (2, 20, 30, 0)
    (second,) = feed(found, partial(0, 22, edges=[edge(50)])).dependencies
    assert (second.id, second.count, second.latency_mean_us, second.revision) == (first.id, 3, 30, 1)


def test_windows_are_dropped_after_the_grace_and_not_before() -> None:
    found = stage()
    feed(found, partial(0, 12, delta()), partial(0, 71))
    revised = [w for w in feed(found, partial(0, 72 + 9, delta())).windows if w.events]
    assert [(w.events, w.revision) for w in revised] == [(2, 1)]
    assert sum(value is None for key, value in found.health.changes() if parts_of(key)[0] == "window") == 1


def test_saved_and_restored_it_goes_on_the_same() -> None:
    parts = [partial(0, s, delta(s // 10), delta(s // 10, "b"), waiting_for=[1] if s < 3 else []) for s in range(0, 60, 3)]
    parts.insert(9, partial(1, 200))
    straight = said(feed(stage(), *copy.deepcopy(parts)))
    for cut in range(len(parts)):
        store: dict[str, bytes | None] = {}
        first = stage()
        before = said(feed(first, *copy.deepcopy(parts[:cut])))
        store |= dict(first.changes())
        second = stage()
        for key, value in store.items():
            if value is not None:
                second.restore(key, value)
        assert before + said(feed(second, *copy.deepcopy(parts[cut:]))) == straight


def test_events_of_all_windows_are_the_events_of_all_pieces() -> None:
    found = stage()
    sent = 0
    windows: dict[str, HealthWindow] = {}
    for number in range(200):
        piece = delta(number // 20 - number % 4, "ab"[number % 2], events=1 + number % 7)
        sent += piece.events
        closed = found.apply(partial(number % 3, number / 2, piece))
        windows |= {w.id: w for w in closed.windows if w.revision >= (windows[w.id].revision if w.id in windows else 0)}
    closed = feed(found, *(partial(p, 500) for p in range(3)))
    windows |= {w.id: w for w in closed.windows}
    assert sum(w.events for w in windows.values()) == sent


def test_order_in_which_partitions_report_does_not_matter() -> None:
    parts = [partial(p, 12, delta(events=p + 1, first=p), waiting_for=[0, 1, 2]) for p in range(3)]
    seen = [feed(stage(), *copy.deepcopy(order)).windows for order in itertools.permutations(parts)]
    assert all(windows == seen[0] for windows in seen)
    assert [w.events for w in seen[0]] == [6]


def test_state_comes_back_whatever_the_names_hold() -> None:
    found, again = stage(), stage()
    odd = delta(chain="c\x1fd\x1b", step="a/\x1f")
    found.apply(partial(0, 5, odd, delta(chain="c/d")))
    entries = dict(found.changes())
    for key, value in entries.items():
        again.restore(key, value or b"")
    assert again.open_windows == 2
    again.apply(partial(0, 6, odd, delta(chain="c/d")))
    assert dict(again.changes()).keys() == {key for key in entries if "progress" not in key} | {'slices/["progress"]'}


def test_violation_of_a_window_is_said_once_as_it_first_was() -> None:
    found = stage()
    first = feed(found, partial(0, 12, delta(events=20, completed=18, failed=2)))
    assert [violation.observed_ratio for violation in first.violations] == [0.1]
    more = feed(found, partial(0, 13, delta(events=1, completed=0, failed=1)), partial(0, 22))
    assert ([w.revision for w in more.windows if w.failed == 3], more.violations) == ([1], [])


def test_said_violations_are_not_said_again_after_a_restart() -> None:
    found, after = stage(), stage()
    feed(found, partial(0, 12, delta(events=20, completed=18, failed=2)))
    for key, value in found.changes():
        after.restore(key, value or b"")
    assert feed(after, partial(0, 13, delta(events=1, completed=0, failed=1)), partial(0, 22)).violations == []


def test_clock_that_is_ahead_is_told_of_its_component() -> None:
    wrong = delta(chain="", violations={"clock.ahead": 7})
    wrong.step, wrong.component = "", "payments"
    (found,) = feed(stage(), partial(0, 12, wrong)).violations
    assert (found.type, found.component, found.chain) == ("clock.ahead", "payments", "")
    assert found.detail.startswith("7 events of payments")


def test_partition_that_holds_records_but_no_event_holds_no_window_back() -> None:
    found = stage()
    feed(found, partial(0, 50, delta(), waiting_for=[0, 1]))
    assert found.watermark_us == 0
    assert said(feed(found, partial(1, -T / S, idle=True), partial(0, 60)))[0] == (0, "a", 1, 0)
    feed(found, partial(0, 60, waiting_for=[1]))
    assert found.watermark_us == T + 60 * S


def test_what_comes_after_its_window_was_forgotten_is_reported_and_replaces_nothing() -> None:
    found = stage()
    feed(found, partial(0, 15, delta(events=20, completed=20)), partial(0, 200))
    assert found.apply(partial(1, 1, delta(first=7, events=2, completed=2))).losses == []
    assert found.watermark_us == T + 1 * S
    late = found.apply(partial(1, 201))
    assert late.windows == []
    (loss,) = late.losses
    assert (loss.partition, loss.first_offset, loss.last_offset) == (1, 7, 8)
    assert loss.reason == "2 events of t/c/a/A came after their window was forgotten"
    assert said(feed(found, partial(1, 300), partial(0, 300)))[0][2] == 0
