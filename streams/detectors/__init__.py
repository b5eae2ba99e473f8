"""Detectors: what is unusual about a window, one family per file, all behind `base.Detector`."""

from collections.abc import Callable

from streams.detectors.base import Detector
from streams.detectors.features import SHARES, noise_of
from streams.detectors.novelty import Novel
from streams.detectors.seasonal import Seasonal
from streams.detectors.statistical import Rates, RobustZ
from streams.detectors.trees import Trees

DETECTORS: dict[str, Callable[[], Detector]] = {
    "novelty": Novel,
    "robust_z": lambda: RobustZ(noise=noise_of),
    "rates": lambda: Rates(names=SHARES),
    "seasonal": lambda: Seasonal(noise=noise_of),
    "trees": lambda: Trees(noise=noise_of),
}
"""Name -> a fresh detector for health windows, on the scales of features.py."""


def make(names: tuple[str, ...]) -> dict[str, Detector]:
    """Return fresh detectors by name; raises ValueError on a name that is none."""
    unknown = sorted(set(names) - set(DETECTORS))
    if unknown:
        raise ValueError(f"no such detector: {', '.join(unknown)} (there are {', '.join(DETECTORS)})")
    return {name: DETECTORS[name]() for name in names}
