"""The registry of flows: definitions, their revisions and dependencies in PostgreSQL, and from there on their topic."""

from connectors.registry.model import (
    CycleRefused,
    Dependency,
    Outcome,
    RegistryRefused,
    Revision,
    RevisionConflict,
    UnknownFlow,
)
from connectors.registry.outbox import relay_outbox
from connectors.registry.store import Registry

__all__ = [
    "CycleRefused",
    "Dependency",
    "Outcome",
    "Registry",
    "RegistryRefused",
    "Revision",
    "RevisionConflict",
    "UnknownFlow",
    "relay_outbox",
]
