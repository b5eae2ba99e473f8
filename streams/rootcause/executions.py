"""Reader E: Bayes factors over what executions contain, per component.

Source: our own study over the Nezha cases (docs), method E. A component's indicators are the events of its contexts and
the grades of its own time and of the edge gap in front of it. For each: how surprising is the change, compared with
normal and with the time before a scanned onset? The component's score is ln mean exp over its indicators.
"""

from bisect import bisect_left
from functools import lru_cache

import numpy as np
from msgspec import Struct

from streams.histogram import bucket_value, quantile
from streams.rootcause.base import Finding, Scene, clock, ordered
from streams.rootcause.bayes import Array, effective, log_mean_exp, only_rises, scan
from streams.rootcause.memory import ComponentMemory, Counts
from streams.rootcause.silence import is_complaint
from streams.units import ERROR

GRADES = 5
OWN, GAP, CPU = "own time", "gap", "CPU"
_TIMES = (OWN, GAP)
WHOLE = ("", "")
"""The context of what is told of a component as a whole."""
_NOTHING = Counts(*WHOLE)
_FADED = 0.5
"""What decay has taken from a few normal units does not make them fewer."""
_TINY = 1.0
"""A millionth of a processor."""


class ExecutionSettings(Struct, frozen=True):
    """The numbers of method E; all but `pool` and the first grade matter little."""

    rho: float = 0.05
    """Units of one period count as at most 1 / rho independent ones."""
    rho_drift: float = 0.1
    """The same for latency compared with another period."""
    pool: float = 10.0
    """Weight of the grade frequencies of all contexts in the prior of "nothing special"."""
    prior_start: float = 0.3
    """Probability that the trouble began before the first remembered window."""
    floor_us: float = 1_000.0
    """Added to both sides of a ratio of times: differences below it do not matter."""
    grades: tuple[float, ...] = (2.0, 3.0, 4.5, 6.0)
    """log2 of the ratio to the normal median at which a grade begins."""
    min_normal_units: float = 3.0
    deviations: tuple[float, ...] = (3.0, 6.0, 12.0, 24.0)
    """Standard deviations above the normal median at which a grade of CPU begins."""
    min_samples: float = 4.0
    """CPU samples that must be known of normal."""


DEFAULTS = ExecutionSettings()


class _Item(Struct):
    """One indicator: class counts per window and in normal."""

    component: str
    step: str
    name: str
    windows: Array
    normal: Array
    rises_only: bool


class ExecutionReader:
    """Compares what executions contain now with normal and with before."""

    name = "executions"

    def __init__(self, settings: ExecutionSettings = DEFAULTS) -> None:
        self._settings = settings

    def read(self, scene: Scene) -> list[Finding]:
        """Return findings with positive scores, strongest first."""
        return [finding for finding in self.weigh(scene) if finding.score > 0]

    def weigh(self, scene: Scene) -> list[Finding]:
        """Return a finding per component about which anything can be said, strongest first; below 0 = it speaks for it."""
        starts = scene.memory.window_starts()
        if not starts:
            return []
        events: list[_Item] = []
        times: list[_Item] = []
        medians = _Medians(scene.memory.components, self._settings)
        for name, memory in sorted(scene.memory.components.items()):
            for key in memory.contexts():
                context = _Context(name, key, memory, starts)
                calls = bool(scene.graph.callees(name))
                events.extend(item for item in context.events() if not _speaks_of_callee(item, calls, scene.silent))
                times.extend(context.times(medians, self._settings))
        times.extend(_processors(scene.memory.components, starts, self._settings))
        return self._score(events, times, starts)

    def _score(self, events: list[_Item], times: list[_Item], starts: list[int]) -> list[Finding]:
        half = np.array([0.5, 0.5])
        scored = list(zip(events, self._factors(events, half, half, self._settings.rho), strict=True))
        flat = np.full(GRADES, 0.5)
        for kind in (OWN, GAP, CPU):
            graded = [item for item in times if item.name == kind]
            scored += zip(graded, self._factors(graded, self._pooled(graded), flat, self._settings.rho_drift), strict=True)
        weights = np.full(len(starts), (1.0 - self._settings.prior_start) / max(1, len(starts) - 1))
        weights[0] = self._settings.prior_start
        per: dict[str, list[tuple[_Item, Array]]] = {}
        for item, factors in scored:
            per.setdefault(item.component, []).append((item, factors))
        return ordered([self._finding(name, items, weights, starts) for name, items in per.items()])

    def _factors(self, items: list[_Item], prior: Array, own_prior: Array, rho_start: float) -> Array:
        if not items:
            return np.zeros((0, 1))
        windows = np.stack([item.windows for item in items])
        normal = np.stack([item.normal for item in items])
        priors = np.broadcast_to(prior, normal.shape)
        factors = scan(windows, normal, priors, own_prior, self._settings.rho, rho_start)
        rises = np.array([item.rises_only for item in items])[:, None]
        result: Array = np.where(rises, only_rises(factors, windows, normal), factors)
        return result

    def _pooled(self, items: list[_Item]) -> Array:
        """Return the prior over grades: what is common among all contexts, now or in normal, is no surprise."""
        pool = np.full(GRADES, 0.2)
        for item in items:
            if item.normal.sum() > self._settings.min_normal_units - _FADED:
                pool = pool + item.normal
            pool = pool + effective(item.windows.sum(0), self._settings.rho)
        result: Array = self._settings.pool * pool / pool.sum() + 1e-4
        return result

    def _finding(
        self, component: str, items: list[tuple[_Item, Array]], weights: Array, starts: list[int]
    ) -> Finding:
        matrix = np.stack([factors for _, factors in items])
        scores = log_mean_exp(matrix, weights)
        best = int(scores.argmax())
        item = items[best][0]
        onset = int((matrix[best] + np.log(weights)).argmax())
        since = starts[onset] if onset else 0
        reason = _sentence(item, onset, since)
        return Finding(component, float(log_mean_exp(scores)), self.name, reason, item.step, since)


