"""Two-sample Bayes factors over class counts, scanned over an unknown onset.

Dirichlet-multinomial evidence: do the later units have rates of their own, or do they follow the reference? Units of one
period are alike, so n of them count as n / (1 + (n - 1) rho) independent ones (Kish's design effect).
"""

from math import log, pi

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SHIFT = 7


def log_gamma(x: Array) -> Array:
    """Return ln Γ(x) for x > 0: recurrence up to x + 7, then Stirling's series (error below 1e-11)."""
    product = np.ones_like(x)
    for step in range(_SHIFT):
        product = product * (x + step)
    z = x + _SHIFT
    inverse = 1.0 / z
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    result: Array = (z - 0.5) * np.log(z) - z + 0.5 * log(2 * pi) + series - np.log(product)
    return result


def effective(counts: Array, rho: float) -> Array:
    """Return class counts shrunk to the number of independent units they stand for."""
    total = counts.sum(-1, keepdims=True)
    result: Array = counts / (1.0 + (np.maximum(total, 1.0) - 1.0) * rho)
    return result


def _evidence(counts: Array, prior: Array) -> Array:
    total = prior.sum(-1)
    spread = (log_gamma(prior + counts) - log_gamma(prior)).sum(-1)
    result: Array = log_gamma(total) - log_gamma(total + counts.sum(-1)) + spread
    return result


def log_factor(reference: Array, later: Array, prior: Array, own_prior: Array, rho: float) -> Array:
    """Return ln BF of "later has its own rates" against "later follows reference", over the last axis."""
    counts = effective(later, rho)
    return _evidence(counts, np.broadcast_to(own_prior, counts.shape)) - _evidence(
        counts, effective(reference, rho) + prior
    )


def scan(windows: Array, normal: Array, prior: Array, own_prior: Array, rho: float, rho_start: float) -> Array:
    """Return ln BF per item and onset, [items, onsets], from counts [items, windows, classes], normal [items, classes].

    Onset 0 = before the first window: everything seen against normal alone (0 without normal). Onset i: the windows
    from i on must differ from normal AND from the windows before i, which are lent two units of normal.
    """
    before = np.cumsum(windows, axis=1) - windows
    later = windows.sum(1, keepdims=True) - before
    known = normal.sum(-1, keepdims=True)
    lent = before + 2.0 * (normal / np.maximum(known, 1.0))[:, None, :]
    against_before = log_factor(lent, later, prior[:, None, :], own_prior, rho)
    against_normal = log_factor(normal[:, None, :], later, prior[:, None, :], own_prior, rho)
    has_normal = known[:, :1] > 0
    factors: Array = np.where(has_normal, np.minimum(against_normal, against_before), against_before)
    start = log_factor(normal, later[:, 0], prior, own_prior, rho_start)
    factors[:, 0] = np.where(has_normal[:, 0], start, 0.0)
    return factors


def only_rises(factors: Array, windows: Array, normal: Array) -> Array:
    """Return factors without the credit for changes to the better: the mean class must rise over both references."""
    grades = np.arange(windows.shape[-1])
    before = np.cumsum(windows, axis=1) - windows
    later = windows.sum(1, keepdims=True) - before
    level = _mean_class(later, grades)
    earlier = np.where(before.sum(-1) > 0, _mean_class(before, grades), -1.0)
    usual = _mean_class(normal, grades)[:, None]
    result: Array = np.where((level > usual) & (level > earlier), factors, np.minimum(factors, 0.0))
    return result


def _mean_class(counts: Array, grades: NDArray[np.int_]) -> Array:
    result: Array = (counts * grades).sum(-1) / np.maximum(counts.sum(-1), 1e-9)
    return result


def log_mean_exp(values: Array, weights: Array | None = None) -> Array:
    """Return ln of the (weighted) mean of exp(values) over the last axis."""
    top = values.max(-1, keepdims=True)
    result: Array = top[..., 0] + np.log(np.average(np.exp(values - top), axis=-1, weights=weights))
    return result
