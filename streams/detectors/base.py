"""What every detector is: River's interface, surprise as the common currency, an explicit way to be saved."""

import struct
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from math import copysign, erfc, isfinite, log, log10, sqrt
from typing import Any, NamedTuple, TypeAlias, TypeVar

from river.base import AnomalyDetector

Features: TypeAlias = Mapping[Any, float]
"""Feature name (str; Any because River takes any) -> value. A feature that could not be measured is absent,
never NaN.
"""
State: TypeAlias = list[Any]
"""What a detector remembers, as plain numbers, strings, bytes, lists and dicts: msgpack can hold it exactly.
"""

TIME = "unix_us"
"""Reserved feature: the event time in µs since 1970 UTC. Part of `x` so that the interface stays River's."""
COUNT = "count"
"""Reserved feature: how many observations the ratios of `x` rest on, and its latencies unless POOLED says
other.
"""
POOLED = "pooled_count"
"""Reserved feature: how many observations the latencies rest on, where they come from several windows."""
WINDOWS = "windows"
"""Reserved feature: how many windows the pooled features come from, 1 if absent."""
RESERVED = frozenset({TIME, COUNT, POOLED, WINDOWS})

MAX_FEATURES = 64
"""Features that a detector follows, the first ones it meets: the bound of its memory."""
LIMIT = 1e15
"""Values are clipped to ±LIMIT, so that squares and sums stay finite whatever comes."""
MAX_SURPRISE = 300.0


Held = TypeVar("Held")


class Finding(NamedTuple):
    """How one detector sees one feature: surprise is -log10 of a tail probability, 0 when usual.

    voices: how many detectors it counts for where agreement is asked; 2 if the probability is exact.
    """

    feature: str
    surprise: float
    expected: float | None = None
    voices: int = 1


class Detector(AnomalyDetector):
    """A detector over a dict of features; it composes with River's pipelines.

    Scoring never changes state, `learn_one` is the only thing that does. Both ignore features they cannot
    use, and both accept features that come and go. `save` and `load` are exact: what was restored scores bit
    for bit the same.
    """

    @abstractmethod
    def learn_one(self, x: Features) -> None:
        """Take `x` as seen."""

    @abstractmethod
    def explain_one(self, x: Features) -> list[Finding]:
        """Return a finding per feature that it has an opinion on (none while it knows too little)."""

    @abstractmethod
    def save(self) -> State:
        """Return the whole state."""

    @abstractmethod
    def load(self, state: State) -> None:
        """Take back what `save` gave, on a detector made with the same arguments."""

    def score_one(self, x: Features) -> float:
        """Return the largest surprise over the features: -log10 p, so 3 is one in a thousand."""
        return max((finding.surprise for finding in self.explain_one(x)), default=0.0)


def usable(x: Features) -> list[tuple[str, float]]:
    """Return the measured features of `x`, clipped to ±LIMIT: reserved ones and those not finite left out."""
    return [
        (name, value if -LIMIT < value < LIMIT else copysign(LIMIT, value))
        for name, value in x.items()
        if name not in RESERVED and isfinite(value)
    ]


def known(store: dict[str, Held], name: str, make: Callable[[], Held]) -> Held | None:
    """Return what is held for a feature, made if it is new; None if there are MAX_FEATURES others already."""
    held = store.get(name)
    if held is None and len(store) < MAX_FEATURES:
        held = store[name] = make()
    return held


def normal_surprise(z: float) -> float:
    """Return -log10 of the two-sided normal tail beyond |z|."""
    z = min(abs(z), 37.0)
    p = erfc(z / sqrt(2.0))
    # beyond 37 sd erfc underflows; at 36 it is still exact, so the cap is a number, not an error
    return min(-log10(p), MAX_SURPRISE) if p > 0 else MAX_SURPRISE


def t_surprise(t: float, freedom: float) -> float:
    """Return -log10 of the two-sided tail of Student's t, by Wallace's normal approximation (1959)."""
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    return normal_surprise(scale * sqrt(freedom * log(1 + t * t / freedom)))


def pack_floats(values: Iterable[float]) -> bytes:
    """Return values as little-endian doubles."""
    held = tuple(values)
    return struct.pack(f"<{len(held)}d", *held)


def unpack_floats(data: bytes) -> list[float]:
    """Return what `pack_floats` was given."""
    return list(struct.unpack(f"<{len(data) // 8}d", data))


def pack_singles(values: Iterable[float]) -> bytes:
    """Return values as little-endian 4-byte floats: exact only for values that went through `single`."""
    held = tuple(values)
    return struct.pack(f"<{len(held)}f", *held)


def unpack_singles(data: bytes) -> list[float]:
    """Return what `pack_singles` was given."""
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def single(value: float) -> float:
    """Round to what 4 bytes hold (7 digits)."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
