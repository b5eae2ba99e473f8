"""What must have been said of limits, worked out by hand, and held against the stage on the same windows."""

from usage_world import DAY_US, LENGTH_US, S, chain_window

from infra.verification.limits import Wanted, limit_of
from infra.verification.windows import OVERFLOW, Totals, WindowKey
from schemas.tenants import Tenant, TierLimits
from streams.ids import derived_id
from streams.limits import Limits
from streams.tenants import TenantBook
from streams.usage import UsageStage, limit_id

DAY = 20_000 * DAY_US
LIMITS = Limits(window_us=LENGTH_US, lateness_us=2 * S, grace_us=60 * S)
BOOK = TenantBook()
BOOK.put(Tenant(tenant="acme", tier="free", limits=TierLimits(max_chains=2, max_executions_per_day=55)))  # 80 % are exactly 44


def key(number: int, chain: str = "a", tenant: str = "acme", step: str = "") -> WindowKey:
    return (tenant, chain, step, step.upper(), DAY + number * LENGTH_US)


WINDOWS = {
    key(0): Totals(completed=40, failed=3), key(1): Totals(completed=1), key(1, "b"): Totals(), key(2, "b"): Totals(completed=2),
    key(3): Totals(completed=9), key(0, step="s"): Totals(completed=99), key(0, OVERFLOW): Totals(completed=99),
    key(0, tenant="globex"): Totals(completed=10**6),
}  # fmt: skip


def brief(wanted: Wanted) -> dict[tuple[str, float], tuple[int, int]]:
    return {(r["limit"], r["ratio"]): ((r["reached_unix_us"] - DAY) // LENGTH_US, r["used"]) for r in wanted.records.values()}


def test_first_window_with_which_the_share_is_reached() -> None:
    wanted = Wanted(WINDOWS, set(), BOOK, LIMITS)
    assert brief(wanted) == {
        ("max_executions_per_day", 0.8): (2, 44), ("max_executions_per_day", 1.0): (4, 55),
        ("max_chains", 0.8): (3, 2), ("max_chains", 1.0): (3, 2),
    }  # fmt: skip
    assert not wanted.unsettled


def test_what_comes_behind_an_open_window_is_not_compared() -> None:
    wanted = Wanted(WINDOWS, {derived_id(*key(2, "b"))}, BOOK, LIMITS)
    assert brief(wanted) == {("max_executions_per_day", 0.8): (2, 44)}
    assert wanted.unsettled == {
        limit_id("acme", name, DAY, tenths)
        for name, tenths in (("max_executions_per_day", 10), ("max_chains", 8), ("max_chains", 10))
    }


def test_the_stage_says_the_same() -> None:
    stage, said = UsageStage(LIMITS, BOOK), {}
    for number in range(4):
        windows = [
            chain_window(start_us, totals.completed, totals.failed, tenant=tenant, chain=chain, kind="step" if step else "chain", step=step)
            for (tenant, chain, step, _, start_us), totals in WINDOWS.items() if start_us == DAY + number * LENGTH_US
        ]  # fmt: skip
        for record in stage.apply(windows, DAY + (number + 1) * LENGTH_US + LIMITS.lateness_us):
            said[record.id] = limit_of(record)
    assert said == Wanted(WINDOWS, set(), BOOK, LIMITS).records
