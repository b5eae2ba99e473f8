"""Keys of state entries: what is put in comes out again, and different parts never share a key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.ids import key_of, parts_of

parts = st.lists(st.text(st.sampled_from('ab[",\\\x1b\x1f')), min_size=1, max_size=4)


@given(parts)
def test_parts_of_any_characters_come_back(found: list[str]) -> None:
    assert parts_of(key_of(*found)) == found


@given(parts, parts)
def test_different_parts_have_different_keys(one: list[str], other: list[str]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


@pytest.mark.parametrize("key", ["", "[]", "a/b", "[1]", '{"a":"b"}'])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError):
        parts_of(key)
