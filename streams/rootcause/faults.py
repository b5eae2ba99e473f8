"""Reader V: broken promises, charged to the deepest component that they can have begun in.

Counts of failed, slow and missing steps per context are compared with their usual rate (Chernoff's bound on the binomial
tail: n KL(k/n || p)). Then what another component explains is taken off: a caller that fails or is slow with its callee, a
step that never came because the one before it failed, hangs, or never came itself. A component that shows no sign of life,
although those before it do, explains all of these.
"""

import re
from math import log

from msgspec import Struct

from streams.rootcause.base import Finding, Scene, clock, ordered
from streams.rootcause.memory import Context, Counts
from streams.units import ERROR

FAILED, SLOW, MISSING, STUCK, SILENT = "failed", "slow", "missing", "stuck", "silent"
VIOLATIONS = {FAILED: "step.failed", SLOW: "step.slow", MISSING: "step.missing"}
_WAITS = frozenset((FAILED, SLOW, STUCK, SILENT))
"""What a caller can suffer from in its callee."""
_UPSTREAM = frozenset((FAILED, MISSING, STUCK, SILENT))
"""What makes the next step of a flow not come."""


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
    surprise: float = 13.0
    """Nats that the count must be beyond its usual rate: one chance in 440,000 per look, if steps were independent."""
    usual_ratio: float = 0.01
    """Expected before anything is known, worth `usual_weight` cases."""
    usual_weight: float = 50.0
    min_expected_events: float = 8.0
    """Silence counts where so many events would have come."""
    cap: float = 20.0


DEFAULTS = FaultSettings()


_NO_ANSWER = re.compile(r"connect|timeout|timed ?out|unavailable|unreachable|refused|reset|deadline|50[234]", re.IGNORECASE)


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
            found.extend(_judge(context, rows, _baseline(scene, context, first), settings))
    return found


def _is_suspicious(counts: Counts) -> bool:
    return bool(counts.violations) or counts.failed > 0 or counts.started > counts.ended


def _baseline(scene: Scene, context: Context, first_us: int) -> Counts:
    """Return normal plus the healthy recent windows before those looked at."""
    memory = scene.memory.components[context[2]]
    total = Counts(*context[:2])
    if context[:2] in memory.normal:
        total.fold(memory.normal[context[:2]], 1.0)
    for start in sorted(memory.recent):
        if start < first_us and context[:2] in memory.recent[start] and not scene.ill(context, start):
            total.fold(memory.recent[start][context[:2]], 1.0)
    return total


def _judge(
    context: Context, rows: list[tuple[int, Counts]], baseline: Counts, settings: FaultSettings
) -> list[Trouble]:
    found = []
    limits = {
        FAILED: (settings.min_failed, settings.min_failed_ratio),
        SLOW: (settings.min_slow, settings.min_slow_ratio),
        MISSING: (settings.min_missing, settings.min_missing_ratio),
        STUCK: (settings.min_failed, 0.5),
    }
    for kind, (least, ratio) in limits.items():
        count = sum(_count(counts, kind) for _, counts in rows)
        total = sum(_total(counts, kind) for _, counts in rows)
        if count < least or count <= ratio * total:
            continue
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
    return counts.ended + (counts.violations.get("step.missing", 0.0) if kind == MISSING else 0.0)


class Silence(Struct, frozen=True):
    """A component without a sign of life."""

    component: str
    expected: float
    since_us: int


def silences(scene: Scene, settings: FaultSettings = DEFAULTS) -> list[Silence]:
    """Return components without events in the newest full window, where many were usual and those before them live."""
    memory = scene.memory
    window = memory.settings.window_us
    last = memory.newest_us - window
    found = {}
    for name in sorted(memory.components):
        recent = memory.components[name].recent
        if name and not any(_events(recent, start) for start in (last, memory.newest_us)):
            expected = _usual_events(scene, name, last)
            if expected >= settings.min_expected_events:
                alive = [start for start in recent if _events(recent, start)]
                found[name] = Silence(name, expected, max(alive) + window if alive else 0)
    return [silence for name, silence in found.items() if _is_fed(scene, name, last)]


def _events(recent: dict[int, dict[tuple[str, str], Counts]], start: int) -> float:
    """Return events, less those that only say that something is missing."""
    return sum(counts.started + counts.ended for counts in recent.get(start, {}).values())


def _usual_events(scene: Scene, name: str, last: int) -> float:
    """Return events per window before; 0 for a component that is often silent, such as a batch job."""
    memory, window = scene.memory.components[name], scene.memory.settings.window_us
    alive = sorted(start for start in memory.recent if start < last and _events(memory.recent, start))
    if len(alive) >= 3:
        spanned = (alive[-1] - alive[0]) // window + 1
        total = sum(_events(memory.recent, start) for start in alive)
        return total / spanned if len(alive) >= 0.9 * spanned else 0.0
    return sum((n.started + n.ended) / n.windows for n in memory.normal.values() if n.windows)


def _is_fed(scene: Scene, name: str, last: int) -> bool:
    """Return whether something that hands work to a component does so: else its silence is not its own.

    A caller may be failing because of the silence; a step before it in a flow hands on only what it completes.
    """
    return any(_done(scene, feeder, last, "ended") for feeder in scene.graph.callers(name)) or any(
        _done(scene, feeder, last, "completed") for feeder in scene.graph.predecessors(name)
    )


