"""Is a rise worth a report? Conformal: it must exceed nearly all rises that the component itself shows in normal operation.

No shape of a distribution is assumed, and a component whose series is constant in normal needs no spread: any rise is
more than it has ever shown. Source: our own study over the PetShop cases (docs).
"""

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from streams.rootcause.bayes import Array
from streams.rootcause.windows import rise

_ROUNDING = 1e-12


class GateSettings(Struct, frozen=True):
    """How sure a report has to be."""

    windows: int = 5
    """Windows looked at together."""
    quantile: float = 0.99
    """Share of the normal rises that must be smaller."""
    min_blocks: int = 20
    """Normal blocks of windows that must be known of a component; before, its rise says nothing."""
    lead_share: float = 0.5
    """The leading suspect's own rise counts, too, if it explains at least this share of the target's damage."""


DEFAULTS = GateSettings()


class Gate:
    """The limits of one metric, by component."""

    def __init__(self, normal: Mapping[str, Array], settings: GateSettings = DEFAULTS) -> None:
        """`normal`: values per window in normal operation, nan where there is none."""
        self._settings = settings
        self._limits = {name: limit for name, values in normal.items() if (limit := self._limit(values)) is not None}

    def _limit(self, values: Array) -> float | None:
        size = self._settings.windows
        blocks = (values[start : start + size] for start in range(len(values) - size + 1))
        rises = [rise(known) for block in blocks if len(known := block[~np.isnan(block)]) > 2]
        return float(np.quantile(rises, self._settings.quantile)) if len(rises) >= self._settings.min_blocks else None

    def opens(self, target: str, shares: Mapping[str, float], values: Mapping[str, Array]) -> bool:
        """Return whether to report, from the shares of a target's damage and the values of the windows looked at."""
        if not shares:
            return False
        lead = max(sorted(shares), key=lambda name: shares[name])
        asked = {target, lead} if shares[lead] >= self._settings.lead_share else {target}
        return any(self._is_unusual(name, values[name]) for name in asked if name in values)

    def _is_unusual(self, name: str, values: Array) -> bool:
        limit = self._limits.get(name)
        return limit is not None and rise(values[~np.isnan(values)]) > limit + _ROUNDING
