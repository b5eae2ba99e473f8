"""The score of the Numenta Anomaly Benchmark.

Source: Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms" (2015), and its scorer, of which this is an
implementation of our own. A detection inside a labelled window earns the more the earlier it comes, once per window; a
window without one costs; a detection outside costs, less so right after a window. Everything is relative to a detector
that says nothing (0) and one that is right at the first row of every window (100).
"""

from collections.abc import Mapping, Sequence
from math import exp
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Array = NDArray[np.float64]
PROBATION, MAX_PROBATION_ROWS = 0.15, 750
"""The first rows are for learning: this share of a series, but no more than so many, is never scored."""
NO_DETECTION = 1.1
"""A threshold above every score."""


class Profile(NamedTuple):
    """What a detected window earns, a false detection costs, and a missed window costs."""

    hit: float
    false: float
    miss: float


PROFILES: Mapping[str, Profile] = {
    "standard": Profile(1.0, 0.11, 1.0),
    "reward_low_FP_rate": Profile(1.0, 0.22, 1.0),
    "reward_low_FN_rate": Profile(1.0, 0.11, 2.0),
}


class Labels(Struct, frozen=True):
    """The truth of one series: first and last row of each window, both included, in order."""

    rows: int
    windows: tuple[tuple[int, int], ...] = ()

    @property
    def probation(self) -> int:
        """Rows at the beginning that are not scored."""
        return min(int(PROBATION * self.rows), MAX_PROBATION_ROWS)


class Curve(NamedTuple):
    """Raw scores by threshold, the highest threshold first. A row is a detection if its score is at least the threshold."""

    thresholds: Array
    raw: Array

    def best(self) -> tuple[float, float]:
        """Return (threshold, raw score) where the raw score is largest; of equals the highest threshold."""
        at = int(self.raw.argmax())
        return float(self.thresholds[at]), float(self.raw[at])

    def at(self, threshold: float) -> float:
        """Return the raw score at any threshold."""
        reached = int((self.thresholds >= threshold).sum())
        return float(self.raw[max(0, reached - 1)])


class RowCounts(NamedTuple):
    """Scored rows: true and false detections, true and false silence."""

    tp: int
    fp: int
    fn: int
    tn: int


def row_values(labels: Labels) -> tuple[Array, NDArray[np.int64]]:
    """Return per row what a detection there is worth before weighting (1 to -1), and its window's number or -1."""
    values, inside = np.full(labels.rows, -1.0), np.full(labels.rows, -1)
    full = _sigmoid(-1.0)
    starts = [left for left, _ in labels.windows] + [labels.rows]
    for number, (left, right) in enumerate(labels.windows):
        width, end = right - left + 1, starts[number + 1]
        inside[left : right + 1] = number
        values[left : right + 1] = [_sigmoid(-(right - row + 1) / width) / full for row in range(left, right + 1)]
        values[right + 1 : end] = [_sigmoid((row - right) / max(right - left, 1)) for row in range(right + 1, end)]
    return values, inside


def _sigmoid(y: float) -> float:
    return -1.0 if y > 3 else 2.0 / (1.0 + exp(5.0 * y)) - 1.0


def curve(labels: Sequence[Labels], scores: Sequence[Sequence[float]], profile: Profile) -> Curve:
    """Return the raw score over all series at every threshold at which it can change."""
    levels: list[Array] = [np.array([NO_DETECTION])]
    gains: list[Array] = [np.zeros(1)]
    for truth, found in zip(labels, scores, strict=True):
        scored = np.asarray(found, dtype=np.float64)[truth.probation :]
        all_values, all_inside = row_values(truth)
        values, inside = all_values[truth.probation :], all_inside[truth.probation :]
        outside = inside < 0
        levels.append(scored[outside])
        gains.append(values[outside] * profile.false)
        for number in range(len(truth.windows)):
            rows = np.flatnonzero(inside == number)
            if len(rows):
                gains[0] = gains[0] - profile.miss
                level, gain = _window_gains(scored[rows], values[rows] * profile.hit, profile.miss)
                levels.append(level)
                gains.append(gain)
    return _summed(np.concatenate(levels), np.concatenate(gains))


def _window_gains(scores: Array, values: Array, miss: float) -> tuple[Array, Array]:
    """Return what one window adds as the threshold falls: the first row that reaches it counts, and only that one."""
    peaks = np.maximum.accumulate(scores)
    first = np.flatnonzero(np.r_[True, scores[1:] > peaks[:-1]])
    worth = values[first] + miss
    return scores[first], np.r_[worth[:-1] - worth[1:], worth[-1]]


def _summed(levels: Array, gains: Array) -> Curve:
    order = np.argsort(-levels, kind="stable")
    levels, raw = levels[order], np.cumsum(gains[order])
    last = np.r_[levels[1:] != levels[:-1], True]
    return Curve(levels[last], raw[last])


def normalised(raw: float, windows: int, profile: Profile) -> float:
    """Return a raw score between that of silence (0) and of perfection (100); `windows`: all labelled ones, 1 at least."""
    return 100.0 * (raw + profile.miss * windows) / ((profile.hit + profile.miss) * windows)


def row_counts(labels: Sequence[Labels], scores: Sequence[Sequence[float]], threshold: float) -> RowCounts:
    """Count scored rows at a threshold."""
    total = np.zeros(4, dtype=np.int64)
    for truth, found in zip(labels, scores, strict=True):
        detected = np.asarray(found)[truth.probation :] >= threshold
        wanted = row_values(truth)[1][truth.probation :] >= 0
        total += [(detected & wanted).sum(), (detected & ~wanted).sum(), (~detected & wanted).sum(), (~detected & ~wanted).sum()]
    return RowCounts(*map(int, total))
