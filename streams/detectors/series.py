"""Novelty of one plain series of any unit and rhythm, with alert-once: what issue 7 runs on NAB.

Source: our own, method B of research/detection.md: root mean square of the surprises of five signals. The
health windows use `novelty.Novel` instead (one signal per feature), because this one keeps about 60 KB per
series.
"""

from collections import deque
from math import log, sqrt

from streams.detectors.base import TIME, Detector, Features, Finding, State, usable
from streams.detectors.novelty import Novelty, PeakHold

HOUR_US = 3_600_000_000
SEASONS = ((24 * HOUR_US, 24), (168 * HOUR_US, 168))
"""Hour of day and hour of week: period in µs, bins."""
MEDIAN_ROWS = 12
SEASON_RATE = 0.1
SPREAD_ROWS = 100
"""Rows after which the floor of the spread is frozen and the spread becomes a signal."""


class SeriesNovelty(Detector):
    """Novelty of the value, its running median, its residuals to hour of day and of week, and its spread.

    `x` holds the value under `feature` and the event time under "unix_us"; without either, the row is
    ignored. `explain_one` gives the combined surprise; `score_one` gives surprise / (surprise + 2), in [0,
    1), or 0 where it is not the highest within `hold_us` (alert-once).
    """

    def __init__(self, feature: str = "value", hold_us: int = 36 * HOUR_US, capacity: int = 1024) -> None:
        self.feature, self.hold_us, self.capacity = feature, hold_us, capacity
        self._signals = [Novelty(capacity) for _ in range(5)]
        self._means = [[0.0] * bins for _, bins in SEASONS]
        self._counts = [[0] * bins for _, bins in SEASONS]
        self._recent: deque[float] = deque(maxlen=MEDIAN_ROWS)
        self._spread_floor, self._rows = 0.0, 0
        self._hold = PeakHold(hold_us, capacity=4096)
        # scoring and then learning a row needs the same numbers; not part of the state
        self._judged: tuple[tuple[int, float], list[float | None], float] | None = None

    def explain_one(self, x: Features) -> list[Finding]:
        """See Detector: one finding, the combined surprise."""
        row = self._row(x)
        return [Finding(self.feature, self._judge(row)[1], self._signals[0].usual())] if row else []

    def score_one(self, x: Features) -> float:
        """Return the score of a row that has not been learned."""
        row = self._row(x)
        if row is None:
            return 0.0
        _, surprise = self._judge(row)
        return surprise / (surprise + 2) if self._hold.passes(row[0], surprise) else 0.0

    def learn_one(self, x: Features) -> None:
        """See Detector."""
        row = self._row(x)
        if row is None:
            return
        at_us, value = row
        values, surprise = self._judge(row)
        self._judged = None
        self._hold.add(at_us, surprise)
        for signal, held in zip(self._signals, values, strict=True):
            if held is not None:
                signal.learn(held)
        self._learn_seasons(at_us, value)
        if self._rows < SPREAD_ROWS:
            self._spread_floor += (
                self._spread(value) / SPREAD_ROWS if len(self._recent) >= MEDIAN_ROWS - 1 else 0.0
            )
        self._recent.append(value)
        self._rows += 1

    def _row(self, x: Features) -> tuple[int, float] | None:
        if TIME not in x or self.feature not in x:
            return None
        value = dict(usable({self.feature: x[self.feature]})).get(self.feature)
        return None if value is None else (int(x[TIME]), value)

    def _judge(self, row: tuple[int, float]) -> tuple[list[float | None], float]:
        """Return the signals' values of a row and its surprise."""
        if self._judged is None or self._judged[0] != row:
            values = self._values(*row)
            self._judged = row, values, self._combined(values)
        return self._judged[1:]

    def _combined(self, values: list[float | None]) -> float:
        pairs = zip(self._signals, values, strict=True)
        squares = [signal.surprise(value) ** 2 if value is not None else 0.0 for signal, value in pairs]
        return sqrt(sum(squares) / len(squares))

    def _values(self, at_us: int, value: float) -> list[float | None]:
        """Return the value of every signal, None for one that has none yet."""
        seasonal = [
            value - means[b] if counts[b] else None
            for means, counts, b in zip(self._means, self._counts, _bins(at_us), strict=True)
        ]
        return [value, self._median(value), *seasonal, self._log_spread(value)]

    def _latest(self, value: float) -> list[float]:
        return [*list(self._recent)[-(MEDIAN_ROWS - 1) :], value]

    def _median(self, value: float) -> float:
        ordered = sorted(self._latest(value))
        return 0.5 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])

    def _spread(self, value: float) -> float:
        latest = sorted(self._latest(value))
        if latest[0] == latest[-1]:
            return 0.0
        mean = sum(latest) / len(latest)
        return sqrt(sum((held - mean) * (held - mean) for held in latest) / len(latest))

    def _log_spread(self, value: float) -> float | None:
        if self._rows < SPREAD_ROWS:
            return None
        return log(self._spread(value) + 1e-3 * self._spread_floor + 1e-300)

    def _learn_seasons(self, at_us: int, value: float) -> None:
        for means, counts, b in zip(self._means, self._counts, _bins(at_us), strict=True):
            counts[b] += 1
            means[b] += max(SEASON_RATE, 1 / counts[b]) * (value - means[b])

    def save(self) -> State:
        """See Detector."""
        seasons = [self._means, self._counts]
        progress = [list(self._recent), self._spread_floor, self._rows]
        return [[signal.save() for signal in self._signals], seasons, progress, self._hold.save()]

    def load(self, state: State) -> None:
        """See Detector."""
        signals, (self._means, self._counts), (recent, self._spread_floor, self._rows), hold = state
        for signal, saved in zip(self._signals, signals, strict=True):
            signal.load(saved)
        self._recent = deque(recent, maxlen=MEDIAN_ROWS)
        self._hold.load(hold)
        self._judged = None


def _bins(at_us: int) -> list[int]:
    return [at_us % period_us * bins // period_us for period_us, bins in SEASONS]
