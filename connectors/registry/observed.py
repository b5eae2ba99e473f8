"""Observed dependencies as the drift of a definition takes them."""

from collections.abc import Iterable
from datetime import datetime

from connectors.registry.model import Dependency, Revision
from streams.flows.dependencies import SeenEdge


def is_of(seen: Dependency, found: Revision, own: set[tuple[str | None, str]]) -> bool:
    """Tell whether an observed edge is one of executions that a flow's definition holds."""
    if seen.flow != found.name:
        return False
    return seen.tenant == found.tenant if found.tenant else (seen.tenant, seen.flow) not in own


def seen_of(observed: Iterable[Dependency]) -> list[SeenEdge]:
    """Return observed edges, those of several tenants together."""
    found: dict[tuple[str, str, str], list[Dependency]] = {}
    for x in observed:
        found.setdefault((x.kind, x.source, x.target), []).append(x)
    return [
        SeenEdge(
            one[0].kind, one[0].source, one[0].target, one[0].topic, sum(x.events for x in one),  # type: ignore[arg-type]
            min(_us(x.first_seen_at) for x in one), max(_us(x.last_seen_at) for x in one),
        )
        for one in found.values()
    ]  # fmt: skip


def _us(time: datetime | None) -> int:
    return round(time.timestamp() * 1_000_000) if time is not None else 0
