"""Statistical detectors: distance from the level (robust z), chance of a count of failures (rates)."""

from collections import deque
from collections.abc import Callable
from math import asin, isnan, lgamma, log, sin, sqrt
from typing import TypeAlias

from streams.detectors.base import (
    COUNT,
    MAX_SURPRISE,
    Detector,
    Features,
    Finding,
    State,
    known,
    t_surprise,
    usable,
)

Noise: TypeAlias = Callable[[str, Features], float]
"""(feature, x) -> standard deviation that is normal for this feature whatever was seen: the floor of every
spread.
"""

MIN_SEEN = 8
"""Values of a feature before a spread means anything."""


def no_noise(name: str, x: Features) -> float:
    """Return the floor for values that have none."""
    return 0.0


class Level:
    """Exponentially weighted mean and variance of one value; an outlier moves them by at most `CLIP` spreads.

    Source: Finch, "Incremental calculation of weighted mean and variance" (2009), plus winsorising as in
    robust control charts. The first 1/rate values weigh equally.
    """

    CLIP = 3.0
    __slots__ = ("count", "mean", "variance")

    def __init__(self, count: int = 0, mean: float = 0.0, variance: float = 0.0) -> None:
        self.count, self.mean, self.variance = count, mean, variance

    def spread(self, floor: float) -> float:
        """Return the standard deviation, at least a floor, at least what rounding of the mean can fake."""
        return sqrt(max(self.variance, floor * floor)) + 1e-9 * abs(self.mean) + 1e-12

    def learn(self, value: float, rate: float, floor: float) -> None:
        """Move towards `value`."""
        step = value - self.mean
        if self.count >= MIN_SEEN:
            limit = self.CLIP * self.spread(floor)
            step = max(-limit, min(limit, step))
        self.count += 1
        weight = max(rate, 1 / self.count)
        self.mean += weight * step
        self.variance = (1 - weight) * (self.variance + weight * step * step)

    def surprise(self, value: float, rate: float, floor: float) -> float:
        """Return -log10 p of a value this far from the mean, 0 while too few were seen."""
        if self.count < MIN_SEEN:
            return 0.0
        freedom = min(self.count - 1.0, 1 / rate)
        return t_surprise((value - self.mean) / self.spread(floor), freedom)


class RobustZ(Detector):
    """Distance of each feature from its recent level, in recent spreads, read as Student's t.

    It forgets in about 1/rate windows, so an incident that repeats is as surprising as the first one.
    """

    def __init__(self, rate: float = 0.03, noise: Noise = no_noise) -> None:
        self.rate, self.noise = rate, noise
        self._levels: dict[str, Level] = {}

    def explain_one(self, x: Features) -> list[Finding]:
        """See Detector."""
        return [
            Finding(name, level.surprise(value, self.rate, self.noise(name, x)), level.mean)
            for name, value in usable(x)
            if (level := self._levels.get(name)) and level.count >= MIN_SEEN
        ]

    def learn_one(self, x: Features) -> None:
        """See Detector."""
        for name, value in usable(x):
            if level := known(self._levels, name, Level):
                level.learn(value, self.rate, self.noise(name, x))

    def save(self) -> State:
        """See Detector."""
        return [[name, level.count, level.mean, level.variance] for name, level in self._levels.items()]

    def load(self, state: State) -> None:
        """See Detector."""
        self._levels = {name: Level(count, mean, variance) for name, count, mean, variance in state}


def tail_surprise(hits: int, trials: int, a: float, b: float) -> float:
    """Return -log10 P(at least `hits` of `trials`) under the beta-binomial with parameters a and b; 0 below
    its mean.
    """
    if hits <= trials * a / (a + b):
        return 0.0
    term, total = 1.0, 1.0
    for k in range(hits, min(trials, hits + 2000)):
        term *= (trials - k) / (k + 1) * (a + k) / (b + trials - k - 1)
        total += term
        if term < 1e-9 * total:
            break
    return min(max(0.0, -(_log_mass(hits, trials, a, b) + log(total)) / log(10)), MAX_SURPRISE)


