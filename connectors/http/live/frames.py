"""What a live stream is made of: a record of a topic, what it can be filtered by, and the position after it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas import topics
from schemas.topics import Topic

Position = Mapping[int, int]
"""Offset of the last record seen, per partition."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a record can be filtered by; empty where the record does not say."""

    tenant: str
    chains: frozenset[str] = frozenset()
    components: frozenset[str] = frozenset()
    severity: str = ""
    status: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One record as it is sent, encoded once for all who get it."""

    partition: int
    offset: int
    facts: Facts
    text: str
    """The message of a WebSocket: {"stream", "id", "data"}."""
    event: str
    """The same as a server-sent event."""


@dataclass(frozen=True)
class Stream:
    """One kind of live record."""

    name: str
    topic: Topic
    facts: Callable[[dict[str, Any]], Facts]
    sentence: str


def _names(*found: Any) -> frozenset[str]:
    return frozenset(name for name in found if name)


def _alert(record: dict[str, Any]) -> Facts:
    cause = record.get("cause") or {}
    hurt = [x["name"] for x in record["affected"] if x["kind"] == "component"]
    return Facts(
        record["tenant"], frozenset(record["affected_chains"]), _names(cause.get("component"), *hurt), record["severity"], record["status"]
    )


def _incident(record: dict[str, Any]) -> Facts:
    hurt = [x["name"] for x in record["blast_radius"] if x["kind"] == "component"]
    suspects = [x["component"] for x in record["suspects"]]
    return Facts(record["tenant"], frozenset(record["chains"]), _names(*hurt, *suspects), record["severity"], record["status"])


def _keyed(record: dict[str, Any]) -> Facts:
    """Return the facts of a record with a chain, a component and a user, each perhaps left out."""
    return Facts(
        record["tenant"], _names(record.get("chain")), _names(record.get("component")), "",
        record.get("status") or record.get("state", ""), record.get("user") or "",
    )  # fmt: skip


def _edge(record: dict[str, Any]) -> Facts:
    return Facts(record["tenant"], _names(record["chain"]), _names(record["source"], record["target"]))


def _definition(record: dict[str, Any]) -> Facts:
    components = _names(*(step["component"] for step in record["steps"]))
    return Facts(record.get("tenant") or "", _names(record["name"]), components)


STREAMS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        Stream("alerts", topics.ALERTS, _alert, "what pages a person, and its corrections"),
        Stream("incidents", topics.INCIDENTS, _incident, "incidents with suspects and blast radius"),
        Stream("anomalies", topics.ANOMALIES, _keyed, "unusual windows"),
        Stream("violations", topics.VIOLATIONS, _keyed, "broken promises of single executions"),
        Stream("health", topics.HEALTH, _keyed, "health windows of steps, chains and components"),
        Stream("dependencies", topics.DEPENDENCIES, _edge, "observed dependencies"),
        Stream("executions", topics.TRACES, _keyed, "executions that have ended"),
        Stream("slos", topics.SLO, _keyed, "error budgets of chains"),
        Stream("limits", topics.LIMITS, _keyed, "tenants near a limit of their tier, or at it"),
        Stream("flows", topics.DEFINITIONS, _definition, "changes of the registry"),
    )
}
"""Every live stream. A flow without a tenant is everybody's; its record says so by an empty tenant."""


def position_id(stream: str, position: Position) -> str:
    """Return a position as clients keep it: alerts@0:17,3:4."""
    return f"{stream}@" + ",".join(f"{partition}:{offset}" for partition, offset in sorted(position.items()))


def position_of(text: str) -> tuple[str, dict[int, int]]:
    """Return (stream, position) of an id; raises ValueError when it is none."""
    stream, at, places = text.partition("@")
    if not at or stream not in STREAMS:
        raise ValueError(f"not a position of a live stream: {text[:100]!r}")
    pairs = [place.split(":") for place in places.split(",") if place]
    return stream, {int(partition): int(offset) for partition, offset in pairs}


def frame(stream: Stream, partition: int, offset: int, facts: Facts, value: bytes, position: Position) -> Frame:
    """Return a record as it is sent; `position` is that after it."""
    ident, data = position_id(stream.name, position), value.decode()
    text = f'{{"stream":"{stream.name}","id":"{ident}","data":{data}}}'
    return Frame(partition, offset, facts, text, f"id: {ident}\nevent: {stream.name}\ndata: {data}\n\n")
