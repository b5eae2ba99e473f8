"""The objective stage: burn rates and budgets against numbers worked out by hand."""

import re
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from usage_world import DAY_US, LENGTH_US, S, chain_window

from connectors.objectives import objective_of
from schemas.analysis import Alert
from schemas.definitions import ChainDefinition
from schemas.slo import SloStatus
from schemas.tenants import TIERS, TierLimits
from streams.booking import OVERFLOW
from streams.burn import HOUR_US, RULES, Ring, SloBook, SloRule
from streams.histogram import bucket_index
from streams.limits import Limits
from streams.slo import MINUTE_US, SloStage, Spoken, outcome
from streams.slo_records import Standing, alert_id, slo_id

T = 20_000 * DAY_US
LIMITS = Limits(window_us=LENGTH_US, lateness_us=2 * S, grace_us=60 * S)
RULE = SloRule(0.999, 30)
PER_MINUTE = 6


class World:
    """Time passes window by window; what was said is kept."""

    def __init__(self, rule: SloRule | None = RULE, **more: int) -> None:
        self.book = SloBook(rule)
        self.stage = SloStage(LIMITS, self.book, **more)
        self.statuses: list[SloStatus] = []
        self.alerts: list[Alert] = []
        self.number = 0

    def run(self, windows: int, completed: int = 100, failed: int = 0, **more: Any) -> "World":
        """So many windows with the same counts; none are told when there is nothing in them."""
        for _ in range(windows):
            window = chain_window(T + self.number * LENGTH_US, completed, failed, **more)
            self.take([window] if completed + failed else [], self.number)
            self.number += 1
        return self

    def take(self, windows: list[Any], number: int) -> Spoken:
        said = self.stage.apply(windows, T + (number + 1) * LENGTH_US + LIMITS.lateness_us)
        self.statuses += said.statuses
        self.alerts += said.alerts
        return said

    def minutes(self, count: float, **more: Any) -> "World":
        return self.run(round(count * PER_MINUTE), **more)


def standing(since_us: int = T - DAY_US, **bad: int) -> Standing:
    """10,000 executions in each stretch."""
    stretches = [(10_000, bad.get(name, 0)) for name in ("m5", "m30", "h1", "h6")]
    return Standing("acme", "order", RULE, since_us, T, (0, 0), stretches)


# -- arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "severity"),
    [
        ({"m5": 145, "h1": 145}, "critical"),
        ({"m5": 144, "h1": 145}, None),  # 144 of 10,000 are exactly 14.4 times 0.1 %
        ({"m5": 145, "h1": 144}, None),
        ({"m30": 61, "h6": 61}, "warning"),
        ({"m30": 60, "h6": 61}, None),
        ({"m30": 61, "h6": 60}, None),
        ({"m5": 10_000, "h6": 10_000}, None),  # neither pair
        ({"m5": 145, "h1": 145, "m30": 61, "h6": 61}, "critical"),
    ],
)
def test_a_rule_fires_above_its_threshold_in_both_stretches(bad: dict[str, int], severity: str | None) -> None:
    fired = standing(**bad).fired(RULES)
    assert (fired.severity if fired else None) == severity


