"""Which changes of a schema are refused, and what is said about them."""

from typing import Any

import pytest

from schemas.compatibility import incompatibilities

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0, "maximum": 10}


def record(required: tuple[str, ...] = ("name",), **fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {"name": TEXT, **fields},
        "required": list(required),
    }


def union(*kinds: str, **fields: Any) -> dict[str, Any]:
    members = {kind: record(type={"const": kind, "type": "string"}, **fields) for kind in kinds}
    return {"$defs": members, "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds]}


OPTIONAL = {"anyOf": [TEXT, {"type": "null"}], "default": None}
OPEN = {"type": "object", "properties": {"name": TEXT}}

ALLOWED = {
    "nothing": (record(), record()),
    "a new optional field": (record(), record(more=TEXT)),
    "a required field becomes optional": (record(("name", "more"), more=TEXT), record(more=TEXT)),
    "a wider bound": (record(n=COUNT), record(n={**COUNT, "maximum": 11})),
    "a bound less": (record(n=COUNT), record(n={"type": "integer"})),
    "a whole number becomes any number": (record(n=COUNT), record(n={**COUNT, "type": "number"})),
    "null as well": (record(more=TEXT), record(more=OPTIONAL)),
    "a new enum value": ({"enum": ["a", "b"]}, {"enum": ["a", "b", "c"]}),
    "a constant becomes an enum": ({"const": "a"}, {"enum": ["a", "b"]}),
    "an enum becomes text": ({"enum": ["a", "b"]}, {"type": "string", "minLength": 1}),
    "anything for text": (TEXT, {}),
    "a new kind of event": (union("made"), union("made", "sent")),
    "another description": (record(), {**record(), "description": "new", "title": "New"}),
    "an optional field in a kind of event": (union("made"), union("made", more=TEXT)),
    "a map of more": (
        {"type": "object", "additionalProperties": COUNT},
        {"type": "object", "additionalProperties": {"type": "integer"}},
    ),
    "types in a list": ({"type": ["string", "null"]}, OPTIONAL),
    "a closed record becomes open": (record(), OPEN),
}


@pytest.mark.parametrize(("old", "new"), ALLOWED.values(), ids=ALLOWED)
def test_allowed(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert incompatibilities(old, new) == []


REFUSED = {
    "a field removed": (record(more=TEXT), record(), ["$.more: the field was removed"]),
    "a required field added": (record(), record(("name", "more"), more=TEXT), ["$.more: a required field was added"]),
    "an optional field required": (
        record(more=TEXT), record(("name", "more"), more=TEXT), ["$.more: an optional field became required"],
    ),
    "another type": (record(), record(name=COUNT), ["$.name: string is not allowed any more, only integer"]),
    "a number made whole": ({"type": "number"}, COUNT, ["$: number is not allowed any more, only integer"]),
    "null no more": (record(more=OPTIONAL), record(more=TEXT), ["$.more: null is not allowed any more, only string"]),
    "a lower maximum": (record(n=COUNT), record(n={**COUNT, "maximum": 9}), ["$.n: maximum went from 10 to 9"]),
    "a higher minimum": (record(n=COUNT), record(n={**COUNT, "minimum": 1}), ["$.n: minimum went from 0 to 1"]),
    "a new limit": (TEXT, {**TEXT, "maxLength": 5}, ["$: maxLength went from none to 5"]),
    "a new pattern": (TEXT, {**TEXT, "pattern": "^a"}, ["$: pattern went from none to ^a"]),
    "an enum value less": ({"enum": ["a", "b"]}, {"enum": ["a"]}, ["$: 'b' is not allowed any more"]),
    "a constant outside of a limit": ({"const": "abc"}, {**TEXT, "maxLength": 2}, ["$: 'abc' is outside of the new bounds"]),
    "true for one": ({"const": 1}, {"const": True}, ["$: 1 is not allowed any more"]),
    "a kind of event less": (union("made", "sent"), union("made"), None),
    "a kind of two loses a field": (
        union("made", "sent", more=TEXT),
        {"$defs": union("made")["$defs"] | {"sent": union("sent", more=TEXT)["$defs"]["sent"]}, "oneOf": union("made", "sent")["oneOf"]},
        ["$<made>.more: the field was removed"],
    ),
    "an open record closed": (OPEN, {**OPEN, "additionalProperties": False}, ["$.*: nothing is allowed here any more"]),
    "a field in an open record": (OPEN, {**OPEN, "properties": {"name": TEXT, "more": TEXT}}, ["$.more: any value is not allowed any more, only string"]),
    "items": ({"type": "array", "items": COUNT}, {"type": "array", "items": TEXT}, ["$[]: integer is not allowed any more, only string"]),
    "a tuple": (
        {"type": "array", "prefixItems": [COUNT, COUNT], "items": False},
        {"type": "array", "prefixItems": [COUNT], "items": False},
        ["$[1]: nothing is allowed here any more"],
    ),
    "a list cut": ({"type": "array"}, {"type": "array", "maxItems": 3}, ["$: maxItems went from none to 3"]),
    "keys": (
        {"type": "object", "additionalProperties": COUNT},
        {"type": "object", "additionalProperties": COUNT, "propertyNames": {"maxLength": 3}},
        ["$.* (keys): maxLength went from none to 3"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "reasons"), REFUSED.values(), ids=REFUSED)
def test_refused(old: dict[str, Any], new: dict[str, Any], reasons: list[str] | None) -> None:
    found = incompatibilities(old, new)
    assert found
    assert reasons is None or found == reasons


def test_a_definition_that_contains_itself_is_compared_once() -> None:
    def tree(leaf: dict[str, Any]) -> dict[str, Any]:
        node = record(leaf=leaf, below={"type": "array", "items": {"$ref": "#/$defs/Node"}})
        return {"$ref": "#/$defs/Node", "$defs": {"Node": node}}

    assert incompatibilities(tree(TEXT), tree(TEXT)) == []
    assert incompatibilities(tree(TEXT), tree(COUNT)) == ["$.leaf: string is not allowed any more, only integer"]
