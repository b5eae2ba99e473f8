"""Scores of a ranking against the one true answer. Ties are not the ranking's gain: the strict mid-rank."""

from collections.abc import Iterable, Mapping, Sequence

Ranks = Sequence[float | None]


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


def left_out(groups: Sequence[str], settings: Sequence[Ranks]) -> list[float | None]:
    """Return each case's rank under the settings that are best on the cases of all other groups.

    `settings`: ranks of all cases, per choice of settings. Best: most hits at 1, then at 3, then at 5; of equals the first.
    """
    chosen = {group: max(settings, key=lambda ranks: _quality(ranks, groups, group)) for group in set(groups)}
    return [chosen[group][number] for number, group in enumerate(groups)]


def _quality(ranks: Ranks, groups: Sequence[str], without: str) -> tuple[int, ...]:
    others = [rank for rank, group in zip(ranks, groups, strict=True) if group != without]
    return tuple(hits(others, k) for k in (1, 3, 5))
