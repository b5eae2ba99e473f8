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
    feeders = [(source, chains) for source, chains in graph.feeders(name) if source != name]
    if not feeders and not [caller for caller in graph.callers(name) if caller != name]:
        return True  # where chains begin, nobody has to hand over anything
    return any(_done(scene, source, last, "completed", chains) for source, chains in feeders)


def others_work(scene: Scene, name: str, *starts: int) -> bool:
    """Return whether some component that does not depend on this one worked in one of the windows that start then.

    Where none does, traffic has ended: that is nobody's silence in particular. "" stands for whole chains.
    """
    memories = scene.memory.components
    working = {other for other in memories if other and any(_events(memories[other].recent, start) for start in starts)}
    return bool(working - scene.graph.hurt_with(name))


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


def is_complaint(indicator: str) -> bool:
    """Return whether an error's type says that somebody did not answer."""
    return indicator.startswith(ERROR + "step ") and _NO_ANSWER.search(indicator.rpartition(" with ")[2]) is not None


def complaints(scene: Scene, name: str, settings: FaultSettings) -> float | None:
    """Return how many of a component's newest errors say that somebody did not answer; 0 if it is less than half.

    None: it has failed, but no execution that tells why is finished yet.
    """
    first = scene.memory.newest_us - (settings.windows - 1) * scene.memory.settings.window_us
    total = blamed = 0.0
    memory = scene.memory.components.get(name)
    for start, window in memory.recent.items() if memory else ():
        for counts in window.values() if start >= first else ():
            for indicator, count in counts.indicators.items():
                if indicator.startswith(ERROR + "step "):
                    total += count
                    blamed += count if is_complaint(indicator) else 0.0
    if not total:
        return None
    return blamed if blamed >= 0.5 * total else 0.0


class Unanswered(Struct, frozen=True):
    """Who does not answer, with the share of those who complain that complain of them; and who may be meant."""

    silent: dict[str, tuple[Silence, float]]
    possible: dict[str, list[str]]
    """Caller that complains -> its callees, while too few events have come to tell which of them is meant."""


def unanswering(scene: Scene, settings: FaultSettings = DEFAULTS) -> Unanswered:
    """Return the components that do not answer.

    Who fails before it calls somebody makes him silent, too. So among the callees of failing callers only those count
    whose callers say that nobody answered; and such callers count at once, before a whole window is silent, if clearly
    fewer events came from the callee than its callers' work would have brought.
    """
    found = troubles(scene, settings)
    failing = {item.component for item in found if item.kind == FAILED and item.component}
    heard = {name: complaints(scene, name, settings) for name in sorted(failing)}
    untold = {name for name in failing if heard[name] is None and not failing & set(scene.graph.callees(name))}
    counts = {name: count or 0.0 for name, count in heard.items()}
    blaming = {name for name in failing if counts[name] > 0} | untold
    since = min((item.since_us for item in found if item.component in blaming), default=scene.memory.newest_us)
    quiet = {silence.component: silence for silence in silences(scene, settings)}
    unsure: set[str] = set()
    for name in sorted({callee for caller in blaming for callee in scene.graph.callees(caller)} - quiet.keys() - blaming):
        expected, seen = _expectation(scene, name, since, settings)
        if _lacks(expected, seen, settings):
            quiet[name] = Silence(name, expected, since, seen)
        elif sum(counts[caller] for caller in blaming & set(scene.graph.callers(name))) < 3 * expected**0.5:
            unsure.add(name)
    silent = _attribute(scene, quiet, blaming, failing, {t.component for t in found if t.kind in (FAILED, MISSING, STUCK)})
    answered = {caller for caller in blaming if silent.keys() & set(scene.graph.callees(caller))}
    possible = {c: [n for n in scene.graph.callees(c) if n in unsure] for c in sorted(blaming - answered)}
    return Unanswered(silent, possible)


def _attribute(
    scene: Scene, quiet: dict[str, Silence], blaming: set[str], failing: set[str], broken: set[str]
) -> dict[str, tuple[Silence, float]]:
    """Return the silences that callers complain of, by how many of them do, and those that nobody excuses."""
    result = {}
    for name, silence in quiet.items():
        callers = set(scene.graph.callers(name)) - {name}
        if callers & blaming:
            result[name] = (silence, len(callers & blaming) / len(blaming))
        elif callers - failing or not (callers or broken & set(scene.graph.predecessors(name))):
            result[name] = (silence, 1.0)
    return result


def _expectation(scene: Scene, name: str, since: int, settings: FaultSettings) -> tuple[float, float]:
    """Return how many events a component's callers' work would have brought since then, and how many came."""
    before = min(since, scene.memory.newest_us - settings.windows * scene.memory.settings.window_us)
    callers = scene.graph.callers(name)
    work = sum(_usual_events(scene, caller, before) for caller in callers)
    done = sum(_begun(scene, caller, since) for caller in callers)
    expected = _usual_events(scene, name, before) * done / work if work > 0 else 0.0
    return expected, _begun(scene, name, since)


def _lacks(expected: float, seen: float, settings: FaultSettings) -> bool:
    """Return whether clearly fewer events came than expected (Poisson, Chernoff's bound)."""
    if seen > settings.answered_share * expected:
        return False
    unlikely = expected - seen + (seen * log(seen / expected) if seen else 0.0)
    return unlikely >= settings.min_expected_events


def _begun(scene: Scene, name: str, since: int) -> float:
    memory = scene.memory.components.get(name)
    return sum(_events(memory.recent, start) for start in memory.recent if start >= since) if memory else 0.0
