"""Time-series detector: what is usual at this hour of the day (or week), and how far a value is from it."""

from streams.detectors.base import (
    TIME,
    Detector,
    Features,
    Finding,
    State,
    known,
    pack_floats,
    unpack_floats,
    usable,
)
from streams.detectors.statistical import MIN_SEEN, Level, Noise, no_noise

DAY_US = 86_400_000_000
WEEK_US = 7 * DAY_US


class Profile:
    """Running mean per time bin of a period, leaning on the overall mean where a bin has seen little.

    The mean of n values weighs n against `PRIOR` values at the overall mean, so a fresh hour already has an
    expectation. Source: the hour-of-day residual of research/detection.md (rate max(rate, 1/n)), with
    shrinkage added.
    """

    PRIOR = 6.0
    __slots__ = ("bins", "counts", "means", "overall", "period_us")

    def __init__(self, period_us: int, bins: int) -> None:
        self.period_us, self.bins = period_us, bins
        self.counts, self.means = [0] * bins, [0.0] * bins
        self.overall = Level()

    def bin_of(self, at_us: float) -> int:
        """Return the bin of an event time."""
        return int(at_us % self.period_us * self.bins // self.period_us)

    def expected(self, at_us: float) -> float:
        """Return what is usual at that time."""
        b = self.bin_of(at_us)
        n = self.counts[b]
        return (n * self.means[b] + self.PRIOR * self.overall.mean) / (n + self.PRIOR)

    def learn(self, at_us: float, value: float, rate: float) -> None:
        """Move the bin and the overall mean towards `value`."""
        b = self.bin_of(at_us)
        self.counts[b] += 1
        self.means[b] += max(rate, 1 / self.counts[b]) * (value - self.means[b])
        self.overall.learn(value, rate, 0.0)


class _Series:
    """One feature: its profile and the spread of what the profile leaves."""

    __slots__ = ("profile", "rest")

    def __init__(self, period_us: int, bins: int) -> None:
        self.profile = Profile(period_us, bins)
        self.rest = Level()


class Seasonal(Detector):
    """Residual to the profile, in spreads of the residual. Needs `x["unix_us"]`; without it, it is silent.

    `rate` is the weight of one value in its bin: 1/720 forgets over two hours of 10 s windows of that hour of
    day, so over two days.
    """

    def __init__(
        self,
        period_us: int = DAY_US,
        bins: int = 24,
        rate: float = 1 / 720,
        spread_rate: float = 0.01,
        noise: Noise = no_noise,
    ) -> None:
        self.period_us, self.bins, self.rate, self.spread_rate, self.noise = (
            period_us,
            bins,
            rate,
            spread_rate,
            noise,
        )
        self._series: dict[str, _Series] = {}

    def explain_one(self, x: Features) -> list[Finding]:
        """See Detector."""
        at_us = x.get(TIME)
        if at_us is None:
            return []
        return [
            self._finding(x, at_us, name, value, series)
            for name, value in usable(x)
            if (series := self._series.get(name)) and series.rest.count >= MIN_SEEN
        ]

    def _finding(self, x: Features, at_us: float, name: str, value: float, series: _Series) -> Finding:
        expected = series.profile.expected(at_us)
        # the residual's own mean is left out: a lasting shift stays visible until the profile has learned it
        centred = value - expected + series.rest.mean
        return Finding(name, series.rest.surprise(centred, self.spread_rate, self.noise(name, x)), expected)

    def learn_one(self, x: Features) -> None:
        """See Detector."""
        at_us = x.get(TIME)
        if at_us is None:
            return
        for name, value in usable(x):
            if series := known(self._series, name, self._fresh):
                self._learn(series, at_us, value, self.noise(name, x))

    def _learn(self, series: _Series, at_us: float, value: float, floor: float) -> None:
        profile, rest = series.profile, series.rest
        if profile.overall.count:
            expected = profile.expected(at_us)
            rest.learn(value - expected, self.spread_rate, floor)
            if rest.count > MIN_SEEN:
                limit = Level.CLIP * rest.spread(floor)
                value = expected + max(-limit, min(limit, value - expected))
        profile.learn(at_us, value, self.rate)

    def _fresh(self) -> _Series:
        return _Series(self.period_us, self.bins)

    def save(self) -> State:
        """See Detector."""
        return [[name, *_saved(series)] for name, series in self._series.items()]

    def load(self, state: State) -> None:
        """See Detector."""
        self._series = {}
        for name, counts, means, overall, rest in state:
            series = self._series[name] = self._fresh()
            held = unpack_floats(means)
            if len(counts) != len(held):
                raise ValueError("seasonal state: counts and means differ in length")
            for (b, count), mean in zip(counts, held, strict=True):
                series.profile.counts[b], series.profile.means[b] = count, mean
            series.profile.overall, series.rest = Level(*overall), Level(*rest)


def _saved(series: _Series) -> State:
    profile = series.profile
    filled = [(b, n) for b, n in enumerate(profile.counts) if n]
    levels = [[level.count, level.mean, level.variance] for level in (profile.overall, series.rest)]
    return [[list(pair) for pair in filled], pack_floats(profile.means[b] for b, _ in filled), *levels]
