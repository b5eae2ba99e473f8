"""Features of a health window: which, on what scale they are compared, and what difference matters."""

from collections.abc import Callable
from math import asin, exp, log, pi, sin, sqrt
from typing import NamedTuple

from schemas.health import HealthWindow
from streams.detectors.base import COUNT, RESERVED, TIME, WINDOWS, Features

MAX_RESOURCES = 8
"""Resources of a component that are looked at, the first by name."""
MIN_FOR_TAIL = 40
"""Events below which p95 is not looked at: nearly the largest of so few, one slow call moves it."""
RESOURCE = "resource."


class Scale(NamedTuple):
    """How a feature is compared.

    `to` maps the natural unit to one in which normal variation has about the same size everywhere, `back`
    inverts it. `noise`: the spread on that scale that is normal whatever was seen. `factor`, `step`: a
    difference smaller than either (against the expected value, natural units) never matters, however unlikely
    it is. `counted`: its own noise shrinks with the number of observations. `pooled`: of sparse keys, it is
    the mean over several windows (pooling.py). `one_sided`: only more than expected matters.
    """

    to: Callable[[float], float]
    back: Callable[[float], float]
    noise: float
    factor: float = 1.0
    step: float = 0.0
    counted: bool = False
    pooled: bool = False
    one_sided: bool = False

    def matters(self, value: float, expected: float) -> bool:
        """Tell whether a difference is large enough to be worth a person's time (natural units)."""
        if self.one_sided and value <= expected:
            return False
        low, high = min(value, expected), max(value, expected)
        return high - low >= self.step and high >= self.factor * low


def _log_from(offset: float) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Return log(value + offset) and its inverse: a ratio of large values, a difference of ones below the
    offset.
    """
    return lambda value: log(max(value, 0.0) + offset), lambda scaled: exp(min(scaled, 700.0)) - offset


def _asin_root(ratio: float) -> float:
    """Variance-stabilising for a binomial: the spread is 0.5 / sqrt(n) at any ratio (Anscombe 1948)."""
    return asin(sqrt(min(1.0, max(0.0, ratio))))


def _ratio_of(scaled: float) -> float:
    return sin(min(pi / 2, max(0.0, scaled))) ** 2


def _root(value: float) -> float:
    """Variance-stabilising for a Poisson count: the spread is 0.5 at any mean (Anscombe 1948)."""
    return sqrt(max(value, 0.0))


def _square(scaled: float) -> float:
    return max(scaled, 0.0) ** 2


def _same(value: float) -> float:
    return value


# latencies below 100 µs and broker times below 1 ms differ by scheduling alone
LATENCY = Scale(*_log_from(100.0), noise=0.05, factor=1.3, step=500.0, counted=True, pooled=True)
LATENCY_TAIL = LATENCY._replace(factor=1.5)
BROKER = Scale(*_log_from(1000.0), noise=0.1, factor=1.5, step=5000.0, counted=True, pooled=True)
RATE = Scale(_root, _square, noise=0.5, factor=1.5, step=1.5, pooled=True)
SHARE = Scale(_asin_root, _ratio_of, noise=0.5, factor=1.5, step=0.02, one_sided=True)
USED_RATIO = Scale(_same, _same, noise=0.02, step=0.1)
USED = Scale(*_log_from(1.0), noise=0.05, factor=1.3)

SCALES = {
    "error_ratio": SHARE,
    "affected_ratio": SHARE,
    "events_per_window": RATE,
    "mean_us": LATENCY,
    "p50_us": LATENCY,
    "p95_us": LATENCY_TAIL,
    "broker_mean_us": BROKER,
}
SHARES = tuple(name for name, scale in SCALES.items() if scale is SHARE)


def scale_of(name: str) -> Scale:
    """Return the scale of a feature."""
    if name in SCALES:
        return SCALES[name]
    return USED_RATIO if name.endswith("_ratio") else USED


def noise_of(name: str, x: Features) -> float:
    """Return the floor of a feature's spread on its scale; that of a ratio depends on how many it is a ratio
    of.
    """
    scale = scale_of(name)
    if scale is SHARE:
        return scale.noise / sqrt(max(x.get(COUNT, 1.0), 1.0))
    return scale.noise / sqrt(max(x.get(WINDOWS, 1.0), 1.0)) if scale is RATE else scale.noise


def measured(window: HealthWindow) -> dict[str, float]:
    """Return the features of a window in natural units, with event time and count; what was not measured is
    absent.
    """
    finished = window.completed + window.failed
    x = {TIME: float(window.window_start_unix_us), COUNT: float(finished)}
    if window.kind != "component":
        x["events_per_window"] = _events(window)
    if finished:
        x |= {
            "error_ratio": window.error_ratio,
            "affected_ratio": min(1.0, window.affected_executions / finished),
        }
    if finished and window.mean_us > 0:
        x |= {"mean_us": window.mean_us, "p50_us": window.p50_us}
        if finished >= MIN_FOR_TAIL:
            x["p95_us"] = window.p95_us
    if window.broker_mean_us > 0:
        x["broker_mean_us"] = window.broker_mean_us
    for name in sorted(window.resources)[:MAX_RESOURCES]:
        x[RESOURCE + name] = window.resources[name].mean
    return x


def _events(window: HealthWindow) -> float:
    """Throughput as a count per window: that is what has Poisson noise."""
    length_s = (window.window_end_unix_us - window.window_start_unix_us) / 1e6
    return window.throughput_per_s * length_s


def scaled(natural: Features) -> dict[str, float]:
    """Return features on their scales."""
    return {name: value if name in RESERVED else scale_of(name).to(value) for name, value in natural.items()}
