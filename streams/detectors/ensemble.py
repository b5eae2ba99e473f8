"""One verdict from several detectors: a window is anomalous when two of them agree about the same feature.

Why two: novelty alone alarms on any never-seen value, and is silent about an incident it has seen before; a
z-score alone alarms on heavy tails. What both call unlikely is one or the other kind of incident, and rarely
noise. A difference too small to matter (features.py) is no surprise to anyone.
"""

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import NamedTuple

from streams.detectors.base import COUNT, POOLED, RESERVED, Detector, Features, Finding, State
from streams.detectors.features import noise_of, scale_of, scaled
from streams.detectors.statistical import Level

SHOWN = 8
"""Contributions that a verdict carries at most."""
TRUST = 0.8
"""What the surprise of one voice is worth: its tail is an approximation, lighter than that of real noise."""
CAP = 12.0
"""Surprise beyond 1e-12 is all the same."""


class Contribution(NamedTuple):
    """One feature as one detector saw it, natural units; share is of the verdict's surprise, 0..1."""

    feature: str
    detector: str
    value: float
    expected: float | None
    share: float


class Verdict(NamedTuple):
    """What the detectors say together. surprise: -log10 p that two of them agree on; contributions: strongest
    first.
    """

    surprise: float
    contributions: list[Contribution]


class _Vote(NamedTuple):
    detector: str
    finding: Finding
    value: float
    expected: float | None


class Steadying:
    """Makes windows comparable that rest on few and on many observations.

    The noise of a mean or quantile goes with 1/sqrt(count). A window of fewer than usual is pulled towards
    the usual value until its noise is the usual one, so that three slow requests at night are not compared as
    300 are by day.
    """

    RATE = 0.03

    def __init__(self) -> None:
        self._count = Level()
        self._levels: dict[str, Level] = {}

    def transform_one(self, x: Features) -> dict[str, float]:
        """Return `x` with the counted features pulled in."""
        weight = self._weight(x)
        return {name: self._pulled(name, value, weight) for name, value in x.items()}

    def _weight(self, x: Features) -> float:
        usual = self._count.mean
        return sqrt(min(1.0, max(_evidence(x), 0.0) / usual)) if usual > 0 else 1.0

    def _pulled(self, name: str, value: float, weight: float) -> float:
        level = self._levels.get(name)
        return level.mean + weight * (value - level.mean) if level and level.count else value

    def learn_one(self, x: Features) -> None:
        """Learn the usual count and the usual values, from `x` as it was before `transform_one`."""
        if x.get(COUNT, 0.0) <= 0:
            return
        steady = self.transform_one(x)
        self._count.learn(_evidence(x), self.RATE, 0.1 * self._count.mean)
        for name, value in steady.items():
            if name not in RESERVED and scale_of(name).counted:
                self._levels.setdefault(name, Level()).learn(value, self.RATE, noise_of(name, x))

    def save(self) -> State:
        """Return the whole state."""
        levels = [[name, level.count, level.mean, level.variance] for name, level in self._levels.items()]
        return [[self._count.count, self._count.mean, self._count.variance], levels]

    def load(self, state: State) -> None:
        """Take back what `save` gave."""
        count, levels = state
        self._count = Level(*count)
        self._levels = {name: Level(*level) for name, *level in levels}


class Ensemble:
    """The detectors of one key, fed with natural features (features.measured)."""

    def __init__(self, detectors: Mapping[str, Detector], quorum: int = 2) -> None:
        self.detectors = dict(detectors)
        self.quorum = min(quorum, len(self.detectors))
        self._steadying = Steadying()

    def judge(self, natural: Features) -> Verdict:
        """Return the verdict on features that have not been learned."""
        by_feature: dict[str, list[_Vote]] = {}
        for vote in self._votes(_finite(natural)):
            by_feature.setdefault(vote.finding.feature, []).append(vote)
        agreed = {name: self._agreed(votes) for name, votes in by_feature.items()}
        surprise = max(agreed.values(), default=0.0)
        ordered = sorted(agreed, key=lambda name: (-agreed[name], name))
        return Verdict(
            surprise, _contributions([vote for name in ordered for vote in by_feature[name]], agreed)
        )

    def score_one(self, natural: Features) -> float:
        """Return the surprise that two detectors agree on."""
        return self.judge(natural).surprise

    def learn_one(self, natural: Features) -> None:
        """Let every detector learn."""
        raw = scaled(_finite(natural))
        steady = self._steadying.transform_one(raw)
        for detector in self.detectors.values():
            detector.learn_one(steady)
        self._steadying.learn_one(raw)

    def _votes(self, natural: Features) -> list[_Vote]:
        raw = scaled(natural)
        steady = self._steadying.transform_one(raw)
        votes = []
        for name, detector in self.detectors.items():
            for finding in detector.explain_one(steady):
                vote = self._vote(name, finding, natural, steady)
                if vote:
                    votes.append(vote)
        return votes

    def _vote(self, detector: str, finding: Finding, natural: Features, steady: Features) -> _Vote | None:
        """Return the vote of a finding, None if what it says is too small to matter."""
        if finding.surprise <= 0 or finding.feature not in natural:
            return None
        scale = scale_of(finding.feature)
        expected = None if finding.expected is None else scale.back(finding.expected)
        if expected is not None and not scale.matters(scale.back(steady[finding.feature]), expected):
            return None
        return _Vote(detector, finding, natural[finding.feature], expected)

    def _agreed(self, votes: list[_Vote]) -> float:
        voices = [_worth(vote.finding) for vote in votes for _ in range(vote.finding.voices)]
        return sorted(voices, reverse=True)[self.quorum - 1] if len(voices) >= self.quorum else 0.0

    def save(self) -> State:
        """Return the whole state."""
        return [
            self._steadying.save(),
            [[name, detector.save()] for name, detector in self.detectors.items()],
        ]

    def load(self, state: State) -> None:
        """Take back what `save` gave, on an ensemble of the same detectors."""
        steadying, saved = state
        if [name for name, _ in saved] != list(self.detectors):
            raise ValueError("the saved detectors are not the ones in use")
        self._steadying.load(steadying)
        for name, held in saved:
            self.detectors[name].load(held)


def _worth(finding: Finding) -> float:
    return min(finding.surprise if finding.voices > 1 else TRUST * finding.surprise, CAP)


def _evidence(x: Features) -> float:
    return float(x.get(POOLED, x.get(COUNT, 0.0)))


def _finite(x: Features) -> dict[str, float]:
    return {name: value for name, value in x.items() if isfinite(value)}


def _contributions(votes: list[_Vote], agreed: Mapping[str, float]) -> list[Contribution]:
    """Return the votes with their share: feature by what was agreed on it, detector by its surprise."""
    weights = [agreed[vote.finding.feature] * _worth(vote.finding) for vote in votes]
    total = sum(weights)
    if total <= 0:
        return []
    rows = [
        Contribution(vote.finding.feature, vote.detector, vote.value, vote.expected, weight / total)
        for vote, weight in zip(votes, weights, strict=True)
    ]
    return sorted(rows, key=lambda row: -row.share)[:SHOWN]
