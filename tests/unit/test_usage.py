"""The usage stage: counts by hand, thresholds at their exact value, late data, tiers that change."""

from typing import Any

from usage_world import DAY_US, LENGTH_US, S, chain_window

from schemas.tenants import LimitReached, Tenant, TierLimits
from streams.booking import OVERFLOW
from streams.limits import Limits
from streams.tenants import TenantBook
from streams.usage import UsageSettings, UsageStage, limit_id

DAY = 20_000 * DAY_US
LIMITS = Limits(window_us=LENGTH_US, lateness_us=2 * S, grace_us=60 * S)
KEPT_US = LIMITS.grace_us + LIMITS.lateness_us + LIMITS.window_us


def tenant(name: str = "acme", **limits: Any) -> Tenant:
    return Tenant(tenant=name, tier="free", limits=TierLimits(**limits))


class Stage(UsageStage):
    """Windows are given by their number in the day; each is applied when it has just closed."""

    def __init__(self, *tenants: Tenant, **settings: int) -> None:
        self.book = TenantBook()
        for one in tenants:
            self.book.put(one)
        super().__init__(LIMITS, self.book, UsageSettings(**settings))

    def say(self, number: int, completed: int, *, now: int | None = None, **more: Any) -> list[LimitReached]:
        at = number if now is None else now
        window = chain_window(DAY + number * LENGTH_US, completed, **more)
        return self.apply([window], DAY + (at + 1) * LENGTH_US + LIMITS.lateness_us)


