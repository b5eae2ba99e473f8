"""What the registry says: outcomes, revisions, dependencies, and why it refuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from schemas.definitions import ChainDefinition


class RegistryRefused(Exception):
    """The registry does not take a change; nothing of it was stored."""


class UnknownFlow(RegistryRefused):
    """There is no such flow, or revision, that the tenant can see."""


class RevisionConflict(RegistryRefused):
    """Somebody else changed the flow: it is not at the revision that was expected."""

    def __init__(self, name: str, expected: int, found: int) -> None:
        self.name, self.expected, self.found = name, expected, found
        super().__init__(f"flow {name!r} is at revision {found}, not at {expected}: somebody else has changed it")


class CycleRefused(RegistryRefused):
    """Required flows would form a cycle; `path` begins and ends with the same flow."""

    def __init__(self, path: Sequence[str]) -> None:
        self.path = tuple(path)
        super().__init__(f"required flows form a cycle: {' → '.join(path)}")


@dataclass(frozen=True)
class Outcome:
    """What became of one definition."""

    status: Literal["created", "changed", "unchanged", "deleted"]
    tenant: str | None
    name: str
    id: str
    revision: int


@dataclass(frozen=True)
class Revision:
    """A stored revision of a flow; tenant None = every tenant's."""

    tenant: str | None
    name: str
    revision: int
    id: str
    definition: ChainDefinition
    author: str
    created_at: datetime
    deleted: bool

    @staticmethod
    def of(row: dict[str, Any]) -> "Revision":
        """Return what a row of flow_definitions says."""
        definition = ChainDefinition.model_validate_json(row["text"])
        return Revision(
            row["tenant"] or None, row["name"], row["revision"], row["id"], definition, row["author"], row["created_at"], row["deleted"]
        )


@dataclass(frozen=True)
class Dependency:
    """A dependency of flows or components. Declared by a definition's revision, or observed in what happened.

    `kind`: requires (flow on flow), step (component after component); observed: call, flow, topic.
    """

    tenant: str | None
    provenance: Literal["declared", "observed"]
    kind: Literal["requires", "step", "call", "flow", "topic"]
    flow: str
    source: str
    target: str
    topic: str
    events: int
    failed: int
    revision: int
    first_seen_at: datetime | None
    last_seen_at: datetime | None
