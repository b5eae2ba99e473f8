"""What the formats of others share: reading a document, the facts that are kept of it, and building the definition.

A format has no place for everything that a definition says, nor a definition for everything that a format says. What
a format lacks is written into it as facts of ours; what a definition lacks is kept in `metadata` as facts of the format.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.definitions import ChainDefinition, ChainStep, FlowEdge, Kind, Problem, problems_of
from schemas.order import reachable, successors
from streams.flows.canonical import canonical

Document = dict[str, Any]
Place = tuple[str | int, ...]
"""Where something stands in a document."""
PACKED = "json:"
"""A fact under this name is no plain value: JSON text, which the way back takes apart again."""
OURS = "flowchain"
"""Under this a document says what its format has no word for."""
LONGEST = 1024
LONGEST_NAME = 100
MOST = 48
STEP_FIELDS = ("expected_duration_ms", "deadline_ms", "repeated", "input", "output")
"""What is promised of a step, and no foreign format knows; `optional` is derived where the format has branches."""


class ImportRefused(ValueError):
    """A document is none of its kind: all that is wrong, each with its place in the document."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{'.'.join(map(str, field)) or 'document'}: {reason}" for field, reason in self.problems))


class Part(BaseModel):
    """A part of a foreign document; fields that are not named are passed over, or kept by whoever says so."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


P = TypeVar("P", bound=BaseModel)


def read(model: type[P], document: Any) -> P:
    """Return a document as its model; raises ImportRefused naming the places."""
    try:
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise ImportRefused(problems_of(error)) from error
    except (TypeError, ValueError) as error:
        raise ImportRefused([Problem((), f"is no JSON document: {error}")]) from error


# -- facts ------------------------------------------------------------------------------------------------------------


def facts_of(document: Mapping[str, Any], without: Iterable[str] = ()) -> Document:
    """Return what can be kept of a document's fields: plain values as they are, others as JSON text.

    Null, what is longer than 1,024 characters, names longer than 100, and fields after the 48th are left out.
    """
    passed = set(without)
    found: Document = {}
    for name, value in document.items():
        fact = _fact(name, value)
        if name not in passed and fact is not None and len(found) < MOST:
            found[fact[0]] = fact[1]
    return found


def _fact(name: str, value: Any) -> tuple[str, Any] | None:
    if value is None or not 0 < len(name) <= LONGEST_NAME:
        return None
    if isinstance(value, bool) or _is_number(value) or _is_texts(value):
        return name, value
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str).decode()
    return None if len(text) > LONGEST else (name if isinstance(value, str) else PACKED + name, text)


def fields_of(facts: Mapping[str, Any]) -> Document:
    """Return the fields that `facts_of` kept."""
    found: Document = {}
    for name, value in facts.items():
        bare = name.removeprefix(PACKED)
        unpacked = _unpacked(value) if bare != name and bare not in facts else None
        if unpacked is not None and _fact(bare, unpacked) == (name, value):
            found[bare] = unpacked
        else:
            found[name] = plain(value)
    return found


def plain(value: Any) -> Any:
    """Return a fact as a document holds it."""
    return list(value) if isinstance(value, tuple) else value


def _unpacked(text: Any) -> Any:
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST and all(isinstance(x, str) and len(x) <= LONGEST for x in value)


def kept_facts(step: ChainStep, derived: ChainStep) -> Document:
    """Return the facts of a step that reading its part of a document anew would not give."""
    return {name: plain(value) for name, value in step.metadata.items() if derived.metadata.get(name) != value}


# -- definitions ------------------------------------------------------------------------------------------------------


def head_of(definition: ChainDefinition, kind: Kind) -> Document:
    """Return the fields of a flow besides its name, steps and edges; `kind` where it is not that of the format."""
    head = definition.model_dump(mode="json", exclude_defaults=True, exclude={"name", "steps", "edges", "kind"})
    return head if definition.kind == kind else {**head, "kind": definition.kind}


def promises_of(step: ChainStep) -> Document:
    """Return what is promised of a step, as far as anything is."""
    return {name: value for name in STEP_FIELDS if (value := getattr(step, name)) not in (None, False)}


def build(
    kind: Kind, name: str, head: Mapping[str, Any], steps: Sequence[Document], edges: Sequence[Document] | None,
    places: Mapping[str, Sequence[Place]],
) -> ChainDefinition:  # fmt: skip
    """Return the canonical definition; `places`: where the steps and edges stand in the document, for the errors."""
    fields: Document = {"kind": kind, "name": name, **head, "steps": list(steps)}
    if edges is not None:
        fields["edges"] = list(edges)
    try:
        return canonical(ChainDefinition.model_validate_json(json.dumps(fields)))
    except ValidationError as error:
        raise ImportRefused(Problem(_placed(p.field, places), p.reason) for p in problems_of(error)) from error


def _placed(field: Place, places: Mapping[str, Sequence[Place]]) -> Place:
    """Return the place in the document of a definition's field."""
    if len(field) > 1 and isinstance(field[1], int) and field[1] < len(known := places.get(str(field[0]), ())):
        return (*known[field[1]], *field[2:])
    return field


# -- graphs -----------------------------------------------------------------------------------------------------------

Pair = tuple[str, str]


def loops(starts: Iterable[str], names: Iterable[str], arrows: Iterable[Pair]) -> set[Pair]:
    """Return the arrows that lead back to where a walk from the starts came from; the same for the same graph."""
    after = successors(arrows)
    back: set[Pair] = set()
    done: set[str] = set()
    for start in [*sorted(starts), *sorted(names)]:
        path, ahead = ([start], [iter(after.get(start, ()))]) if start not in done else ([], [])
        while path:
            following = next(ahead[-1], None)
            if following is None:
                done.add(path.pop())
                ahead.pop()
            elif following in path:
                back.add((path[-1], following))
            elif following not in done:
                path.append(following)
                ahead.append(iter(after.get(following, ())))
    return back


def certain(entries: Iterable[str], edges: Iterable[FlowEdge], exits: Iterable[str]) -> set[str]:
    """Return the steps that every completed execution runs.

    `entries`: those that begin it for certain. Certain is what comes unconditionally after a certain step, and what
    lies on every way from a certain step to an exit; the others are reached by conditions only.
    """
    kept = [(edge.source, edge.target, edge.condition) for edge in edges if not edge.loop]
    forward = successors((source, target) for source, target, _ in kept)
    always = successors((source, target) for source, target, condition in kept if condition is None)
    found, ends = reachable(entries, always), set(exits)
    names = {name for source, target, _ in kept for name in (source, target)}
    past = {name: _ends_without(name, kept, ends) for name in names - found} if ends else {}
    while True:
        must = {name for name, free in past.items() if any(name in reachable([known], forward) for known in found - free)}
        if must <= found:
            return found
        found = reachable(found | must, always)


def _ends_without(name: str, arrows: Iterable[tuple[str, str, str | None]], exits: set[str]) -> set[str]:
    """Return the steps from which an exit can be reached without passing `name`."""
    back = successors((target, source) for source, target, _ in arrows if name not in (source, target))
    return reachable(exits - {name}, back)
