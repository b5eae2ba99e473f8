"""Sparse keys: where a window holds a handful of events, judge the last few windows together."""

from collections import deque
from math import ceil

from streams.detectors.base import COUNT, POOLED, WINDOWS, Features, State
from streams.detectors.features import scale_of
from streams.detectors.statistical import MIN_SEEN, Level

ENOUGH = 12.0
"""Events that one judgement should rest on."""
MOST = 6
"""Windows pooled at most, so at most this many windows of delay are added."""
RATE = 0.03


class Pool:
    """The last windows of one key. Latencies (weighted by count) and throughput are means over as many
    windows as usually hold `ENOUGH` events; a key with that many in every window is passed through as it is.
    Ratios are not pooled here: `statistical.Rates` does it exactly.
    """

    def __init__(self) -> None:
        self._recent: deque[dict[str, float]] = deque(maxlen=MOST)
        self._usual = Level()

    def windows(self) -> int:
        """Return how many windows are judged together."""
        if self._usual.count < MIN_SEEN or self._usual.mean >= ENOUGH:
            return 1
        return min(MOST, ceil(ENOUGH / max(self._usual.mean, 0.1)))

    def add(self, natural: Features) -> dict[str, float]:
        """Take a window and return the features to judge, natural units."""
        kept = {name: value for name, value in natural.items() if name == COUNT or scale_of(name).pooled}
        self._recent.append(kept)
        size = min(self.windows(), len(self._recent))
        if size == 1:
            return dict(natural)
        latest = list(self._recent)[-size:]
        counts = [x.get(COUNT, 0.0) for x in latest]
        pooled = {name: _mean(name, latest, counts) for name in kept if name != COUNT}
        return {**natural, **pooled, POOLED: sum(counts), WINDOWS: float(size)}

    def learn_one(self, natural: Features) -> None:
        """Learn how many events a window usually has."""
        self._usual.learn(natural.get(COUNT, 0.0), RATE, 1.0)

    def save(self) -> State:
        """Return the whole state."""
        return [[self._usual.count, self._usual.mean, self._usual.variance], list(self._recent)]

    def load(self, state: State) -> None:
        """Take back what `save` gave."""
        usual, recent = state
        self._usual = Level(*usual)
        self._recent = deque(recent, maxlen=MOST)


def _mean(name: str, latest: list[dict[str, float]], counts: list[float]) -> float:
    """Return the mean over the windows that have the feature, weighted by count if it rests on the count."""
    weigh = scale_of(name).counted
    pairs = [(x[name], n if weigh else 1.0) for x, n in zip(latest, counts, strict=True) if name in x]
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total > 0 else pairs[-1][0]