def brief(found: list[LimitReached]) -> list[tuple[str, float, int, int, int]]:
    return [(r.limit, r.ratio, r.revision, r.used, (r.reached_unix_us - DAY) // LENGTH_US) for r in found]


def test_said_ahead_of_the_limit_and_at_it_once_each() -> None:
    stage = Stage(tenant(max_executions_per_day=100))
    assert stage.say(0, 70, failed=9) == []
    assert brief(stage.say(1, 1)) == [("max_executions_per_day", 0.8, 0, 80, 2)]
    assert stage.say(2, 19) == []
    (found,) = stage.say(3, 1)
    assert brief([found]) == [("max_executions_per_day", 1.0, 0, 100, 4)]
    assert (found.id, found.tier, found.allowed) == (limit_id("acme", "max_executions_per_day", DAY, 10), "free", 100)
    assert (found.period_start_unix_us, found.period_end_unix_us) == (DAY, DAY + DAY_US)
    assert stage.say(4, 500) == []


def test_one_window_may_reach_both() -> None:
    assert brief(Stage(tenant(max_executions_per_day=10)).say(0, 25)) == [
        ("max_executions_per_day", 0.8, 0, 25, 1), ("max_executions_per_day", 1.0, 0, 25, 1),
    ]  # fmt: skip


def test_a_share_that_is_no_whole_number_is_reached_by_the_next() -> None:
    stage = Stage(tenant(max_executions_per_day=6))  # 80 % are 4.8
    assert stage.say(0, 4) == []
    assert brief(stage.say(1, 1)) == [("max_executions_per_day", 0.8, 0, 5, 2)]


def test_a_limit_of_none_at_all_is_reached_by_the_first() -> None:
    assert [r.used for r in Stage(tenant(max_executions_per_day=0)).say(0, 1)] == [1, 1]


def test_distinct_chains_are_counted_not_their_windows() -> None:
    stage = Stage(tenant(max_chains=5))
    for number, chain in enumerate("abcab"):
        assert stage.say(number, 1, chain=chain) == []
    assert brief(stage.say(6, 1, chain="d")) == [("max_chains", 0.8, 0, 4, 7)]
    assert brief(stage.say(7, 1, chain="e")) == [("max_chains", 1.0, 0, 5, 8)]


def test_a_revision_takes_the_place_of_the_window() -> None:
    stage = Stage(tenant(max_executions_per_day=100))
    assert stage.say(0, 50) == stage.say(0, 60, revision=1, now=1) == stage.say(0, 60, revision=1, now=1) == []
    assert brief(stage.say(2, 20)) == [("max_executions_per_day", 0.8, 0, 80, 3)]


def test_late_data_moves_what_was_said_to_an_earlier_window() -> None:
    stage = Stage(tenant(max_executions_per_day=100))
    stage.say(0, 70)
    assert brief(stage.say(1, 5)) == []
    assert brief(stage.say(2, 10)) == [("max_executions_per_day", 0.8, 0, 85, 3)]
    assert brief(stage.say(0, 77, revision=1, now=3)) == [("max_executions_per_day", 0.8, 1, 82, 2)]
    assert stage.say(2, 11, revision=1, now=4) == []


def test_what_cannot_change_any_more_is_not_said_again() -> None:
    stage = Stage(tenant(max_executions_per_day=100))
    stage.say(0, 80)
    after = KEPT_US // LENGTH_US + 2
    assert stage.say(after, 1) == stage.say(after + 1, 1) == []
    assert len(stage._windows) == 2


def test_days_are_those_of_utc_in_event_time_and_end() -> None:
    stage, last = Stage(tenant(max_executions_per_day=10)), DAY_US // LENGTH_US - 1
    assert brief(stage.say(last, 7)) == []
    assert brief(stage.say(last + 1, 7)) == []
    assert [r.period_start_unix_us for r in stage.say(last, 8, revision=1, now=last + 2)] == [DAY]
    stage.say(last + 3 + KEPT_US // LENGTH_US, 1)
    assert list(stage._days) == [("acme", DAY + DAY_US)]
    assert any(value is None for _, value in stage.changes())


def test_steps_components_silence_and_overflow_are_not_counted() -> None:
    stage = Stage(tenant(max_executions_per_day=1))
    kinds = ({"kind": "step", "step": "s", "component": "c"}, {"kind": "component", "chain": ""}, {"chain": OVERFLOW})
    assert [stage.say(0, 9, **more) for more in kinds] == [[], [], []]
    assert stage.say(0, 0) == [] and not stage._days


def test_without_a_record_the_default_tier_holds_and_allows_everything() -> None:
    stage = Stage()
    assert stage.say(0, 10**9) == []
    stage.book.put(tenant(max_executions_per_day=100))
    assert [(r.revision, r.used) for r in stage.say(1, 1)] == [(0, 10**9)] * 2
    other = UsageStage(LIMITS, TenantBook("free", TierLimits(max_executions_per_day=1)))
    assert [r.tier for r in other.apply([chain_window(DAY, 1)], DAY + LENGTH_US)] == ["free", "free"]


def test_another_tier_revises_what_was_said_only_when_its_share_is_reached() -> None:
    stage = Stage(tenant(max_executions_per_day=10))
    assert len(stage.say(0, 10)) == 2
    stage.book.put(tenant(max_executions_per_day=20))
    assert stage.say(1, 5) == []
    assert brief(stage.say(2, 1)) == [("max_executions_per_day", 0.8, 1, 16, 3)]
    stage.book.remove("acme")
    assert stage.say(3, 100) == []


def test_a_limit_that_becomes_known_late_finds_the_whole_day() -> None:
    stage, after = Stage(), KEPT_US // LENGTH_US + 2
    stage.say(0, 80)
    stage.say(after, 1)
    stage.book.put(tenant(max_executions_per_day=50))
    found = stage.say(after + 1, 1)
    assert brief(found) == [("max_executions_per_day", 0.8, 0, 80, 1), ("max_executions_per_day", 1.0, 0, 80, 1)]
    assert stage.say(after + 2, 1) == []


def test_bounds_are_counted_and_spare_tenants_with_a_record() -> None:
    stage = Stage(tenant("known", max_executions_per_day=1), max_tenants=1, max_chains=2)
    for name in ("a", "b", "c", "known"):
        stage.say(0, 1, tenant=name)
    assert stage.reached == {"usage_tenants_over_limit": 1}
    assert {name for name, _ in stage._days} == {"a", "b", "known"}
    for chain in "xyz":
        stage.say(1, 1, tenant="a", chain=chain)
    assert stage.reached["usage_chains_over_limit"] == 2
    assert stage._days["a", DAY].total == 4


def test_records_beyond_the_limit_are_the_same_whatever_the_order() -> None:
    for order in ("abc", "cba", "bca"):
        book = TenantBook(limit=2)
        for name in order:
            book.put(tenant(name))
        assert [name in book for name in "abc"] == [True, True, False]
        assert book.refused == 1
