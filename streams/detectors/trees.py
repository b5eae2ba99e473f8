"""Machine-learning detector: half-space trees over all features, for odd combinations of ordinary values.

Source: Tan, Ting, Liu, "Fast anomaly detection for streaming data" (IJCAI 2011), as in
`river.anomaly.HalfSpaceTrees`: the trees are River's, and a test holds the scores to River's bit by bit.
River keeps an object per node and tree (1.2 MB for 10 trees of height 8, for every key) and can only be
pickled. Here the trees, which are random and never change, are made once per set of features and shared; what
a key learns is one byte per node and window.
"""

import random
import zlib
from functools import lru_cache
from typing import Any, NamedTuple

from river.tree.padded import make_padded_tree

from streams.detectors.base import Detector, Features, Finding, State, known, usable
from streams.detectors.novelty import Tail
from streams.detectors.statistical import Level, Noise, no_noise

PADDING = 0.15
"""River's: a split keeps this share of its range away from both ends."""


class Forest(NamedTuple):
    """Splits in heap order, tree after tree: children of node i are 2i + 1 and 2i + 2."""

    features: tuple[str, ...]
    feature: tuple[int, ...]
    threshold: tuple[float, ...]


@lru_cache(maxsize=256)
def forest(features: tuple[str, ...], trees: int, height: int, seed: int) -> Forest:
    """Return River's random trees over features in [0, 1]."""
    rng = random.Random(seed)
    inner: int = 2**height - 1
    feature, threshold = [0] * (trees * inner), [0.0] * (trees * inner)

    def flatten(node: Any, at: int, offset: int) -> None:
        if at < inner:
            feature[offset + at], threshold[offset + at] = features.index(node.feature), node.threshold
            flatten(node.left, 2 * at + 1, offset)
            flatten(node.right, 2 * at + 2, offset)

    for tree in range(trees):
        limits = dict.fromkeys(features, (0.0, 1.0))
        # River does not annotate this function
        root = make_padded_tree(limits, height, PADDING, rng, r_mass=0, l_mass=0)  # type: ignore[no-untyped-call]
        flatten(root, 0, tree * inner)
    return Forest(features, tuple(feature), tuple(threshold))


class HalfSpaces:
    """The masses of one set of half-space trees; a value that is absent is None."""

    def __init__(self, features: tuple[str, ...], trees: int, height: int, window: int, seed: int) -> None:
        if not 0 < window <= 255:
            raise ValueError("the window of half-space trees must be 1..255: a mass is one byte")
        self.forest = forest(features, trees, height, seed)
        self.trees, self.height, self.window = trees, height, window
        self.inner: int = 2**height - 1
        self.nodes: int = 2 * self.inner + 1
        self.latest, self.reference = bytearray(trees * self.nodes), bytearray(trees * self.nodes)
        self.counter, self.ready = 0, False

    def _fuller(self, tree: int, left: int) -> int:
        """Return the child that more points took lately, the way of a value that is absent (River's rule)."""
        first = tree * self.nodes + left
        return left + (self.latest[first] < self.latest[first + 1])

    def learn(self, point: list[float | None]) -> None:
        """Count a point in every node on its way; every `window` points the counts become the reference."""
        _, feature, threshold = self.forest
        for tree in range(self.trees):
            at, split, root = 0, tree * self.inner, tree * self.nodes
            self.latest[root] += 1
            for _ in range(self.height):
                value = point[feature[split + at]]
                left = 2 * at + 1
                at = self._fuller(tree, left) if value is None else left + (value >= threshold[split + at])
                self.latest[root + at] += 1
        self.counter += 1
        if self.counter == self.window:
            self.reference, self.latest = self.latest, bytearray(len(self.latest))
            self.counter, self.ready = 0, True

    def score(self, point: list[float | None]) -> float:
        """Return River's score: 0 for a crowd, near 1 for an empty corner; 0 before the first reference."""
        if not self.ready:
            return 0.0
        total: float = sum(self._mass(tree, point) for tree in range(self.trees))
        return 1 - total / (self.trees * self.window * self.nodes)

    def _mass(self, tree: int, point: list[float | None]) -> int:
        _, feature, threshold = self.forest
        reference, split, root = self.reference, tree * self.inner, tree * self.nodes
        limit, at, total = 0.1 * self.window, 0, 0
        for depth in range(self.height):
            mass = reference[root + at]
            total += mass << depth
            if mass < limit:
                return total
            value = point[feature[split + at]]
            left = 2 * at + 1
            at = self._fuller(tree, left) if value is None else left + (value >= threshold[split + at])
        return total + (reference[root + at] << self.height)