def test_a_rule_is_skipped_while_less_than_half_of_its_long_stretch_was_seen() -> None:
    bad = {"m5": 10_000, "m30": 10_000, "h1": 10_000, "h6": 10_000}
    for since_us, severity in ((T - HOUR_US // 2 + 1, None), (T - HOUR_US // 2, "critical")):
        fired = standing(since_us, **bad).fired(RULES)
        assert (fired.severity if fired else None) == severity
    slow = {"m30": 61, "h6": 61}
    assert [standing(T - 3 * HOUR_US + late, **slow).fired(RULES) for late in (1, 0)] == [None, RULES[1]]


def test_thresholds_are_compared_in_whole_numbers() -> None:
    for objective, of in ((0.9, 100), (0.99, 1_000), (0.999, 10_000), (0.9999, 100_000), (0.99999, 1_000_000)):
        rule = SloRule(objective)
        assert [rule.burns((of, bad), 144) for bad in (144, 145)] == [False, True]
        assert [rule.is_exhausted((of, bad)) for bad in (9, 10)] == [False, True]
    assert RULE.rate((10_000, 144)) == 14.4
    assert not RULE.burns((0, 0), 144) and not RULE.is_exhausted((0, 0)) and RULE.rate((0, 0)) == 0.0


def test_the_smallest_budget_is_one_of_a_billion() -> None:
    assert SloRule(1 - 1e-12).budget_ppb == 1


def test_with_a_latency_what_is_in_a_higher_bucket_is_bad() -> None:
    rule = SloRule(0.99, latency_us=100_000)
    limit = bucket_index(100_000)
    durations = {str(limit - 9): 50, str(limit): 20, str(limit + 1): 7, str(limit + 40): 3}
    assert outcome(chain_window(T, 80, durations=durations), rule) == (80, 10)
    assert outcome(chain_window(T, 78, 2, durations=durations), rule) == (80, 12)
    assert outcome(chain_window(T, 1, 79, durations=durations), rule) == (80, 80)
    assert 2 ** ((limit + 1) / 16) <= 100_000 * 1.0443  # what passes is at most so much longer


def test_sums_of_a_ring_are_those_of_its_last_slots() -> None:
    ring = Ring((2, 4), chunk=2)
    ring.move(10)
    for slot in (7, 8, 9, 10):
        ring.add(slot, 10, slot)
    assert ring.sums == [(20, 19), (40, 34)]
    ring.move(11)
    assert ring.sums == [(10, 10), (30, 27)]
    ring.add(7, 5, 5)  # too old: it changes nothing
    assert ring.sums == [(10, 10), (30, 27)]
    assert [ring.chunk(number) for number in (3, 4, 5)] == [[], [(8, 10, 8), (9, 10, 9)], [(10, 10, 10)]]
    assert ring.dirty == {3, 4, 5}
    ring.move(99)
    assert ring.sums == [(0, 0), (0, 0)] and not len(ring)


# -- states and alerts ------------------------------------------------------------------------------------------------


def test_a_fault_pages_once_and_is_over_when_it_is_over() -> None:
    """100 executions in 10 s. After 60 good minutes half of them fail: 14.4 × 0.1 % of 36,000 are 518.4, the 519th is in window 11."""
    world = World().minutes(60)
    assert not world.alerts and {s.state for s in world.statuses} == {"ok"}
    world.run(10, 50, 50)
    assert not world.alerts
    world.run(1, 50, 50)
    (opened,) = world.alerts
    assert (opened.status, opened.severity, opened.revision) == ("opened", "critical", 0)
    assert opened.opened_unix_us == T + 371 * LENGTH_US
    assert opened.first_fault_unix_us == T + HOUR_US
    assert opened.id == alert_id("acme", "order", opened.opened_unix_us)
    assert opened.slo == opened.incident == slo_id("acme", "order")
    assert (opened.affected_executions, opened.affected_chains) == (550, ["order"])
    world.run(9, 50, 50)
    assert len(world.alerts) == 1
    world.minutes(10)
    assert [a.status for a in world.alerts] == ["opened", "resolved"]
    assert world.alerts[-1].summary.startswith("Over: ")
    assert [a.revision for a in world.alerts] == list(range(len(world.alerts)))
    assert len({a.id for a in world.alerts}) == 1


def test_it_is_resolved_when_no_rule_has_fired_for_five_minutes() -> None:
    """14.4 % of five minutes: the fast rule fires until 4:20 of them are good. Three hours, for the slow one, are not over yet."""
    world = World(SloRule(0.99)).minutes(60).minutes(60, completed=0, failed=100)
    last_bad_us = T + world.number * LENGTH_US
    assert [a.status for a in world.alerts] == ["opened"]
    world.minutes(30)
    (resolved,) = world.alerts[1:]
    assert resolved.status == "resolved" and resolved.resolved_unix_us is not None
    quiet_s = (resolved.resolved_unix_us - last_bad_us) / S
    assert 260 + 300 - 30 <= quiet_s <= 260 + 300 + 10


def test_trouble_that_comes_back_is_another_alert() -> None:
    world = World(SloRule(0.99)).minutes(60)
    for _ in range(2):
        world.minutes(20, completed=0, failed=100).minutes(400)
    opened = [a for a in world.alerts if a.status == "opened"]
    assert len(opened) == 2 and len({a.id for a in opened}) == 2


def test_a_slow_burn_warns_and_a_fast_one_makes_it_worse() -> None:
    world = World(SloRule(0.9)).minutes(240).minutes(360, completed=35, failed=65)
    assert next((a.status, a.severity) for a in world.alerts) == ("opened", "warning")
    assert all(a.severity == "warning" for a in world.alerts)
    world = World(SloRule(0.99)).minutes(240).minutes(360, completed=93, failed=7).minutes(60, completed=0, failed=100)
    severities = [a.severity for a in world.alerts]
    assert (severities[0], severities[-1]) == ("warning", "critical")


def test_it_is_updated_when_the_budget_is_used_up_meanwhile() -> None:
    """0.1 % of a million executions and of the 38,000 that follow are 1,038 bad ones: 50 in each window, so with the 21st."""
    world = World().run(1, 1_000_000).minutes(360, completed=0).minutes(60).run(20, 50, 50)
    assert [(a.status, a.severity) for a in world.alerts] == [("opened", "warning"), ("updated", "critical")]
    world.run(1, 50, 50)
    assert [(a.status, a.severity) for a in world.alerts[2:]] == [("updated", "critical")]
    assert world.alerts[2].summary.endswith("-1 % of the budget of 30 days is left")
    assert world.statuses[-1].state == "exhausted"


def test_nothing_pages_while_under_half_of_the_hour_was_seen() -> None:
    world = World().minutes(29.5, completed=0, failed=100)
    assert not world.alerts
    assert {s.state for s in world.statuses} == {"exhausted"}
    world.minutes(0.5, completed=0, failed=100)
    assert [a.status for a in world.alerts] == ["opened"]


def test_silence_burns_nothing_and_is_data() -> None:
    world = World().run(1).minutes(60, completed=0)
    assert not world.alerts
    world.run(1, 0, 100)
    assert [a.status for a in world.alerts] == ["opened"]
    world.minutes(12, completed=0)
    assert [a.status for a in world.alerts] == ["opened", "resolved"]


def test_state_and_budget_of_the_window() -> None:
    """Of 8,000 executions 0.1 % may be bad, 8: four of them are half of the budget, ten are more than all of it."""
    world = World().run(39).run(1, 96, 4).run(39)
    world.run(1)
    status = world.statuses[-1]
    world.minutes(1, completed=0)
    status = world.statuses[-1]
    assert (status.good, status.bad, status.state) == (7_996, 4, "ok")
    assert status.budget_remaining_ratio == pytest.approx(0.5)
    assert [b.window_s for b in status.burn] == [300, 1_800, 3_600, 21_600]
    assert status.burn[3].rate == pytest.approx(0.5)
    assert status.burn[3].data_ratio == pytest.approx(86 / 2_160, rel=0.05)
    world.run(1, 94, 6)
    status = world.statuses[-1]
    assert (status.bad, status.state) == (10, "exhausted")
    assert status.budget_remaining_ratio == pytest.approx(1 - 10 / 8.1)


def test_states_are_told_at_once_and_the_rest_once_a_minute() -> None:
    world = World().minutes(10)
    times = [s.updated_unix_us for s in world.statuses]
    assert 9 <= len(times) <= 11
    assert all(later - sooner >= MINUTE_US for sooner, later in pairwise(times))
    before = len(world.statuses)
    world.run(1, 0, 100)
    assert len(world.statuses) == before + 1 and world.statuses[-1].state == "exhausted"
    world.run(1, 100, 0)
    assert len(world.statuses) == before + 1


def test_a_chain_that_does_nothing_more_is_told_until_it_is_forgotten() -> None:
    world = World(SloRule(0.9, window_days=1)).run(1)
    for hour in range(30):
        world.take([], world.number + hour * 360)
    assert (world.statuses[-1].good, world.statuses[-1].bad) == (0, 0)
    assert not world.stage._chains
    assert len(world.statuses) <= 5
    assert dict(world.stage.changes()) and not any(v for k, v in world.stage.changes() if "clock" not in k)


def test_late_data_corrects_the_slot() -> None:
    world = World().run(3)
    world.take([chain_window(T + LENGTH_US, 100, 50, revision=1)], 3)
    world.take([chain_window(T + LENGTH_US, 100, 50, revision=1)], 4)
    world.minutes(2, completed=0)
    assert (world.statuses[-1].good, world.statuses[-1].bad) == (300, 50)


def test_an_objective_that_is_taken_back_ends_what_was_said() -> None:
    world = World(None)
    world.book.put("", "order", SloRule(0.99))
    world.minutes(60).minutes(30, completed=0, failed=100)
    assert world.alerts[-1].status in ("opened", "updated")
    world.book.put("acme", "order", None)
    world.minutes(1, completed=0, failed=100)
    assert (world.alerts[-1].status, world.statuses[-1].state, world.statuses[-1].objective) == ("resolved", "withdrawn", 0.99)
    assert not world.stage._chains and not any(world.stage._windows[start]["acme"] for start in world.stage._windows)


def test_the_tenants_own_definition_goes_before_the_common_one_and_the_default() -> None:
    default, common, own = SloRule(0.9), SloRule(0.99), SloRule(0.999)
    book = SloBook(default)
    book.put("", "order", common)
    book.put("acme", "order", own)
    book.put("globex", "order", None)
    assert [book.find(tenant, "order", T) for tenant in ("acme", "initech", "globex")] == [own, common, default]
    assert book.find("acme", "other", T) == default
    book.remove("acme", "order")
    assert book.find("acme", "order", T) == common


def test_of_versions_the_one_that_was_in_force_judges_a_window() -> None:
    world = World(None)
    for number, (slow_us, from_us) in enumerate(((100_000, 0), (1_000, T + LENGTH_US))):
        world.book.put("", "order", SloRule(0.9, 30 + number, slow_us), from_us)
    durations = {str(bucket_index(10_000)): 10}
    world.run(3, 10, durations=durations)
    late = chain_window(T, 11, durations={str(bucket_index(10_000)): 11}, revision=1)
    world.take([late], world.number)
    world.minutes(2, completed=0)
    assert (world.statuses[-1].good, world.statuses[-1].bad, world.statuses[-1].window_days) == (11, 20, 31)


def test_versions_are_put_and_taken_back_by_their_effective_time() -> None:
    book, rules = SloBook(), [SloRule(ratio) for ratio in (0.5, 0.6, 0.7, 0.8)]
    for from_us, rule in zip((0, 10, 20), rules, strict=False):
        book.put("t", "c", rule, from_us)
    assert [book.find("t", "c", at_us) for at_us in (0, 9, 10, 99)] == [rules[0], rules[0], rules[1], rules[2]]
    book.remove("t", "c", 20)
    assert book.find("t", "c", 99) == rules[1]
    book.put("t", "c", rules[3], 5)  # in place of all that were to hold from then on
    assert [book.find("t", "c", at_us) for at_us in (4, 5, 99)] == [rules[0], rules[3], rules[3]]
    for from_us in (5, 0, 0):
        book.remove("t", "c", from_us)
    assert book.find("t", "c", 99) is None


def test_objectives_beyond_the_limit_are_the_same_whatever_the_order() -> None:
    for order in ("abc", "cba", "bca"):
        book = SloBook(limit=2)
        for chain in order:
            book.put("", chain, RULE)
        assert [book.find("t", chain, T) is not None for chain in "abc"] == [True, True, False]
        assert book.refused == 1


def test_chains_without_objective_and_the_overflow_are_not_followed() -> None:
    world = World(None).run(2)
    other = World().run(2, chain=OVERFLOW).run(1, kind="step", step="s", component="c")
    assert not world.stage._chains and not other.stage._chains and not other.statuses


def test_more_chains_than_are_followed() -> None:
    world = World(max_chains=2)
    for chain in "abc":
        world.run(1, chain=chain)
    assert {chain for _, chain in world.stage._chains} == {"a", "b"}
    assert world.stage.reached == {"slos_over_limit": 1}
    world.take([], world.number + 7 * 360)  # nothing for six hours: they make room
    world.number += 7 * 360 + 1
    world.run(1, chain="c")
    assert {chain for _, chain in world.stage._chains} == {"c"}


# -- the example of the documentation ---------------------------------------------------------------------------------


def test_the_example_of_the_documentation_is_what_happens() -> None:
    text = " ".join((Path(__file__).parents[2] / "docs" / "slo.md").read_text().split())
    world = World().minutes(60).run(11, 50, 50)
    (alert,), status = world.alerts, world.statuses[-1]
    hour = next(burn for burn in status.burn if burn.window_s == 3_600)
    after_s = (alert.opened_unix_us - (T + HOUR_US)) // S
    in_an_hour = 100 * HOUR_US // LENGTH_US
    needed = 14.4 * 0.001 * in_an_hour
    assert 0 <= in_an_hour - (hour.good + hour.bad) <= 3 * 100  # up to a slot less
    assert f"so {in_an_hour:,} in an hour. 14.4 × 0.1 % of them are {needed:.1f}." in text
    assert f"{after_s} s later, {hour.bad} being bad by then, at a burn rate of {hour.rate:.1f} over the hour" in text
    assert f"the {int(needed) + 1}th bad one" in text
    for rule, words in zip(RULES, ("| 14.4 | 1 h and 5 min | `critical` |", "| 6 | 6 h and 30 min | `warning` |"), strict=True):
        assert words in text and f"{rule.tenths / 10:g}" in words and rule.severity in words
        least = 1 - 10 / rule.tenths
        assert f"{ceil(1_000 * least) / 10} %" in text


def test_the_definition_in_the_documentation_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "slo.md").read_text()
    definition = ChainDefinition.decode(re.findall(r"```json\n(.*?)```", text, re.DOTALL)[0].encode())
    assert objective_of(definition, 30) == SloRule(0.999, 30, 800_000)


def test_the_tiers_to_begin_with_are_those_of_the_database() -> None:
    text = "".join(path.read_text() for path in sorted((Path(__file__).parents[2] / "schemas" / "postgres").glob("*.sql")))
    rows = re.findall(r"\('(free|pro|enterprise)', (\w+), (\w+), (\d+), (\d+), '\{(.*?)\}'\)", text)
    found = {
        name: TierLimits(
            max_chains=None if chains == "NULL" else int(chains), max_executions_per_day=None if executions == "NULL" else int(executions),
            retention_days=int(days), requests_per_minute=int(requests), features=tuple(filter(None, features.split(","))),
        )
        for name, chains, executions, days, requests, features in rows
    }  # fmt: skip
    assert found == TIERS
