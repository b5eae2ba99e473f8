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
from streams.rootcause.memory import ComponentMemory, Memory

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


def lowest(values: Array) -> float:
    """Return what counts as undamaged: the mean of the two lowest values."""
    return float(np.mean(np.sort(values)[:2]))


def rise(values: Array) -> float:
    """Return by how much values (no nan among them) rise above their lowest; 0 where there are fewer than three."""
    return float(values.max()) - lowest(values) if len(values) > 2 else 0.0


def damage(requests: Array, values: Array) -> Array:
    """Return damage per window; windows without a value (nan) do no damage."""
    known = ~(np.isnan(values) | np.isnan(requests))
    if not known.any():
        return np.zeros_like(requests)
    result: Array = np.where(known, requests * (values - lowest(values[known])), 0.0)
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


def window_shares(scene: Scene, target: str, metric: str) -> dict[str, float]:
    """Return `shares` over the windows that are over, whoever is hurt and however little the target rises."""
    return _ranked(scene, target, _all_series(scene.memory, _closed(scene.memory), metric))


def _ranked(scene: Scene, target: str, series: Mapping[str, tuple[Array, Array]]) -> dict[str, float]:
    """Return `shares` from (requests, values) per component."""
    return shares(target, {name: damage(*pair) for name, pair in series.items()}, scene.graph.callees)


class WindowReader:
    """Applies `shares` to the damage of the hurt component that is furthest up."""

    name = "windows"

    def __init__(self, settings: WindowSettings = DEFAULTS) -> None:
        self._settings = settings

    def read(self, scene: Scene) -> list[Finding]:
        """Return findings for the stronger of latency and failures."""
        starts = _closed(scene.memory)
        if len(starts) < self._settings.min_windows:
            return []
        best: dict[str, Finding] = {}
        for metric in (LATENCY, FAILURES):
            series = _all_series(scene.memory, starts, metric)
            for target in _targets(scene):
                if target in series and self._rises(metric, series[target][1]):
                    for finding in self._findings(target, metric, _ranked(scene, target, series)):
                        known = best.get(finding.component)
                        if known is None or finding.score > known.score:
                            best[finding.component] = finding
        return ordered(list(best.values()))

    def _rises(self, metric: str, series: Array) -> bool:
        values = series[~np.isnan(series)]
        if len(values) < self._settings.min_windows:
            return False
        return rise(values) > (self._settings.min_rise * lowest(values) if metric == LATENCY else 0.01)

    def _findings(self, target: str, metric: str, found: dict[str, float]) -> list[Finding]:
        return [
            Finding(name, self._settings.nats * min(1.0, share), self.name, _sentence(name, target, metric, share))
            for name, share in sorted(found.items())
            if share >= self._settings.min_share
        ]


def _targets(scene: Scene) -> list[str]:
    """Return the hurt components that no other hurt component calls."""
    hurt = set(scene.hurt)
    return [name for name in scene.hurt if not (hurt - {name}) & set(scene.graph.callers(name))]


def _closed(memory: Memory) -> list[int]:
    """Return the starts of the windows that are over: all but the newest."""
    return memory.window_starts()[:-1]


def _all_series(memory: Memory, starts: list[int], metric: str) -> dict[str, tuple[Array, Array]]:
    return {name: _series(part, starts, metric) for name, part in memory.components.items() if name}


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
