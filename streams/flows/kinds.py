"""The formats of flows by their kind: one call to read any of them, one to write."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from schemas.definitions import ChainDefinition, Kind
from streams.flows.ai_brain import export_ai_brain, import_ai_brain
from streams.flows.chain_mapping import export_chain_mapping, import_chain_mapping
from streams.flows.custom import export_custom, import_custom
from streams.flows.documents import Document
from streams.flows.langgraph import export_langgraph, import_langgraph

IMPORTERS: Mapping[Kind, Callable[[Any, str], list[ChainDefinition]]] = {
    "langgraph": lambda document, name: [import_langgraph(document, name)],
    "ai_brain": lambda document, _: [import_ai_brain(document)],
    "chain_mapping": lambda document, _: import_chain_mapping(document),
    "custom": lambda document, name: [import_custom(document, name)],
}
"""Of a document and the name for a flow that does not say its own; each may raise ImportRefused."""

EXPORTERS: Mapping[Kind, Callable[[ChainDefinition], Document]] = {
    "langgraph": export_langgraph,
    "ai_brain": export_ai_brain,
    "chain_mapping": lambda definition: export_chain_mapping([definition]),
    "custom": export_custom,
}
"""Each may raise ValueError: the format cannot hold it."""


def import_flows(kind: Kind, document: Any, name: str) -> list[ChainDefinition]:
    """Return the canonical definitions of a foreign document; raises ImportRefused with all that is wrong with it."""
    return IMPORTERS[kind](document, name)


def export_flows(kind: Kind, definitions: Iterable[ChainDefinition]) -> list[Document]:
    """Return definitions as documents of a kind: one for all where the format holds several, else one for each."""
    found = list(definitions)
    return [export_chain_mapping(found)] if kind == "chain_mapping" else [EXPORTERS[kind](flow) for flow in found]
