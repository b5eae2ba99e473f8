"""Strict mid-rank: a tie is nobody's gain."""

from streams.scoring.ranks import hits, mid_rank


def test_rank_counts_higher_ones_and_half_of_the_equal_ones() -> None:
    scores = {"a": 3.0, "b": 2.0, "c": 2.0, "d": 1.0}
    assert [mid_rank(scores, name) for name in "abcd"] == [1, 2.5, 2.5, 4]


def test_what_was_not_ranked_has_no_rank_and_is_a_miss() -> None:
    assert mid_rank({"a": 1.0}, "b") is None
    assert [hits([1.0, 1.5, None], k) for k in (1, 3, 100)] == [1, 2, 2]