class _Medians:
    """Normal medians of own time and gap: of a context, else of its component, else of all.

    One of too few units says nothing: of two, one may well have been odd.
    """

    def __init__(self, components: dict[str, ComponentMemory], settings: ExecutionSettings) -> None:
        self._of: dict[tuple[str, str, str, str], float] = {}
        groups: dict[tuple[str, str], list[float]] = {}
        for name, memory in components.items():
            for (chain, step), counts in memory.normal.items():
                for kind, histogram in ((OWN, counts.own), (GAP, counts.gap)):
                    if sum(histogram.values()) > settings.min_normal_units - _FADED:
                        median = quantile(_whole(histogram), 0.5)
                        self._of[name, chain, step, kind] = median
                        groups.setdefault((name, kind), []).append(median)
                        groups.setdefault(("", kind), []).append(median)
        self._groups = {key: float(np.median(values)) for key, values in groups.items()}

    def of(self, component: str, key: tuple[str, str], kind: str) -> float:
        """Return the best available median; 0 when nothing is known."""
        found = self._of.get((component, *key, kind), self._groups.get((component, kind)))
        return found if found is not None else self._groups.get(("", kind), 0.0)


def _whole(histogram: dict[int, float]) -> dict[int, int]:
    """Return a decayed histogram in thousandths: quantile counts in whole numbers."""
    return {index: round(count * 1000) for index, count in histogram.items() if count >= 0.0005}


class _Context:
    """One context's counts laid out over the recent windows."""

    def __init__(self, component: str, key: tuple[str, str], memory: ComponentMemory, starts: list[int]) -> None:
        self.component, self.key = component, key
        self.normal = memory.normal.get(key, _NOTHING)
        self.windows = [memory.recent.get(start, {}).get(key, _NOTHING) for start in starts]

    def events(self) -> list[_Item]:
        """Return one item per event: present or not; errors count over all units, the rest over clean ones."""
        if not any(counts.units for counts in self.windows):
            return []
        names = sorted({name for counts in (self.normal, *self.windows) for name in counts.indicators})
        return [self._event(name) for name in names]

    def _event(self, name: str) -> _Item:
        error = name.startswith(ERROR)
        rows = np.array([_presence(counts, name, error) for counts in (self.normal, *self.windows)])
        return _Item(self.component, self.key[1], name, rows[1:], rows[0], error)

    def times(self, medians: _Medians, settings: ExecutionSettings) -> list[_Item]:
        """Return the grades of own time and gap."""
        found = []
        for kind in _TIMES:
            histograms = [_times(counts, kind) for counts in self.windows]
            if any(histograms):
                found.append(self._graded(kind, histograms, medians, settings))
        return found

    def _graded(
        self, kind: str, histograms: list[dict[int, float]], medians: _Medians, settings: ExecutionSettings
    ) -> _Item:
        normal = _times(self.normal, kind)
        median = medians.of(self.component, self.key, kind)
        if sum(normal.values()) <= settings.min_normal_units - _FADED and kind == OWN:
            # Too little normal of its own: the first third of what is remembered stands for it.
            normal, median = {}, _early_median(histograms)
        limits = _limits(median, settings)
        rows = np.stack([_grade_counts(histogram, limits) for histogram in (normal, *histograms)])
        return _Item(self.component, self.key[1], kind, rows[1:], rows[0], True)


