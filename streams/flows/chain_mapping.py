"""Chain Mapping: straight lists of steps by the name of their chain, to definitions and back.

    Data_Flow_Chains:
      MT5_To_Database_Chain:
        steps:
          - {name: mt5_data_ingestion, component: DataBridge, input: raw_mt5_ticks, output: normalized_ticks, expected_duration: 50}
          - {name: data_validation, component: DataValidator, input: normalized_ticks, output: validated_data}

- `expected_duration` is in milliseconds; `expected_duration_ms` is the same.
- Each step comes after the one before it in the list, unless it says `after`, or the chain says `edges`.
- A step and a chain may have any other field of a definition's.

Normal form: `expected_duration_ms`; `edges` only where the steps are no straight line; defaults left out; chains by name.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from schemas.definitions import ChainDefinition, FlowEdge, Problem, order
from streams.flows.canonical import canonical, edge_key
from streams.flows.documents import Document, ImportRefused, Part, build, head_of, read

TOP = "Data_Flow_Chains"
SHORT, LONG = "expected_duration", "expected_duration_ms"


class _Chain(Part, extra="allow"):
    steps: list[dict[str, Any]]
    edges: list[dict[str, Any]] | None = None


class _Document(Part, extra="forbid"):
    chains: dict[str, _Chain] = Field(alias=TOP, min_length=1)


def import_chain_mapping(document: Any) -> list[ChainDefinition]:
    """Return the canonical definitions of a mapping, by name. Raises ImportRefused with the problems of all chains."""
    found, problems = [], []
    for name, chain in read(_Document, document).chains.items():
        steps = [_step(step) for step in chain.steps]
        try:
            found.append(build("chain_mapping", name, chain.model_extra or {}, steps, chain.edges, {}))
        except ImportRefused as refused:
            problems += [Problem((TOP, name, *field), reason) for field, reason in refused.problems]
    if problems:
        raise ImportRefused(problems)
    return sorted(found, key=lambda definition: definition.name)


def _step(step: Document) -> Document:
    return {LONG if name == SHORT and LONG not in step else name: value for name, value in step.items()}


def export_chain_mapping(definitions: Iterable[ChainDefinition]) -> Document:
    """Return definitions as a mapping, in normal form. Raises ValueError where two have the same name."""
    flows = sorted(map(canonical, definitions), key=lambda definition: definition.name)
    chains = {flow.name: _chain(flow) for flow in flows}
    if len(chains) < len(flows):
        raise ValueError("two definitions have the same name: a chain mapping tells chains apart by nothing else")
    return {TOP: chains}


def _chain(flow: ChainDefinition) -> Document:
    chain: Document = {**head_of(flow, "chain_mapping"), "steps": [step.model_dump(mode="json", exclude_defaults=True) for step in flow.steps]}
    if flow.edges is not None and list(flow.edges) != _line(flow):
        chain["edges"] = [edge.model_dump(mode="json", exclude_defaults=True) for edge in flow.edges]
    return chain


def _line(flow: ChainDefinition) -> list[FlowEdge]:
    """Return the edges that the list of steps alone stands for."""
    listed = flow.model_copy(update={"edges": None})
    return sorted(order(listed), key=edge_key)
