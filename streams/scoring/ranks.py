"""Scores of a ranking against the one true answer. Ties are not the ranking's gain: the strict mid-rank."""

from collections.abc import Iterable, Mapping


def mid_rank(scores: Mapping[str, float], truth: str) -> float | None:
    """Return 1 + candidates scored strictly higher + half of the others scored equal; None if the truth was not ranked."""
    if truth not in scores:
        return None
    own = scores[truth]
    higher = sum(score > own for score in scores.values())
    equal = sum(score == own for score in scores.values()) - 1
    return 1 + higher + equal / 2


def hits(ranks: Iterable[float | None], k: int) -> int:
    """Count ranks that are at most k; what was not ranked is a miss at every k."""
    return sum(rank is not None and rank <= k for rank in ranks)