def _log_mass(k: int, n: int, a: float, b: float) -> float:
    choose = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
    return (
        choose
        + lgamma(k + a)
        + lgamma(n - k + b)
        - lgamma(n + a + b)
        - (lgamma(a) + lgamma(b) - lgamma(a + b))
    )


class Rates(Detector):
    """Exact tail of a count of bad ones among `x["count"]`, given the counts so far: right for 3 and for
    3,000 events.

    Bayesian predictive of a binomial with a Beta(0.5, 50) prior (as if 50 events with 1 % bad had been seen);
    evidence is capped at `memory` events, which also allows for rates that wander by themselves. Judged are
    this window alone, and it together with the `RECENT` before it, which finds in rare events what one window
    cannot show. One-sided: fewer is no news. Ratios come as asin(sqrt(ratio)), see features.py.
    """

    PRIOR_BAD, PRIOR_GOOD = 0.5, 50.0
    RECENT = 5

    def __init__(self, names: tuple[str, ...] = (), memory: float = 1000.0) -> None:
        self.names, self.memory = names, memory
        self._seen: dict[str, list[float]] = {}
        self._recent: dict[str, deque[tuple[int, int]]] = {}

    def explain_one(self, x: Features) -> list[Finding]:
        """See Detector."""
        return [self._finding(name, hits, trials) for name, hits, trials in self._counts(x)]

    def _finding(self, name: str, hits: int, trials: int) -> Finding:
        a, b = self._parameters(name)
        surprise = tail_surprise(hits, trials, a, b)
        if surprise > 0:
            recent = self._recent.get(name, ())
            pooled = hits + sum(pair[0] for pair in recent), trials + sum(pair[1] for pair in recent)
            surprise = max(surprise, tail_surprise(*pooled, a, b))
        return Finding(name, surprise, asin(sqrt(a / (a + b))), voices=2)

    def learn_one(self, x: Features) -> None:
        """See Detector."""
        for name, hits, trials in self._counts(x):
            a, b = self._parameters(name)
            usual = trials * a / (a + b)
            # one bad window must not teach that bad is normal
            counted = min(float(hits), usual + 3 * sqrt(usual) + 1)
            self._learn(name, counted, trials)
            self._recent.setdefault(name, deque(maxlen=self.RECENT)).append((hits, trials))

    def _learn(self, name: str, hits: float, trials: int) -> None:
        seen = self._seen.setdefault(name, [0.0, 0.0])
        seen[0] += hits
        seen[1] += trials
        if seen[1] > self.memory:
            shrink = self.memory / seen[1]
            seen[0] *= shrink
            seen[1] *= shrink

    def _parameters(self, name: str) -> tuple[float, float]:
        hits, trials = self._seen.get(name, (0.0, 0.0))
        return self.PRIOR_BAD + hits, self.PRIOR_GOOD + max(0.0, trials - hits)

    def _counts(self, x: Features) -> list[tuple[str, int, int]]:
        count = x.get(COUNT, 0.0)
        trials = 0 if isnan(count) else int(min(max(count, 0.0), 1e9))
        known = dict(usable(x))
        return [
            (name, min(trials, round(trials * sin(known[name]) ** 2)), trials)
            for name in self.names
            if trials and name in known
        ]

    def save(self) -> State:
        """See Detector."""
        return [
            [name, hits, trials, [list(pair) for pair in self._recent.get(name, ())]]
            for name, (hits, trials) in self._seen.items()
        ]

    def load(self, state: State) -> None:
        """See Detector."""
        self._seen, self._recent = {}, {}
        for name, hits, trials, recent in state:
            self._seen[name] = [hits, trials]
            self._recent[name] = deque((tuple(pair) for pair in recent), maxlen=self.RECENT)
