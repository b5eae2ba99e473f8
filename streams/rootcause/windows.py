"""Reader W: the share of a target's damage that originates in each component, from windows alone.

Source: our own study over the PetShop cases (docs), method W. Damage x_c(t) = requests * (value - v0), v0 = mean of the two
lowest windows. b_c = cov(x_c, x_T) / var(x_T); own_c = b_c - sum of max(0, b_d) over the callees d; score = own_c * r_c^2.
No thresholds, no baseline, immune to drift and to constant series; it needs a change inside the windows.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from msgspec import Struct

from streams.rootcause.base import Finding, Scene, ordered
from streams.rootcause.bayes import Array
from streams.rootcause.memory import ComponentMemory

LATENCY, FAILURES = "latency", "failures"


class WindowSettings(Struct, frozen=True):
    """What a share of the damage is worth beside the other readers."""

    nats: float = 8.0
    """For a share of 1."""
    min_share: float = 0.2
    min_windows: int = 4
    min_rise: float = 0.5
    """The target's value must rise by this share of its lowest level (failures: by 1 % of the requests)."""


DEFAULTS = WindowSettings()


def damage(requests: Array, values: Array) -> Array:
    """Return damage per window; windows without a value (nan) do no damage."""
    known = ~(np.isnan(values) | np.isnan(requests))
    if not known.any():
        return np.zeros_like(requests)
    lowest = float(np.mean(np.sort(values[known])[:2]))
    result: Array = np.where(known, requests * (values - lowest), 0.0)
    return result


def shares(target: str, damages: Mapping[str, Array], callees: Callable[[str], Iterable[str]]) -> dict[str, float]:
    """Return the share of the target's damage that originates in each component that it reaches by calls."""
    reached = {name: damages[name] - damages[name].mean() for name in _reach(target, callees) if name in damages}
    own = reached.get(target)
    if own is None or not (variance := float(own @ own)) > 0:
        return {}
    slopes = {name: float(x @ own) / variance for name, x in reached.items()}
    spread = {name: float(x @ x) for name, x in reached.items()}
    result = {}
    for name, slope in slopes.items():
        below = sum(max(0.0, slopes.get(callee, 0.0)) for callee in callees(name) if callee != name)
        fit = max(0.0, slope) ** 2 * variance / spread[name] if spread[name] > 0 else 0.0
        result[name] = (slope - below) * fit
    return result


def _reach(target: str, callees: Callable[[str], Iterable[str]]) -> list[str]:
    found, todo = {target: None}, [target]
    while todo:
        for name in callees(todo.pop()):
            if name not in found:
                found[name] = None
                todo.append(name)
    return list(found)


class WindowReader:
    """Applies `shares` to the damage of the hurt component that is furthest up."""

    name = "windows"

    def __init__(self, settings: WindowSettings = DEFAULTS) -> None:
        self._settings = settings

    def read(self, scene: Scene) -> list[Finding]:
        """Return findings for the stronger of latency and failures."""
        starts = scene.memory.window_starts()[:-1]
        if len(starts) < self._settings.min_windows:
            return []
        best: dict[str, Finding] = {}
        for metric in (LATENCY, FAILURES):
            series = {name: _series(memory, starts, metric) for name, memory in scene.memory.components.items() if name}
            for target in _targets(scene):
                if target in series and self._rises(metric, series[target]):
                    for finding in self._shares(scene, target, metric, series):
                        known = best.get(finding.component)
                        if known is None or finding.score > known.score:
                            best[finding.component] = finding
        return ordered(list(best.values()))

    def _rises(self, metric: str, series: tuple[Array, Array]) -> bool:
        values = series[1][~np.isnan(series[1])]
        if len(values) < self._settings.min_windows:
            return False
        lowest = float(np.mean(np.sort(values)[:2]))
        least = self._settings.min_rise * lowest if metric == LATENCY else 0.01
        return float(values.max()) - lowest > least

    def _shares(
        self, scene: Scene, target: str, metric: str, series: dict[str, tuple[Array, Array]]
    ) -> list[Finding]:
        damages = {name: damage(*pair) for name, pair in series.items()}
        found = shares(target, damages, scene.graph.callees)
        return [
            Finding(name, self._settings.nats * min(1.0, share), self.name, _sentence(name, target, metric, share))
            for name, share in sorted(found.items())
            if share >= self._settings.min_share
        ]


def _targets(scene: Scene) -> list[str]:
    """Return the hurt components that no other hurt component calls."""
    hurt = set(scene.hurt)
    return [name for name in scene.hurt if not (hurt - {name}) & set(scene.graph.callers(name))]


def _series(memory: ComponentMemory, starts: list[int], metric: str) -> tuple[Array, Array]:
    """Return requests and mean value per window over the contexts of a component (those that units begin in)."""
    entries = {key for window in memory.recent.values() for key, counts in window.items() if counts.units}
    requests, values = np.zeros(len(starts)), np.full(len(starts), np.nan)
    for index, start in enumerate(starts):
        window = memory.recent.get(start, {})
        rows = [counts for key, counts in window.items() if key in entries or not entries]
        ended = sum(counts.ended for counts in rows)
        if ended:
            total = sum(c.duration_sum_us for c in rows) if metric == LATENCY else sum(c.failed for c in rows)
            requests[index], values[index] = ended, total / ended
    return requests, values


def _sentence(name: str, target: str, metric: str, share: float) -> str:
    what = "added waiting time" if metric == LATENCY else "failures"
    return f"{name}: {100 * min(1.0, share):.0f} % of the {what} of {target} moves with it and with nothing that it calls"
