"""What is said of a tenant's use is what a batch computation over its windows says, whatever the order, revisions and restarts."""

from itertools import accumulate
from math import ceil
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from usage_world import DAY_US, LENGTH_US, S, chain_window

from schemas.health import HealthWindow
from schemas.tenants import LimitReached, Tenant, TierLimits
from streams.limits import Limits
from streams.tenants import TenantBook
from streams.usage import UsageStage

DAY = 20_000 * DAY_US
LIMITS = Limits(window_us=LENGTH_US, lateness_us=2 * S, grace_us=60 * S)
CLOSES_US = LENGTH_US + LIMITS.lateness_us
BOOK = TenantBook("free", TierLimits(max_executions_per_day=17))
BOOK.put(Tenant(tenant="acme", tier="pro", limits=TierLimits(max_executions_per_day=40, max_chains=3)))
Series = tuple[str, str, int]
"""(tenant, chain, number of the window)"""
Log = list[tuple[int, list[HealthWindow]]]
"""(watermark, windows that closed or were revised at it)"""


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Two tenants around midnight: every window closes once and is revised with what comes later, within the grace."""
    first = -draw(st.integers(0, 8))
    numbers = sorted(draw(st.lists(st.integers(first, first + 30), max_size=14)))
    counts: dict[Series, tuple[int, int]] = {}
    log: Log = []
    for number in numbers:
        closed: dict[Series, None] = {}
        for _ in range(draw(st.integers(1, 4))):
            late = draw(st.integers(0, 5))
            series = draw(st.sampled_from(["acme", "globex"])), draw(st.sampled_from("abcd")), number - late
            count, revision = counts.get(series, (0, -1))
            counts[series] = count + draw(st.integers(0, 9)), revision + (series not in closed)
            closed[series] = None
        windows = [made(series, *counts[series]) for series in closed]
        log.append((DAY + number * LENGTH_US + CLOSES_US, windows))
    return log


def made(series: Series, count: int, revision: int) -> HealthWindow:
    tenant, chain, number = series
    return chain_window(DAY + number * LENGTH_US, count // 2, count - count // 2, tenant=tenant, chain=chain, revision=revision)


def told(log: Log, restarts: frozenset[int] = frozenset()) -> list[LimitReached]:
    """Return all that is said; after the entries `restarts` another process goes on from what was saved."""
    stage, said = UsageStage(LIMITS, BOOK), list[LimitReached]()
    store: dict[str, bytes] = {}
    for number, (watermark_us, windows) in enumerate(log):
        said += stage.apply(windows, watermark_us)
        if number in restarts:
            for key, value in stage.changes():
                store[key] = value if value is not None else b""
            store = {key: value for key, value in store.items() if value}
            stage = UsageStage(LIMITS, BOOK)
            for key in sorted(store, key=hash):
                stage.restore(key, store[key])
    return said


def batch(log: Log) -> dict[tuple[Any, ...], tuple[int, int]]:
    """(tenant, day, limit, share) -> (event time at which it was reached, use by then), from the last word on every window."""
    last = {w.id: w for _, windows in log for w in windows if w.completed + w.failed}
    found: dict[tuple[Any, ...], tuple[int, int]] = {}
    for tenant, day in {(w.tenant, w.window_start_unix_us // DAY_US * DAY_US) for w in last.values()}:
        of_day = sorted(
            (w for w in last.values() if (w.tenant, w.window_start_unix_us // DAY_US * DAY_US) == (tenant, day)),
            key=lambda w: w.window_start_unix_us,
        )
        ends = sorted({w.window_end_unix_us for w in of_day})
        executions = list(accumulate(sum(w.completed + w.failed for w in of_day if w.window_end_unix_us == end) for end in ends))
        chains = [len({w.chain for w in of_day if w.window_end_unix_us <= end}) for end in ends]
        limits = BOOK.find(tenant)[1]
        for name, allowed, used in (("max_executions_per_day", limits.max_executions_per_day, executions), ("max_chains", limits.max_chains, chains)):
            for share in (0.8, 1.0) if allowed is not None else ():
                reached = [(end, n) for end, n in zip(ends, used, strict=True) if n >= ceil(round(share * allowed, 6))]
                found |= {(tenant, day, name, share): reached[0]} if reached else {}
    return found


@settings(max_examples=150)
@given(logs())
def test_the_last_word_is_that_of_a_batch_computation(log: Log) -> None:
    newest: dict[tuple[Any, ...], LimitReached] = {}
    ids = set()
    for record in told(log):
        key = record.tenant, record.period_start_unix_us, record.limit, record.ratio
        assert record.revision == (newest[key].revision + 1 if key in newest else 0)
        newest[key] = record
        ids.add(record.id)
    assert {key: (record.reached_unix_us, record.used) for key, record in newest.items()} == batch(log)
    assert len(ids) == len(newest)


@settings(max_examples=100)
@given(logs(), st.frozensets(st.integers(0, 13)))
def test_any_restart_says_the_same(log: Log, restarts: frozenset[int]) -> None:
    assert told(log, restarts) == told(log)


@settings(max_examples=50)
@given(logs(), st.randoms())
def test_the_order_of_windows_that_close_together_says_nothing(log: Log, random: Any) -> None:
    mixed = [(at, random.sample(windows, len(windows))) for at, windows in log]
    assert told(mixed) == told(log)
