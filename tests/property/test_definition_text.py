"""Definitions as text: whatever is written is read back, by the readers that know lines as by those that do not."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flow_world import definitions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.definition_files import as_yaml, read_definitions_of
from connectors.located import Unreadable, read_json, read_yaml, write_yaml
from schemas.definitions import ChainDefinition
from streams.flows.canonical import canonical

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6) | st.sampled_from(["1e5", "yes", "~", "null", "0x1f", "2026-01-01", "1_000", "-", "=", "<<", ".5", "1.", "0o7"])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_json_is_read_as_the_standard_library_reads_it(value: Any, indent: Any, escaped: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)
    document = read_json(f" {text}\n")
    assert document.value == value
    if isinstance(value, dict) and indent:
        assert sorted(line for field, line in document.lines.items() if len(field) == 1)[:1] == [2][: len(value)]


@given(st.text(st.sampled_from('{}[],:"1-e.tfn \n\\u0'), max_size=12))
def test_what_is_no_json_is_refused_as_the_standard_library_refuses_it(text: str) -> None:
    try:
        expected = json.loads(text)
    except json.JSONDecodeError:
        with pytest.raises(Unreadable):
            read_json(text)
        return
    found = None
    with suppress(Unreadable):
        found = read_json(text)
    assert found is None or found.value == expected
    assert found is not None or text.count('"') > 3, "refused, and no key can be in it twice"


@given(VALUES)
def test_yaml_is_read_as_it_was_written(value: Any) -> None:
    [document] = read_yaml(write_yaml([value]))
    assert document.value == value
    assert type(document.value) is type(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(definitions(), min_size=1, max_size=2, unique_by=lambda x: x.name))
def test_definitions_are_read_as_they_were_written(tmp_path: Path, found: list[ChainDefinition]) -> None:
    found = [definition.model_copy(update={"requires": ()}) for definition in found]
    file = tmp_path / "flows.yaml"
    file.write_text(as_yaml(found), encoding="utf-8")
    assert [located.definition for located in read_definitions_of([file])] == list(map(canonical, found))
