"""Keys of state entries: what is put in comes out again, and different parts never share a key."""

from hypothesis import given
from hypothesis import strategies as st

from streams.ids import SEPARATOR, join_key, split_key

parts = st.lists(st.text(st.sampled_from("ab[_\x1b\x1f")), min_size=1, max_size=4)


@given(parts)
def test_parts_of_any_characters_come_back(found: list[str]) -> None:
    assert split_key(join_key(found)) == found


@given(parts, parts)
def test_different_parts_have_different_keys(one: list[str], other: list[str]) -> None:
    assert (join_key(one) == join_key(other)) == (one == other)


def test_parts_without_control_characters_stand_as_they_always_did() -> None:
    assert join_key(["acme", "order", "ship", ""]) == SEPARATOR.join(["acme", "order", "ship", ""])