def _done(scene: Scene, name: str, last: int, what: str) -> bool:
    memory = scene.memory.components.get(name)
    starts = (last, scene.memory.newest_us)
    return memory is not None and any(
        getattr(counts, what) for start in starts for counts in memory.recent.get(start, {}).values()
    )


def _blames_callee(scene: Scene, name: str, settings: FaultSettings) -> float:
    """Return the share of a component's own errors whose type says that somebody did not answer."""
    first = scene.memory.newest_us - (settings.windows - 1) * scene.memory.settings.window_us
    total = blamed = 0.0
    memory = scene.memory.components.get(name)
    for start, window in memory.recent.items() if memory else ():
        for counts in window.values() if start >= first else ():
            for indicator, count in counts.indicators.items():
                if indicator.startswith(ERROR + "step "):
                    total += count
                    blamed += count if _NO_ANSWER.search(indicator.rpartition(" with ")[2]) else 0.0
    return blamed / total if total else 0.0


class FaultReader:
    """Charges broken promises to where they can have begun."""

    name = "faults"

    def __init__(self, settings: FaultSettings = DEFAULTS) -> None:
        self._settings = settings

    def read(self, scene: Scene) -> list[Finding]:
        """Return findings: unexplained trouble and silence in full, explained trouble with what remains of it.

        A negative score excuses a component from what other readers hold against it: its callee does not answer.
        """
        found = troubles(scene, self._settings)
        by_component: dict[str, list[Trouble]] = {}
        for trouble in found:
            if trouble.component:
                by_component.setdefault(trouble.component, []).append(trouble)
        kinds = {name: {trouble.kind for trouble in items} for name, items in by_component.items()}
        silent = self._silences(scene, kinds)
        for silence, _ in silent:
            kinds.setdefault(silence.component, set()).add(SILENT)
        findings = {silence.component: self._silent(silence, share) for silence, share in silent}
        for name, items in by_component.items():
            if name not in findings:
                findings[name] = self._strongest(scene, items, by_component, kinds)
        return ordered(list(findings.values()))

    def _silences(self, scene: Scene, kinds: dict[str, set[str]]) -> list[tuple[Silence, float]]:
        """Return the silent components that failing callers blame, or that nobody excuses, with the share they explain.

        Who fails before it calls somebody makes him silent, too. So a silent callee of failing callers counts only if
        these say that somebody did not answer, and by how many of them are its callers.
        """
        failing = {name for name, found in kinds.items() if FAILED in found}
        blaming = {name for name in failing if _blames_callee(scene, name, self._settings) >= 0.5}
        found = []
        for silence in silences(scene, self._settings):
            callers = set(scene.graph.callers(silence.component))
            if callers & blaming:
                found.append((silence, len(callers & blaming) / len(blaming)))
            elif not callers or callers - failing:
                found.append((silence, 1.0))
        return found

    def _silent(self, silence: Silence, share: float) -> Finding:
        usually = f"usually {silence.expected:.0f} events per window"
        reason = f"{silence.component}: no sign of life since {clock(silence.since_us)}, {usually}"
        return Finding(silence.component, self._settings.cap * share, self.name, reason, "", silence.since_us)

    def _strongest(
        self, scene: Scene, items: list[Trouble], others: dict[str, list[Trouble]], kinds: dict[str, set[str]]
    ) -> Finding:
        scored = [(self._charge(scene, item, others, kinds), item) for item in items]
        score, item = max(scored, key=lambda pair: (pair[0], pair[1].surprise, pair[1].step))
        if score <= 0 and any(SILENT in kinds.get(name, ()) for name in scene.graph.callees(item.component)):
            score = -self._settings.cap
        return Finding(item.component, score, self.name, _sentence(scene, item), item.step, item.since_us)

    def _charge(
        self, scene: Scene, item: Trouble, others: dict[str, list[Trouble]], kinds: dict[str, set[str]]
    ) -> float:
        score = min(self._settings.cap, item.surprise)
        explained = 0.0
        for name, harmful in _explainers(scene, item):
            if kinds.get(name, set()) & harmful:
                counts = [other.count for other in others.get(name, []) if other.kind in harmful]
                explained += sum(counts) if counts else item.count
        return score * max(0.0, 1.0 - explained / item.count)


def _explainers(scene: Scene, item: Trouble) -> list[tuple[str, frozenset[str]]]:
    """Return the components that can have made a trouble, with the kinds of trouble that would."""
    graph = scene.graph
    found = [(name, _WAITS) for name in graph.callees(item.component) if name != item.component]
    if item.kind in (MISSING, FAILED):
        before = [name for name in graph.predecessors(item.component, item.chain) if name != item.component]
        found += [(name, _UPSTREAM) for name in before if item.kind == MISSING]
    if item.kind == MISSING:
        found += [(name, _UPSTREAM) for name in graph.callers(item.component) if name != item.component]
    return found


def _sentence(scene: Scene, item: Trouble) -> str:
    place = f"{item.component}/{item.step}"
    when = f"since {clock(item.since_us)}, usually {100 * item.usual:.2g} %"
    if item.kind == MISSING:
        before = ", ".join(scene.graph.predecessors(item.component, item.chain)[:3])
        after = f" after {before}" if before else ""
        return f"{place}: never came{after} in {item.count:.0f} of {item.total:.0f} executions {when}"
    if item.kind == STUCK:
        return f"{place}: {item.count:.0f} of {item.total:.0f} begun never ended {when}"
    return f"{place}: {item.kind} in {item.count:.0f} of {item.total:.0f} executions {when}"
