"""Novelty: how far is a value from everything ever seen? The bounded history, its calibration, alert-once.

Source: our own, research/detection.md (methods A and B), where every choice is measured. Distance to the k
nearest of all earlier values, read against the exponential tail of all earlier such distances (peaks over
threshold).
"""

from bisect import bisect_left, insort
from collections import deque
from math import log, log10

from streams.detectors.base import (
    Detector,
    Features,
    Finding,
    State,
    known,
    pack_floats,
    pack_singles,
    single,
    unpack_floats,
    unpack_singles,
    usable,
)

LOG10 = log(10.0)
FLOOR = 1e-6
"""Of the range seen so far: smaller distances are rounding, never a surprise."""
MAX_EXCESS = 1000.0
"""Cap of an excess, in mean excesses: finite also where the tail is degenerate (a constant series)."""


class Tail:
    """-log10 p of a value against the largest of all earlier ones: exponential excess over a quantile."""

    FRACTION, MIN_TAIL = 0.05, 10
    __slots__ = ("largest", "ready", "seen", "top")

    def __init__(self, top: int = 500, ready: int = 30) -> None:
        self.top, self.ready = top, ready
        self.largest: list[float] = []
        self.seen = 0

    def surprise(self, value: float, resolution: float = 0.0) -> float:
        """Return -log10 of the estimated chance of a value this large; 0 before `ready` were seen."""
        if self.seen < self.ready:
            return 0.0
        size = self._size()
        start = self.largest[-size - 1]
        base = log10((self.seen + 1) / (size + 1))
        if value <= start:
            return base * value / start if start > 0 else 0.0
        mean_excess = sum(self.largest[-size:]) / size - start
        unit = mean_excess + 0.02 * start / size + resolution
        return base + (min((value - start) / unit, MAX_EXCESS) if unit > 0 else MAX_EXCESS) / LOG10

    def _size(self) -> int:
        wanted = max(self.MIN_TAIL, min(self.FRACTION * self.seen, self.top))
        return min(int(wanted), self.seen // 2, len(self.largest) - 1)

    def learn(self, value: float) -> None:
        """Add one; only the `top` + 1 largest are kept."""
        self.seen += 1
        insort(self.largest, value)
        if len(self.largest) > self.top + 1:
            del self.largest[0]


class Novelty:
    """Novelty of one signal. At most `capacity` values are kept: beyond it, dense regions are thinned, sparse
    ones stay.

    `compact` keeps 7 digits of each value (half the size when saved); for values whose scale is known.
    """

    NEAREST = 5
    __slots__ = ("capacity", "compact", "history", "tail")

    def __init__(self, capacity: int = 1024, top: int = 500, compact: bool = False, ready: int = 30) -> None:
        self.capacity, self.compact = capacity, compact
        self.history: list[float] = []
        self.tail = Tail(top, ready)

    def distance(self, value: float) -> float:
        """Return the mean distance to the 5 nearest of the history, 0 while there are no more than 5."""
        history, size = self.history, len(self.history)
        if size <= self.NEAREST:
            return 0.0
        high = bisect_left(history, value)
        low, total = high - 1, 0.0
        for _ in range(self.NEAREST):
            if high >= size or (low >= 0 and value - history[low] <= history[high] - value):
                total += value - history[low]
                low -= 1
            else:
                total += history[high] - value
                high += 1
        return total / self.NEAREST

    def surprise(self, value: float) -> float:
        """Return -log10 p of a value this far from all earlier ones."""
        if not self.history:
            return 0.0
        value = self._rounded(value)
        spread = max(value, self.history[-1]) - min(value, self.history[0])
        return self.tail.surprise(self.distance(value), FLOOR * spread)

    def learn(self, value: float) -> None:
        """Add a value to the history."""
        value = self._rounded(value)
        self.tail.learn(self._rounded(self.distance(value)))
        insort(self.history, value)
        if len(self.history) > self.capacity:
            self._thin()

    def usual(self) -> float | None:
        """Return the middle of the history."""
        return self.history[len(self.history) // 2] if self.history else None

    def _rounded(self, value: float) -> float:
        return single(value) if self.compact else value

    def _thin(self) -> None:
        """Drop every second value of the denser half; the 6 smallest and largest stay."""
        history, k, size = self.history, self.NEAREST, len(self.history)
        spans = [history[min(size - 1, i + k)] - history[max(0, i - k)] for i in range(size)]
        middle = sorted(spans)[size // 2]
        kept, drop = [], False
        for i, value in enumerate(history):
            if spans[i] <= middle and k < i < size - k - 1:
                drop = not drop
                if drop:
                    continue
            kept.append(value)
        self.history = kept

    def save(self) -> State:
        """Return the whole state."""
        pack = pack_singles if self.compact else pack_floats
        return [pack(self.history), pack(self.tail.largest), self.tail.seen]

    def load(self, state: State) -> None:
        """Take back what `save` gave."""
        history, largest, seen = state
        unpack = unpack_singles if self.compact else unpack_floats
        self.history, self.tail.largest, self.tail.seen = unpack(history), unpack(largest), seen


class PeakHold:
    """Alert-once: a score passes only if it is higher than every score of the last `hold_us` of event time.

    Unlike a fixed pause it lets a bigger event through. Scores at or below `floor` need no memory. At most
    `capacity` scores are kept, the largest ones; only a longer series of ever smaller scores within the hold
    would need more.
    """

    __slots__ = ("capacity", "floor", "hold_us", "peaks")

    def __init__(self, hold_us: int, floor: float = 0.0, capacity: int = 64) -> None:
        self.hold_us, self.floor, self.capacity = hold_us, floor, capacity
        self.peaks: deque[tuple[int, float]] = deque()

    def passes(self, at_us: int, score: float) -> bool:
        """Tell whether a score is a new peak."""
        return all(score > peak for since_us, peak in self.peaks if at_us - since_us < self.hold_us)

    def add(self, at_us: int, score: float) -> None:
        """Take note of a score."""
        while self.peaks and at_us - self.peaks[0][0] >= self.hold_us:
            self.peaks.popleft()
        while self.peaks and self.peaks[-1][1] <= score:
            self.peaks.pop()
        if score > self.floor and len(self.peaks) < self.capacity:
            self.peaks.append((at_us, score))

    def save(self) -> State:
        """Return the whole state."""
        return [list(peak) for peak in self.peaks]

    def load(self, state: State) -> None:
        """Take back what `save` gave."""
        self.peaks = deque((at_us, score) for at_us, score in state)


class Novel(Detector):
    """Novelty of each feature's value. It never forgets, so it grows quieter with age: what was seen once is
    known.
    """

    def __init__(self, capacity: int = 192, top: int = 48, ready: int = 10) -> None:
        self.capacity, self.top, self.ready = capacity, top, ready
        self._signals: dict[str, Novelty] = {}

    def explain_one(self, x: Features) -> list[Finding]:
        """See Detector."""
        return [
            Finding(name, signal.surprise(value), signal.usual())
            for name, value in usable(x)
            if (signal := self._signals.get(name)) and signal.tail.seen >= self.ready
        ]

    def learn_one(self, x: Features) -> None:
        """See Detector."""
        for name, value in usable(x):
            if signal := known(self._signals, name, self._fresh):
                signal.learn(value)

    def _fresh(self) -> Novelty:
        return Novelty(self.capacity, self.top, compact=True, ready=self.ready)

    def save(self) -> State:
        """See Detector."""
        return [[name, *signal.save()] for name, signal in self._signals.items()]

    def load(self, state: State) -> None:
        """See Detector."""
        self._signals = {}
        for name, *saved in state:
            signal = self._signals[name] = self._fresh()
            signal.load(saved)
