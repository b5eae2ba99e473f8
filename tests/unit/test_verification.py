"""Comparing: what is missing, too many, different or twice, and in what order corrections may come."""

from collections import Counter
from typing import Any

import pytest

from infra.verification.compare import Found, Tally, compare, compare_all, pack
from infra.verification.conclusions import check, check_incidents_of
from schemas.analysis import Alert
from schemas.health import OffsetRange


def numbers(tally: Tally) -> tuple[int, int, int, int]:
    return tally.missing, tally.extra, tally.different, tally.duplicated


def test_each_record_is_right_or_missing_or_extra_or_different() -> None:
    tally, right = Tally("windows"), pack({"n": 1, "mean": 1 / 3})
    expected = {"same": right, "rounded": right, "gone": right, "changed": right, "open": right}
    found = {
        "same": right, "rounded": pack({"n": 1, "mean": 0.33333333333333337}), "changed": pack({"n": 2, "mean": 1 / 3}),
        "new": right, "open": pack({"n": 7}), "harmless": pack({"n": 0}),
    }  # fmt: skip
    compare(tally, expected, found, {"open"}, lambda record: record["n"] == 0)
    assert numbers(tally) == (1, 1, 1, 0)
    assert (tally.expected, tally.found, tally.open) == (4, 4, 2)
    shown = {one.record: (one.field, one.expected, one.found) for one in tally.first}
    assert shown["changed"] == ("n", 1, 2)


def test_the_highest_revision_counts_and_a_revision_has_one_content() -> None:
    tally = Tally("windows")
    found = Found(tally, once=False)
    for version, n in ((1, 5), (0, 4), (1, 5)):
        found.add("w", (version,), pack({"n": n}))
    assert found.newest == {"w": pack({"n": 5})} and tally.right
    found.add("w", (1,), pack({"n": 6}))
    assert numbers(tally) == (0, 0, 0, 1)
    assert (tally.first[0].field, tally.first[0].expected, tally.first[0].found) == ("n", 5, 6)


def test_what_ingest_writes_may_not_be_there_twice() -> None:
    tally = Tally("executions")
    found = Found(tally, once=True)
    found.add(1, (0,), pack({"n": 5}))
    found.add(1, (0,), pack({"n": 5}))
    assert numbers(tally) == (0, 0, 0, 1)


def test_violations_are_compared_by_id_and_content() -> None:
    tally, one, other = Tally("violations"), pack({"type": "step.slow", "n": 1}), pack({"type": "step.slow", "n": 2})
    repeats = pack({"type": "cardinality.exceeded"})
    expected = {"a": Counter([one]), "b": Counter([one]), "c": Counter([one]), "r": Counter([repeats])}
    found = {"a": Counter([one, one]), "b": Counter([other]), "x": Counter([one]), "r": Counter([repeats] * 3), "o": Counter([one])}
    compare_all(tally, expected, found, {"o"}, lambda record: record["type"] == "cardinality.exceeded")
    assert numbers(tally) == (1, 1, 1, 1)


def alert(revision: int, status: str, **more: Any) -> Alert:
    facts = {
        "id": "a", "revision": revision, "status": status, "severity": "warning", "tenant": "t", "incident": "i", "title": "t",
        "summary": "s", "suspects": [], "affected": [], "affected_chains": [], "affected_executions": 0, "affected_sample": [],
        "violations": {}, "first_fault_unix_us": 0, "opened_unix_us": 0, "updated_unix_us": 0, "evidence": [], **more,
    }  # fmt: skip
    return Alert.model_validate(facts)


RIGHT = [alert(0, "opened"), alert(1, "updated"), alert(1, "updated"), alert(2, "resolved")]
BEYOND = OffsetRange(topic="events", partition=0, first_offset=5, last_offset=10)


@pytest.mark.parametrize(
    ("alerts", "expected"),
    [
        (RIGHT, (0, 0, 0, 0)),
        ([RIGHT[0], RIGHT[3]], (1, 0, 0, 0)),
        ([alert(0, "opened"), alert(0, "opened", title="other")], (0, 0, 0, 1)),
        ([alert(0, "updated")], (0, 0, 1, 0)),
        ([*RIGHT, alert(3, "updated")], (0, 0, 1, 0)),
        ([alert(0, "opened", evidence=[BEYOND])], (0, 0, 1, 0)),
    ],
    ids=["in order", "a revision is missing", "two contents", "begins with an update", "goes on after its end", "evidence beyond"],
)
def test_alerts_are_corrected_in_order(alerts: list[Alert], expected: tuple[int, int, int, int]) -> None:
    tally = Tally("alerts")
    assert check(tally, alerts, "events", {0: (0, 10)}) == {"a"}
    assert numbers(tally) == expected


def test_an_alert_speaks_of_an_incident_that_was_published() -> None:
    tally = Tally("alerts")
    check_incidents_of(tally, RIGHT, {"i"})
    assert tally.right
    check_incidents_of(tally, RIGHT[:1], {"other"})
    assert numbers(tally) == (1, 0, 0, 0)
