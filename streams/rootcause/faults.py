"""Reader V: broken promises, charged to the deepest component that they can have begun in.

What another component explains is taken off a trouble: a caller that fails or is slow with its callee, a step that never
came because the one before it failed, hangs, or never came itself. A component that does not answer, although those before
it work, explains all of these.
"""

from streams.rootcause.base import Finding, Scene, clock, ordered
from streams.rootcause.silence import Silence, unanswering
from streams.rootcause.troubles import (
    CLOCK,
    DEFAULTS,
    FAILED,
    MISSING,
    SILENT,
    SLOW,
    STUCK,
    FaultSettings,
    Trouble,
    troubles,
)

_WAITS = frozenset((FAILED, SLOW, STUCK, SILENT))
"""What a caller can suffer from in its callee."""
_UPSTREAM = frozenset((FAILED, MISSING, STUCK, SILENT))
"""What makes the next step of a flow not come."""


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
        unanswered = unanswering(scene, self._settings)
        silent = unanswered.silent
        for name in silent:
            kinds.setdefault(name, set()).add(SILENT)
        findings = {name: self._silent(silence, share) for name, (silence, share) in silent.items()}
        for name, items in by_component.items():
            if name not in findings:
                findings[name] = self._strongest(scene, items, by_component, kinds)
        for caller, callees in unanswered.possible.items():
            for name in callees:
                findings.setdefault(name, self._possible(findings[caller], name))
        return ordered(list(findings.values()))

    def _silent(self, silence: Silence, share: float) -> Finding:
        seen = f"{silence.seen:.0f} events" if silence.seen else "no sign of life"
        since = f"since {clock(silence.since_us)}" if silence.since_us else "for as long as is remembered"
        reason = f"{silence.component}: {seen} {since}, about {silence.expected:.0f} expected"
        return Finding(silence.component, self._settings.cap * share, self.name, reason, "", silence.since_us)

    def _possible(self, complaint: Finding, name: str) -> Finding:
        reason = f"{name}: {complaint.component} calls it and says that somebody does not answer"
        return Finding(name, 0.95 * complaint.score, self.name, reason, "", complaint.since_us)

    def _strongest(
        self, scene: Scene, items: list[Trouble], others: dict[str, list[Trouble]], kinds: dict[str, set[str]]
    ) -> Finding:
        scored = [(self._charge(scene, item, others, kinds), item) for item in items]
        score, item = max(scored, key=lambda pair: (pair[0], pair[1].surprise, pair[1].step))
        if score <= 0 and any(SILENT in kinds.get(name, ()) for name in scene.graph.callees(item.component)):
            score = -2 * self._settings.cap
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
    if item.kind == CLOCK:
        return f"{item.component}: {item.count:.0f} events dated into the future since {clock(item.since_us)}"
    place = f"{item.component}/{item.step}"
    when = f"since {clock(item.since_us)}, usually {100 * item.usual:.2g} %"
    if item.kind == MISSING:
        before = ", ".join(scene.graph.predecessors(item.component, item.chain)[:3])
        after = f" after {before}" if before else ""
        return f"{place}: never came{after} in {item.count:.0f} of {item.total:.0f} executions {when}"
    if item.kind == STUCK:
        return f"{place}: {item.count:.0f} of {item.total:.0f} begun never ended {when}"
    return f"{place}: {item.kind} in {item.count:.0f} of {item.total:.0f} executions {when}"
