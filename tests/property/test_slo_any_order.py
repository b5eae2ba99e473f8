"""The state of an objective is what a batch computation over its windows says, whatever the order, revisions and restarts."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from usage_world import LENGTH_US, S, chain_window

from schemas.health import HealthWindow
from schemas.slo import SloStatus
from streams.burn import HOUR_US, STRETCHES_US, SloBook, SloRule
from streams.limits import Limits
from streams.slo import SLOT_US, SloStage

T = 500_000 * HOUR_US
LIMITS = Limits(window_us=LENGTH_US, lateness_us=2 * S, grace_us=60 * S)
RULE = SloRule(0.9, window_days=1)
BOOK = SloBook(RULE)
BOOK.put("globex", "a", SloRule(0.99, window_days=2))
Series = tuple[str, str, int]
Log = list[tuple[int, list[HealthWindow]]]
"""(watermark, windows that closed or were revised at it)"""


def watermark_us(number: int) -> int:
    return T + (number + 1) * LENGTH_US + LIMITS.lateness_us


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Windows close and are revised with what comes later, within the grace; between them there may be minutes or hours."""
    counts: dict[Series, tuple[int, int, int]] = {}
    log: Log = []
    number = 0
    for gap in draw(st.lists(st.sampled_from([1, 1, 2, 3, 30, 400, 2_000, 9_000]), min_size=1, max_size=14)):
        number += gap
        closed: dict[Series, None] = {}
        for _ in range(draw(st.integers(0, 3))):
            series = draw(st.sampled_from(["acme", "globex"])), draw(st.sampled_from("ab")), number - draw(st.integers(0, 5))
            good, bad, revision = counts.get(series, (0, 0, -1))
            counts[series] = good + draw(st.integers(0, 9)), bad + draw(st.integers(0, 9)), revision + (series not in closed)
            closed[series] = None
        log.append((watermark_us(number), [made(series, *counts[series]) for series in closed]))
    return [*log, *((watermark_us(number + 6 * minute), []) for minute in (1, 2, 3))]


def made(series: Series, good: int, bad: int, revision: int) -> HealthWindow:
    tenant, chain, number = series
    return chain_window(T + number * LENGTH_US, good, bad, tenant=tenant, chain=chain, revision=revision)


def told(log: Log, restarts: frozenset[int] = frozenset()) -> list[str]:
    """Return all that is said, as it is published; after the entries `restarts` another process goes on from what was saved."""
    return [record.encode().decode() for record in records(log, restarts)]


def records(log: Log, restarts: frozenset[int] = frozenset()) -> list[Any]:
    stage, said, store = SloStage(LIMITS, BOOK), list[Any](), dict[str, bytes]()
    for number, (at_us, windows) in enumerate(log):
        spoken = stage.apply(windows, at_us)
        said += [*spoken.statuses, *spoken.alerts]
        if number in restarts:
            for key, value in stage.changes():
                store[key] = value if value is not None else b""
            store = {key: value for key, value in store.items() if value}
            stage = SloStage(LIMITS, BOOK)
            for key in sorted(store, key=hash):
                stage.restore(key, store[key])
    return said


def batch(last: list[HealthWindow], status: SloStatus) -> list[tuple[int, int]]:
    """(good, bad) of the whole window and of each stretch, from the last word on every window."""
    now_us = status.updated_unix_us
    spans = [(HOUR_US, 24 * status.window_days), *((SLOT_US, length // SLOT_US) for length in STRETCHES_US)]
    found = []
    for length_us, span in spans:
        first_us = ((now_us - 1) // length_us - span + 1) * length_us
        held = [w for w in last if first_us <= w.window_start_unix_us < now_us]
        found.append((sum(w.completed for w in held), sum(w.failed for w in held)))
    return found


@settings(max_examples=150)
@given(logs())
def test_the_last_word_is_that_of_a_batch_computation(log: Log) -> None:
    last = {w.id: w for _, windows in log for w in windows}
    newest = {record.id: record for record in records(log) if isinstance(record, SloStatus)}
    followed = {(w.tenant, w.chain) for w in last.values() if w.completed + w.failed}
    assert {(status.tenant, status.chain) for status in newest.values()} == followed
    for status in newest.values():
        mine = [w for w in last.values() if (w.tenant, w.chain) == (status.tenant, status.chain)]
        counts = [(status.good, status.bad), *((burn.good, burn.bad) for burn in status.burn)]
        assert counts == batch(mine, status)


@settings(max_examples=150)
@given(logs(), st.frozensets(st.integers(0, 16)))
def test_any_restart_says_the_same(log: Log, restarts: frozenset[int]) -> None:
    assert told(log, restarts) == told(log)


@settings(max_examples=50)
@given(logs(), st.randoms())
def test_the_order_of_windows_that_close_together_says_nothing(log: Log, random: Any) -> None:
    assert told([(at_us, random.sample(windows, len(windows))) for at_us, windows in log]) == told(log)
