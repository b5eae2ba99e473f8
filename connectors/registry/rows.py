"""A definition as rows of PostgreSQL and records of the outbox."""

from collections.abc import Iterable, Iterator
from typing import Any

from connectors.definitions import key_of
from connectors.rows.position import timestamp
from schemas.definitions import ChainDefinition, ChainStep
from schemas.topics import DEFINITIONS
from streams.flows.dependencies import declared_edges
from streams.flows.versions import Version, in_force

Row = tuple[Any, ...]


def definition_row(flow: ChainDefinition, revision: int, content_id: str, author: str, deleted: bool = False) -> Row:
    """Return the row of flow_definitions of a canonical definition."""
    return (
        flow.tenant or "", flow.name, revision, content_id, flow.kind, flow.version, flow.description, flow.encode().decode(),
        len(flow.steps), timestamp(flow.effective_from_unix_us), deleted, author,
    )  # fmt: skip


def chain_rows(flow: ChainDefinition, revision: int) -> Iterator[Row]:
    """Yield the rows of flow_chains of a canonical definition."""
    for position, step in enumerate(flow.steps):
        after = [edge.source for edge in flow.edges or () if edge.target == step.name and not edge.loop]
        yield (flow.tenant or "", flow.name, revision, position, *_step(step, list(dict.fromkeys(after))))


def _step(step: ChainStep, after: list[str]) -> Row:
    return (
        step.name, step.component, after, _microseconds(step.expected_duration_ms), _microseconds(step.deadline_ms),
        step.optional, step.repeated, step.input, step.output,
    )  # fmt: skip


def _microseconds(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1000)


def dependency_rows(flow: ChainDefinition, revision: int) -> Iterator[Row]:
    """Yield the declared rows of flow_dependencies."""
    tenant = flow.tenant or ""
    for name in flow.requires:
        yield (tenant, "declared", "requires", flow.name, flow.name, name, "", revision)
    for edge in declared_edges(flow):
        yield (tenant, "declared", "step", flow.name, edge.source, edge.target, edge.topic, revision)


def records(tenant: str, name: str, before: Iterable[Version], new: Version, value: bytes) -> list[Row]:
    """Return the outbox's records that a new revision brings about: itself, and tombstones of what holds nobody any more."""
    old = [*before]
    held = {version.effective_from_us for version in in_force([*old, new])}
    gone = {version.effective_from_us for version in in_force(old)} - held
    found: list[Row] = [] if new.deleted else [(tenant, DEFINITIONS.name, key_of(tenant, name, new.effective_from_us), value)]
    return found + [(tenant, DEFINITIONS.name, key_of(tenant, name, time), None) for time in sorted(gone)]