class Trees(Detector):
    """Half-space trees over standardised features, calibrated by the tail of their own scores.

    During the first `settle` windows it only learns each feature's level and which features there are; then
    the trees are made. A feature that appears later is not looked at. Names the one feature whose usual value
    would have calmed the trees most.
    """

    WORTH_EXPLAINING = 1.5
    SPREADS = 12.0
    """Half the width of the trees' space, in spreads of a feature."""

    def __init__(
        self,
        n_trees: int = 10,
        height: int = 8,
        window: int = 120,
        settle: int = 20,
        rate: float = 0.01,
        seed: int = 1,
        noise: Noise = no_noise,
    ) -> None:
        self.n_trees, self.height, self.window, self.settle = n_trees, height, window, settle
        self.rate, self.seed, self.noise = rate, seed, noise
        self._levels: dict[str, Level] = {}
        self._spaces: HalfSpaces | None = None
        self._tail = Tail(top=48)
        self._seen = 0

    def explain_one(self, x: Features) -> list[Finding]:
        """See Detector."""
        spaces = self._spaces
        if spaces is None or self._tail.seen < self._tail.ready:
            return []
        point = self._point(spaces, x)
        score = spaces.score(point)
        surprise = self._tail.surprise(score)
        if surprise < self.WORTH_EXPLAINING:
            return []
        return [Finding(self._culprit(spaces, point), surprise)]

    def score_one(self, x: Features) -> float:
        """See Detector; also below what is worth explaining."""
        if self._spaces is None:
            return 0.0
        return self._tail.surprise(self._spaces.score(self._point(self._spaces, x)))

    def _culprit(self, spaces: HalfSpaces, point: list[float | None]) -> str:
        def calmed(i: int) -> float:
            return spaces.score([*point[:i], 0.5, *point[i + 1 :]])

        measured = [i for i, value in enumerate(point) if value is not None]
        return spaces.forest.features[min(measured, key=calmed, default=0)]

    def _point(self, spaces: HalfSpaces, x: Features) -> list[float | None]:
        known = dict(usable(x))
        return [self._place(name, known.get(name), x) for name in spaces.forest.features]

    def _place(self, name: str, value: float | None, x: Features) -> float | None:
        if value is None:
            return None
        level = self._levels[name]
        z = (value - level.mean) / level.spread(self.noise(name, x))
        return min(1.0, max(0.0, 0.5 + z / (2 * self.SPREADS)))

    def learn_one(self, x: Features) -> None:
        """See Detector."""
        if self._spaces is not None:
            point = self._point(self._spaces, x)
            if self._spaces.ready:
                self._tail.learn(self._spaces.score(point))
            self._spaces.learn(point)
        self._learn_levels(x)
        self._seen += 1
        if self._spaces is None and self._seen >= self.settle and self._levels:
            self._spaces = self._grown(tuple(sorted(self._levels)))

    def _learn_levels(self, x: Features) -> None:
        for name, value in usable(x):
            level = known(self._levels, name, Level) if self._spaces is None else self._levels.get(name)
            if level:
                level.learn(value, self.rate, self.noise(name, x))

    def _grown(self, features: tuple[str, ...]) -> HalfSpaces:
        return HalfSpaces(features, self.n_trees, self.height, self.window, self.seed)

    def save(self) -> State:
        """See Detector."""
        levels = [[name, level.count, level.mean, level.variance] for name, level in self._levels.items()]
        spaces = self._spaces
        masses = zlib.compress(bytes(spaces.latest + spaces.reference), 1) if spaces else b""
        progress = [spaces.counter, spaces.ready, list(spaces.forest.features)] if spaces else []
        return [self._seen, levels, self._tail.largest[:], self._tail.seen, progress, masses]

    def load(self, state: State) -> None:
        """See Detector."""
        self._seen, levels, self._tail.largest, self._tail.seen, progress, masses = state
        self._levels = {name: Level(*level) for name, *level in levels}
        self._spaces = None
        if progress:
            counter, ready, features = progress
            self._spaces = self._grown(tuple(features))
            self._spaces.counter, self._spaces.ready = counter, ready
            self._restore_masses(self._spaces, zlib.decompress(masses))

    @staticmethod
    def _restore_masses(spaces: HalfSpaces, masses: bytes) -> None:
        half = len(spaces.latest)
        if len(masses) != 2 * half:
            raise ValueError("half-space trees: the saved masses are of another number of trees or height")
        spaces.latest, spaces.reference = bytearray(masses[:half]), bytearray(masses[half:])
