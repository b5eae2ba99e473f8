"""JSON and YAML read so that every value knows its line: what is wrong in a file is told where it stands.

YAML is read by the rules of JSON: text, numbers, true, false and null as JSON has them (`yes` and a date are texts), no key
twice, and what anchors repeat is bounded.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

import yaml

Place = tuple[str | int, ...]
MOST_VALUES = 200_000
"""Values of a document, repeated ones counted anew: an anchor of anchors would be more than any memory holds."""


class Unreadable(ValueError):
    """A text is not of its format, or says something twice."""

    def __init__(self, line: int, reason: str, field: Place = ()) -> None:
        self.line, self.reason, self.field = line, reason, field
        super().__init__(f"line {line}: {reason}")


@dataclass(frozen=True)
class Document:
    """A plain value, and the line (from 1) of each value inside it by its place."""

    value: Any
    lines: dict[Place, int]

    def line(self, field: Place) -> int:
        """Return the line of a place, or of what it would be in where nothing is there."""
        while field and field not in self.lines:
            field = field[:-1]
        return self.lines.get(field, 1)

    def part(self, index: int) -> "Document":
        """Return one of a list of documents."""
        inside = {field[1:]: line for field, line in self.lines.items() if field[:1] == (index,)}
        return Document(self.value[index], inside)


# -- YAML -------------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Texts, numbers, true, false and null of JSON; everything else that is not quoted is text too."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 as the library declares it


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what either kind of YAML would not read as text, or not as the same."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Escape what does not print: line ends that Unicode knows are folded otherwise."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)

_SCALARS = (("null", r"null|~|", ["n", "~", ""]), ("bool", r"true|false", ["t", "f"]), ("int", r"-?(0|[1-9][0-9]*)", list("-0123456789")),
            ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", list("-0123456789")))  # fmt: skip
for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def write_yaml(documents: Sequence[Any]) -> str:
    """Return values as YAML, a document each, in the order of their keys."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, explicit_start=len(documents) > 1)


def read_yaml(text: str) -> list[Document]:
    """Return the documents of a YAML text; raises Unreadable."""
    loader = _Loader(text)
    found = []
    try:
        while loader.check_node() and (node := loader.get_node()) is not None:
            reader = _Yaml()
            value = reader.take(node, ())
            found.append(Document(value, reader.lines))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(mark.line + 1 if mark else 1, f"no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise Unreadable(1, f"no YAML: {str(error).splitlines()[0]}") from error
    finally:
        loader.dispose()
    return found


class _Yaml:
    """Takes a node apart into plain values and lines."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}

    def take(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.lines[place] = line
        if len(self.lines) > MOST_VALUES:
            raise Unreadable(line, f"more than {MOST_VALUES:,} values", place)
        if len(place) > 100:
            raise Unreadable(line, "nested more than 100 deep", place)
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, place))
        if isinstance(node, yaml.SequenceNode):
            return [self.take(inner, (*place, index)) for index, inner in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return _scalar(node, place)

    def _pairs(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise Unreadable(key.start_mark.line + 1, "a key is no text", place)
            if key.value in seen:
                raise Unreadable(key.start_mark.line + 1, "is given twice", (*place, key.value))
            seen.add(key.value)
            yield key.value, self.take(value, (*place, key.value))
            self.lines[(*place, key.value)] = key.start_mark.line + 1


def _scalar(node: yaml.ScalarNode, place: Place) -> Any:
    kind, text = node.tag.rpartition(":")[2], node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text == "true"
    if kind in ("int", "float"):
        return _number(text, node.start_mark.line + 1, place)
    if kind == "str":
        return text
    raise Unreadable(node.start_mark.line + 1, f"of the type {kind}, which JSON does not have", place)


def _number(text: str, line: int, place: Place) -> int | float:
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError as error:  # more digits than Python converts
        raise Unreadable(line, "no number that can be held", place) from error


# -- JSON -------------------------------------------------------------------------------------------------------------

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_WORDS: Final = {"true": True, "false": False, "null": None}


def read_json(text: str) -> Document:
    """Return the document of a JSON text; raises Unreadable."""
    reader = _Json(text)
    try:
        value, end = reader.take(0, ())
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except json.JSONDecodeError as error:
        raise Unreadable(error.lineno, f"no JSON: {error.msg}, column {error.colno}") from error
    return Document(value, reader.lines)


class _Json:
    """A reader by recursive descent; Python's own knows no lines."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self._text = text
        self._counted, self._line = 0, 1

    def take(self, at: int, place: Place) -> tuple[Any, int]:
        """Return the value that begins at or after an index, and the index after it and the space behind it."""
        at = self._space(at)
        self.lines[place] = self._line_of(at)
        if len(place) > 100:
            raise Unreadable(self.lines[place], "nested more than 100 deep", place)
        first = self._text[at : at + 1]
        value: Any
        if first == "{":
            value, at = self._object(at, place)
        elif first == "[":
            value, at = self._array(at, place)
        elif first == '"':
            value, at = scanstring(self._text, at + 1, True)
        elif number := _NUMBER.match(self._text, at):
            value, at = _number(number.group(), self.lines[place], place), number.end()
        else:
            value, at = self._word(at)
        return value, self._space(at)

    def _space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def _line_of(self, at: int) -> int:
        """Return the line of an index, which is never smaller than the one before."""
        self._line += self._text.count("\n", self._counted, at)
        self._counted = at
        return self._line

    def _word(self, at: int) -> tuple[Any, int]:
        for word, value in _WORDS.items():
            if self._text.startswith(word, at):
                return value, at + len(word)
        raise json.JSONDecodeError("Expecting value", self._text, at)

    def _object(self, at: int, place: Place) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = self._space(at + 1)
        if self._text[at : at + 1] == "}":
            return found, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise json.JSONDecodeError("Expecting a key in double quotes", self._text, at)
            line = self._line_of(at)
            key, at = scanstring(self._text, at + 1, True)
            if key in found:
                raise Unreadable(line, "is given twice", (*place, key))
            found[key], at = self.take(self._expect(self._space(at), ":"), (*place, key))
            self.lines[(*place, key)] = line
            if self._text[at : at + 1] == "}":
                return found, at + 1
            at = self._space(self._expect(at, ","))

    def _array(self, at: int, place: Place) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = self._space(at + 1)
        if self._text[at : at + 1] == "]":
            return found, at + 1
        while True:
            value, at = self.take(at, (*place, len(found)))
            found.append(value)
            if self._text[at : at + 1] == "]":
                return found, at + 1
            at = self._expect(at, ",")

    def _expect(self, at: int, sign: str) -> int:
        if self._text[at : at + 1] != sign:
            raise json.JSONDecodeError(f"Expecting {sign!r}", self._text, at)
        return at + 1
