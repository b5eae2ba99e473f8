"""What differs between two definitions, field by field, and whether it can break an execution that is under way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from schemas.definitions import ChainDefinition
from streams.flows.canonical import canonical


@dataclass(frozen=True)
class Change:
    """One difference. `old` or `new` is None where there was, or is, nothing.

    `breaking`: an execution that kept to the old definition may violate the new one.
    """

    field: str
    old: Any
    new: Any
    breaking: bool

    def __str__(self) -> str:
        if self.old is None:
            text = f"{self.field} added: {self.new}"
        elif self.new is None:
            text = f"{self.field} removed (was {self.old})"
        else:
            text = f"{self.field}: {self.old} → {self.new}"
        return f"{text} [breaking]" if self.breaking else text


def diff(old: ChainDefinition, new: ChainDefinition) -> list[Change]:
    """Return the differences from old to new: of the flow, then of its steps, then of its edges."""
    before, after = canonical(old), canonical(new)
    return [
        *_fields("", _head(before), _head(after)),
        *_named("steps", _steps(before), _steps(after), lambda step: not step.get("optional")),
        *_named("edges", _edges(before), _edges(after), lambda edge: not edge.get("loop"), removal_breaks=False),
    ]


Fields = dict[str, Any]


def _head(definition: ChainDefinition) -> Fields:
    return definition.model_dump(mode="json", exclude_defaults=True, exclude={"steps", "edges"})


def _steps(definition: ChainDefinition) -> dict[str, Fields]:
    return {step.name: step.model_dump(mode="json", exclude_defaults=True, exclude={"name"}) for step in definition.steps}


def _edges(definition: ChainDefinition) -> dict[str, Fields]:
    found = {}
    for edge in definition.edges or ():
        condition = "" if edge.condition is None else f" if {edge.condition}"
        kept = edge.model_dump(mode="json", exclude_defaults=True, exclude={"source", "target", "condition"})
        found[f"{edge.source} → {edge.target}{condition}"] = kept
    return found


def _named(
    of: str, old: dict[str, Fields], new: dict[str, Fields], binds: Callable[[Fields], bool], removal_breaks: bool = True
) -> Iterator[Change]:
    """Compare things with names. An added one breaks where it binds, a removed one where runs would find it unexpected."""
    for name in dict.fromkeys([*old, *new]):
        field = f"{of}[{name}]"
        if name not in new:
            yield Change(field, old[name] or name, None, removal_breaks)
        elif name not in old:
            yield Change(field, None, new[name] or name, binds(new[name]))
        else:
            yield from _fields(f"{field}.", old[name], new[name])


def _fields(prefix: str, old: Fields, new: Fields) -> Iterator[Change]:
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _fields(f"{prefix}{name}.", before, after)
        elif before != after:
            yield Change(f"{prefix}{name}", before, after, _tightens(prefix, name, before, after))


def _tightens(prefix: str, name: str, old: Any, new: Any) -> bool:
    """Tell whether a field's new value allows less of a step or edge than its old one; left out, it allows everything."""
    if not prefix.startswith(("steps[", "edges[")):
        return False
    if name in ("expected_duration_ms", "deadline_ms"):
        return new is not None and (old is None or new < old)
    return name in ("optional", "repeated", "loop") and bool(old) and not new
