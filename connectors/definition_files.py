"""Files of definitions, YAML and JSON: read with all that is wrong in one go, each with its file, line and field; written."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from connectors.located import Document, Place, Unreadable, read_json, read_yaml, write_yaml
from schemas.definitions import ChainDefinition, Kind, problems_of
from schemas.order import find_cycle
from streams.flows.canonical import canonical
from streams.flows.documents import ImportRefused
from streams.flows.kinds import import_flows

YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class FileProblem:
    """What is wrong at one place of a file."""

    file: Path
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.reason}"


class FilesRefused(ValueError):
    """Files hold something that is no definition: all of it, in the order of files and lines."""

    def __init__(self, problems: Iterable[FileProblem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (str(problem.file), problem.line)))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Located:
    """A definition and where it stands."""

    definition: ChainDefinition
    file: Path
    document: Document

    def problem(self, field: Place, reason: str) -> FileProblem:
        """Return what is wrong at a field of it."""
        return FileProblem(self.file, self.document.line(field), _dotted(field), reason)


def read_definitions_of(files: Sequence[Path]) -> list[Located]:
    """Return the definitions of files; a document is one or a list of them. Raises FilesRefused, also for a cycle of required
    flows, for one flow defined twice, or where a file cannot be read."""
    found: list[Located] = []
    problems: list[FileProblem] = []
    for file in files:
        try:
            documents = list(_parts(read_file(file)))
        except FilesRefused as refused:
            problems += refused.problems
            continue
        for document in documents:
            try:
                found.append(_located(file, document))
            except FilesRefused as refused:
                problems += refused.problems
    if problems := [*problems, *_between(found)]:
        raise FilesRefused(problems)
    return found


def read_file(file: Path) -> list[Document]:
    """Return the documents of a file; raises FilesRefused."""
    try:
        text = file.read_text(encoding="utf-8")
        return read_yaml(text) if file.suffix.lower() in YAML else [read_json(text)]
    except OSError as error:
        raise FilesRefused([FileProblem(file, 1, "file", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise FilesRefused([FileProblem(file, line, "file", "is not UTF-8")]) from error
    except Unreadable as error:
        raise FilesRefused([FileProblem(file, error.line, _dotted(error.field), error.reason)]) from error


def import_file(kind: Kind, file: Path, name: str | None = None) -> list[ChainDefinition]:
    """Return the definitions of a file of a foreign kind; `name` for a flow that does not say its own, else the file's name.

    Raises FilesRefused.
    """
    found: list[ChainDefinition] = []
    problems: list[FileProblem] = []
    for document in read_file(file):
        try:
            found += import_flows(kind, document.value, name or file.stem)
        except ImportRefused as refused:
            problems += [FileProblem(file, document.line(field), _dotted(field), reason) for field, reason in refused.problems]
    if problems:
        raise FilesRefused(problems)
    return found


def as_yaml(definitions: Iterable[ChainDefinition]) -> str:
    """Return definitions as YAML in canonical form, a document each; defaults are left out."""
    return write_yaml([as_json(definition) for definition in definitions])


def _dotted(field: Place) -> str:
    return ".".join(map(str, field)) or "definition"


def _parts(documents: Iterable[Document]) -> Iterable[Document]:
    for document in documents:
        if isinstance(document.value, list):
            yield from (document.part(index) for index in range(len(document.value)))
        elif document.value is not None:  # a document of comments only
            yield document


def _located(file: Path, document: Document) -> Located:
    try:
        return Located(ChainDefinition.model_validate_json(json.dumps(document.value)), file, document)
    except ValidationError as error:
        problems = [FileProblem(file, document.line(field), _dotted(field), reason) for field, reason in problems_of(error)]
        raise FilesRefused(problems) from error


def _between(found: Sequence[Located]) -> list[FileProblem]:
    """Return what is wrong with definitions that are each right: one flow twice, or a cycle of required ones."""
    problems, seen = [], dict[tuple[str | None, str], Located]()
    for located in found:
        key = (located.definition.tenant, located.definition.name)
        if first := seen.get(key):
            problems.append(located.problem(("name",), f"flow {key[1]!r} is defined at {first.file}:{first.document.line(())} already"))
        seen.setdefault(key, located)
    return problems or _cycle(found)


def _cycle(found: Sequence[Located]) -> list[FileProblem]:
    """Return the cycle of required flows that a tenant would see: of its own definitions and those of every tenant."""
    for tenant in dict.fromkeys(located.definition.tenant for located in found):
        visible = [located for located in found if located.definition.tenant in (tenant, None)]
        arrows = [(located.definition.name, name) for located in visible for name in located.definition.requires]
        if cycle := find_cycle(arrows):
            closing = next(x for x in visible if x.definition.name == cycle[-2] and cycle[-1] in x.definition.requires)
            return [required(closing, cycle)]
    return []


def required(located: Located, cycle: Sequence[str]) -> FileProblem:
    """Return the problem of a definition that closes a cycle of required flows."""
    names = located.definition.requires
    index = next((names.index(name) for name in names if name in cycle), 0)
    return located.problem(("requires", index), f"required flows form a cycle: {' → '.join(cycle)}")


def as_json(definition: ChainDefinition) -> dict[str, Any]:
    """Return a definition as JSON holds it, in canonical form without defaults."""
    return canonical(definition).model_dump(mode="json", exclude_defaults=True)
