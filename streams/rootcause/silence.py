"""Who does not answer: components without a sign of life, and those that their callers complain of."""

import re
from collections.abc import Sequence
from math import log

from msgspec import Struct

from streams.rootcause.base import Scene
from streams.rootcause.memory import Counts
from streams.rootcause.troubles import (
    DEFAULTS,
    FAILED,
    MISSING,
    STUCK,
    FaultSettings,
    troubles,
)
from streams.units import ERROR

_NO_ANSWER = re.compile(r"connect|timeout|timed ?out|unavailable|unreachable|refused|reset|deadline|50[234]", re.IGNORECASE)


class Silence(Struct, frozen=True):
    """A component without a sign of life."""

    component: str
    expected: float
    since_us: int
    seen: float = 0.0


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
    graph = scene.graph
    if any(_done(scene, caller, last, "ended") for caller in graph.callers(name)):
        return True
    edges = [edge for edge in graph.incoming(name, "flow", "topic") if edge.source != name]
    return any(_done(scene, edge.source, last, "completed", edge.chains) for edge in edges)


def _done(scene: Scene, name: str, last: int, what: str, chains: Sequence[str] = ()) -> bool:
    """Return whether a component ended, or completed, a step from `last` on; in some chains if given."""
    memory = scene.memory.components.get(name)
    return any(
        getattr(counts, what) > 0
        for start, window in (memory.recent.items() if memory else ())
        if start >= last
        for counts in window.values()
        if not chains or counts.chain in chains
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


def unanswering(scene: Scene, settings: FaultSettings = DEFAULTS) -> dict[str, tuple[Silence, float]]:
    """Return the components that do not answer, with the share of those who complain that complain of them.

    Who fails before it calls somebody makes him silent, too. So among the callees of failing callers only those count
    whose callers say that nobody answered; and such callers count at once, before a whole window is silent, if clearly
    fewer events came from the callee than its callers' work would have brought.
    """
    found = troubles(scene, settings)
    failing = {item.component for item in found if item.kind == FAILED and item.component}
    blaming = {name for name in failing if _blames_callee(scene, name, settings) >= 0.5}
    since = min((item.since_us for item in found if item.component in blaming), default=scene.memory.newest_us)
    broken = {item.component for item in found if item.kind in (FAILED, MISSING, STUCK)}
    quiet = {silence.component: silence for silence in silences(scene, settings)}
    for name in sorted({callee for caller in blaming for callee in scene.graph.callees(caller)} - quiet.keys() - blaming):
        lack = _lack(scene, name, since, settings)
        if lack is not None:
            quiet[name] = lack
    result = {}
    for name, silence in quiet.items():
        callers = set(scene.graph.callers(name)) - {name}
        if callers & blaming:
            result[name] = (silence, len(callers & blaming) / len(blaming))
        elif callers - failing or not (callers or broken & set(scene.graph.predecessors(name))):
            result[name] = (silence, 1.0)
    return result


def _lack(scene: Scene, name: str, since: int, settings: FaultSettings) -> Silence | None:
    """Return a component from which clearly fewer events came since then than from those who call it."""
    window = scene.memory.settings.window_us
    before = scene.memory.newest_us - settings.windows * window
    callers = scene.graph.callers(name)
    work = sum(_usual_events(scene, caller, min(before, since)) for caller in callers)
    if work <= 0:
        return None
    done = sum(_begun(scene, caller, since) for caller in callers)
    expected = _usual_events(scene, name, min(before, since)) * done / work
    seen = _begun(scene, name, since)
    unlikely = expected - seen + seen * log(seen / expected) if 0 < seen < expected else expected - seen
    if unlikely < settings.min_expected_events or seen > settings.answered_share * expected:
        return None
    return Silence(name, expected, since, seen)


def _begun(scene: Scene, name: str, since: int) -> float:
    memory = scene.memory.components.get(name)
    return sum(_events(memory.recent, start) for start in memory.recent if start >= since) if memory else 0.0
