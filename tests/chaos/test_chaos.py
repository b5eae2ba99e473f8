"""A selection of `make chaos`: everything of it once, under load, and nothing is lost, twice or different afterwards."""


import pytest

from infra.chaos.plan import draw
from infra.chaos.report import Outcome
from infra.chaos.run import run

pytestmark = pytest.mark.timeout(1800)
PLAN = draw(seed=4, seconds=50, rate=24_000)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(tmp_path_factory.mktemp("chaos") / "home", PLAN, print)


def test_nothing_is_lost_twice_or_different(outcome: Outcome) -> None:
    assert outcome.failures() == [], [tally.first for tally in outcome.verified.tallies.values() if not tally.right]
    document = outcome.document()
    assert (document["lost"], document["duplicated"], document["different"]) == (0, 0, 0)


def test_everything_was_done_and_compared(outcome: Outcome) -> None:
    assert outcome.done.total() == len(PLAN.actions)
    assert outcome.killed.total() >= 6
    assert all(tally.found > 0 for kind, tally in outcome.verified.tallies.items() if kind not in ("anomalies", "chain_anomalies"))
    assert sum(outcome.disturbed.values()) > 1_000


def test_what_retention_deleted_unread_is_what_was_reported(outcome: Outcome) -> None:
    assert outcome.gap.right
    assert outcome.gap.worked_on + outcome.gap.reported == outcome.gap.sent