def _speaks_of_callee(item: _Item, calls: bool, silent: frozenset[str]) -> bool:
    """Return whether an event tells of somebody who did not answer: reader V weighs who that is."""
    if item.name.startswith("call:"):
        return item.name[5:].rpartition("/")[0] in silent
    return calls and is_complaint(item.name)


def _presence(counts: Counts, name: str, error: bool) -> tuple[float, float]:
    total = counts.units if error else counts.clean
    present = min(total, counts.indicators.get(name, 0.0))
    return total - present, present


def _times(counts: Counts, kind: str) -> dict[int, float]:
    return counts.own if kind == OWN else counts.gap


def _processors(components: dict[str, ComponentMemory], starts: list[int], settings: ExecutionSettings) -> list[_Item]:
    """Return the grades of CPU samples: deviations from the normal median, but none finer than half of what others have."""
    normal = {name: counts.cpu for name, memory in components.items() if (counts := memory.normal.get(WHOLE)) and counts.cpu}
    known = {name: _spread(cpu) for name, cpu in normal.items() if sum(cpu.values()) >= settings.min_samples}
    if not known:
        return []
    usual = float(np.median([spread for _, spread in known.values()]))
    items = []
    for name, (median, spread) in sorted(known.items()):
        limits = [median + step * (spread + 0.5 * usual + _TINY) for step in settings.deviations]
        windows = [components[name].recent.get(start, {}).get(WHOLE, _NOTHING).cpu for start in starts]
        if any(windows):
            rows = np.stack([_grade_counts(histogram, limits) for histogram in windows])
            items.append(_Item(name, "", CPU, rows, _grade_counts(normal[name], limits), True))
    return items


def _spread(histogram: dict[int, float]) -> tuple[float, float]:
    """Return the median of a histogram, and the standard deviation by its median absolute deviation."""
    median = quantile(_whole(histogram), 0.5)
    values = np.array([_value(index) for index in histogram])
    order = np.argsort(np.abs(values - median))
    weights = np.cumsum(np.array(list(histogram.values()))[order])
    middle = int(np.searchsorted(weights, weights[-1] / 2))
    return median, 1.4826 * float(np.abs(values - median)[order][middle])


def _early_median(histograms: list[dict[int, float]]) -> float:
    total = sum(sum(histogram.values()) for histogram in histograms)
    early: dict[int, float] = {}
    for histogram in histograms:
        if sum(early.values()) >= max(3.0, total / 3):
            break
        for index, count in histogram.items():
            early[index] = early.get(index, 0.0) + count
    return quantile(_whole(early), 0.5)


def _grade_counts(histogram: dict[int, float], limits: list[float]) -> Array:
    counts = [0.0] * GRADES
    for index, count in histogram.items():
        counts[bisect_left(limits, _value(index))] += count
    return np.array(counts)


def _limits(median: float, settings: ExecutionSettings) -> list[float]:
    """Return the times at which the grades begin for a normal median."""
    return [(median + settings.floor_us) * 2.0**grade - settings.floor_us for grade in settings.grades]


_value = lru_cache(maxsize=1024)(bucket_value)


def _sentence(item: _Item, onset: int, since: int) -> str:
    later = item.windows[onset:].sum(0)
    total = later.sum()
    when = f"since {clock(since)}" if onset else "in all that is remembered"
    place = f"{item.component}/{item.step}"
    if item.name == CPU:
        return f"{item.component}: CPU far above its normal median in {later[1:].sum():.0f} of {total:.0f} samples {when}"
    if len(later) == GRADES:
        slow = later[1:].sum()
        return f"{place}: {item.name} at least 4 times the normal median in {slow:.0f} of {total:.0f} executions {when}"
    usual = _usual(item)
    what = item.name.removeprefix(ERROR)
    if item.rises_only or later[1] / max(total, 1) >= usual[0]:
        return f"{place}: {what} in {later[1]:.0f} of {total:.0f} executions {when}, {usual[1]}"
    return f"{place}: {what} missing in {later[0]:.0f} of {total:.0f} executions {when}, {usual[1]}"


def _usual(item: _Item) -> tuple[float, str]:
    total = item.normal.sum()
    if total < 1:
        return 0.5, "nothing is known of normal"
    share = float(item.normal[1] / total)
    if item.normal[1] < 0.5:
        return share, "never in normal"
    return share, f"{100 * share:.1f} % in normal"
