"""When is a context in trouble: counts of failed, slow, missing and hanging steps against their usual rate.

Source: Chernoff's bound on the binomial tail, -ln P(at least k of n) >= n KL(k/n || p).
"""


from collections.abc import Callable
from functools import partial
from math import log

from msgspec import Struct

from streams.rootcause.base import Scene
from streams.rootcause.memory import Context, Counts

FAILED, SLOW, MISSING, STUCK, SILENT, CLOCK = "failed", "slow", "missing", "stuck", "silent", "clock"
VIOLATIONS = {FAILED: "step.failed", SLOW: "step.slow", MISSING: "step.missing", CLOCK: "clock.ahead"}


class FaultSettings(Struct, frozen=True):
    """When a context is in trouble. Deliberately an operator's rules: enough cases, enough of all, and unusual."""

    windows: int = 3
    """Newest windows looked at together."""
    min_failed: int = 3
    min_failed_ratio: float = 0.01
    min_slow: int = 5
    min_slow_ratio: float = 0.05
    min_missing: int = 2
    min_missing_ratio: float = 0.01
    min_ahead: int = 3
    surprise: float = 13.0
    """Nats that the count must be beyond its usual rate: one chance in 440,000 per look, if steps were independent."""
    usual_ratio: float = 0.01
    """Expected before anything is known, worth `usual_weight` cases."""
    usual_weight: float = 50.0
    silent_opens: float = 20.0
    """An incident opens on a silent component where so many events per window are usual."""
    min_expected_events: float = 8.0
    """Silence counts where so many events would have come."""
    answered_share: float = 0.7
    """A callee from which at most this share of the expected events came is suspected of not answering."""
    cap: float = 20.0


DEFAULTS = FaultSettings()


class Trouble(Struct, frozen=True):
    """One context whose promises are broken more often than usual."""

    chain: str
    step: str
    component: str
    kind: str
    count: float
    total: float
    usual: float
    surprise: float
    since_us: int
    """Start of the first window, of those looked at, that shows it."""
    last_us: int
    """Start of the last one."""


def surprise(count: float, total: float, usual: float) -> float:
    """Return n KL(k/n || p), a lower bound of -ln P(at least k of n); 0 when the rate is not above the usual one."""
    if not total or count / total <= usual:
        return 0.0
    rate = min(1.0, count / total)
    rest = (1 - rate) * log((1 - rate) / (1 - usual)) if rate < 1 else 0.0
    return total * (rate * log(rate / usual) + rest)


def troubles(scene: Scene, settings: FaultSettings = DEFAULTS) -> list[Trouble]:
    """Return the contexts in trouble in the newest windows, by context and kind."""
    memory = scene.memory
    first = memory.newest_us - (settings.windows - 1) * memory.settings.window_us
    found: list[Trouble] = []
    for name in sorted(memory.components):
        recent = memory.components[name].recent
        now = [(start, recent[start]) for start in sorted(recent) if start >= first]
        for key in sorted({key for _, window in now for key, counts in window.items() if _is_suspicious(counts)}):
            context = (*key, name)
            rows = [(start, window[key]) for start, window in now if key in window]
            found.extend(_judge(context, rows, partial(_baseline, scene, context, first), settings))
    return found


def _is_suspicious(counts: Counts) -> bool:
    return bool(counts.violations) or counts.failed > 0 or counts.started > counts.ended


def _baseline(scene: Scene, context: Context, first_us: int) -> Counts:
    """Return normal plus the healthy recent windows before those looked at."""
    memory = scene.memory.components[context[2]]
    total = Counts(*context[:2])
    if context[:2] in memory.normal:
        _add_kinds(total, memory.normal[context[:2]])
    for start in sorted(memory.recent):
        if start < first_us and context[:2] in memory.recent[start] and not scene.ill(context, start):
            _add_kinds(total, memory.recent[start][context[:2]])
    return total


def _add_kinds(total: Counts, counts: Counts) -> None:
    """Add what `_count` and `_total` look at, and leave out histograms and indicators: they would be most of the work."""
    total.started += counts.started
    total.completed += counts.completed
    total.failed += counts.failed
    for name, count in counts.violations.items():
        total.violations[name] = total.violations.get(name, 0.0) + count


def _judge(
    context: Context, rows: list[tuple[int, Counts]], usually: Callable[[], Counts], settings: FaultSettings
) -> list[Trouble]:
    """Return a context's troubles; what is usual is asked for only where there is enough to compare with it."""
    found: list[Trouble] = []
    baseline: Counts | None = None
    limits = {
        FAILED: (settings.min_failed, settings.min_failed_ratio),
        SLOW: (settings.min_slow, settings.min_slow_ratio),
        MISSING: (settings.min_missing, settings.min_missing_ratio),
        STUCK: (settings.min_failed, 0.5),
        CLOCK: (settings.min_ahead, 0.0),
    }
    for kind, (least, ratio) in limits.items():
        count = sum(_count(counts, kind) for _, counts in rows)
        total = sum(_total(counts, kind) for _, counts in rows)
        if count < least or count <= ratio * total:
            continue
        baseline = baseline or usually()
        prior = settings.usual_ratio * settings.usual_weight
        usual = (_count(baseline, kind) + prior) / (_total(baseline, kind) + settings.usual_weight)
        nats = surprise(count, total, min(usual, 1.0))
        if nats >= settings.surprise:
            shown = [start for start, counts in rows if _count(counts, kind) > 0]
            found.append(Trouble(*context, kind, count, total, usual, nats, shown[0], shown[-1]))
    return found


def _count(counts: Counts, kind: str) -> float:
    if kind == STUCK:
        return max(0.0, counts.started - counts.ended)
    if kind == FAILED:
        return max(counts.failed, counts.violations.get("step.failed", 0.0))
    return counts.violations.get(VIOLATIONS[kind], 0.0)


def _total(counts: Counts, kind: str) -> float:
    if kind == STUCK:
        return max(counts.started, counts.ended)
    if kind == CLOCK:
        return _count(counts, kind)
    return counts.ended + (counts.violations.get("step.missing", 0.0) if kind == MISSING else 0.0)
