"""AI Brain: a decision graph of agents, to a definition and back.

    {"brain": "ai_decision_making",
     "agents": [
       {"id": "multi_agent_analysis", "service": "MultiAgentOrchestrator", "inputs": ["feature_vectors"],
        "outputs": ["agent_results"], "expected_ms": 15, "confidence_threshold": 0.7, "fallbacks": ["rule_based_analysis"]},
       {"id": "rule_based_analysis"}, {"id": "consensus_generation", "service": "ConsensusEngine", "expected_ms": 10}],
     "decisions": [
       {"from": "multi_agent_analysis", "to": "consensus_generation", "when": "confidence >= 0.7"},
       {"from": "rule_based_analysis", "to": "consensus_generation"},
       {"from": "consensus_generation", "to": "multi_agent_analysis", "when": "no quorum", "again": true}]}

- An agent is a step; `service` is its component, its id where left out; `expected_ms` and `deadline_ms` as in a definition.
- One input or output is that of the step; several are facts of it (`inputs`, `outputs`).
- A decision is an edge, with a condition where it has `when`. `again` marks the ones that lead back; a cycle without is refused.
- Below its `confidence_threshold` (a fact of the step) an agent is replaced by its fallbacks: edges with the condition
  `confidence < threshold`.
- An agent that only conditions lead to is optional, unless it says `"optional": false`.

Normal form: agents in the order of the decisions, decisions sorted, fallbacks as fallbacks, defaults left out.
"""

import re
from typing import Any

from pydantic import Field

from schemas.base import WITHOUT_CONTROLS, Name, Ratio
from schemas.definitions import ChainDefinition, ChainStep, FlowEdge, Problem
from schemas.order import reachable, successors
from streams.flows.canonical import canonical
from streams.flows.documents import Document, ImportRefused, Part, Place, build, certain, head_of, plain, read


class _Strict(Part, extra="forbid"):
    pass


class _Agent(_Strict):
    id: Name
    service: Name | None = None
    inputs: list[Name] = Field(default_factory=list)
    outputs: list[Name] = Field(default_factory=list)
    expected_ms: float | None = None
    deadline_ms: float | None = None
    confidence_threshold: Ratio | None = None
    fallbacks: list[Name] = Field(default_factory=list)
    optional: bool | None = None
    repeated: bool = False
    metadata: dict[str, Any] = Field(default_factory=dict)


class _Decision(_Strict):
    source: Name = Field(alias="from")
    target: Name = Field(alias="to")
    when: str | None = None
    again: bool = False
    data: Name | None = None


class _Brain(Part, extra="allow"):
    brain: Name
    agents: list[_Agent] = Field(min_length=1)
    decisions: list[_Decision] = Field(default_factory=list)


def import_ai_brain(document: Any) -> ChainDefinition:
    """Return the canonical definition of a brain. Raises ImportRefused."""
    brain = read(_Brain, document)
    edges = [
        {"source": d.source, "target": d.target, "condition": d.when, "loop": d.again, "data": d.data} for d in brain.decisions
    ]
    places: list[Place] = [("decisions", index) for index in range(len(edges))]
    if lost := [index for index, agent in enumerate(brain.agents) if agent.fallbacks and agent.confidence_threshold is None]:
        raise ImportRefused(Problem(("agents", index, "fallbacks"), "there is no confidence_threshold") for index in lost)
    for index, agent in enumerate(brain.agents):
        for number, fallback in enumerate(agent.fallbacks):
            edges.append({"source": agent.id, "target": fallback, "condition": below(agent.confidence_threshold or 0.0)})
            places.append(("agents", index, "fallbacks", number))
    drawn: dict[str, list[Place]] = {"steps": [("agents", index) for index in range(len(brain.agents))], "edges": places}
    head = dict(brain.model_extra or {})
    plain = build("ai_brain", brain.brain, head, [_step(agent, False) for agent in brain.agents], edges, drawn)
    sure = sure_of(plain)
    steps = [_step(agent, agent.id not in sure if agent.optional is None else agent.optional) for agent in brain.agents]
    return build("ai_brain", brain.brain, head, steps, edges, drawn)


def below(threshold: float) -> str:
    """Return the condition under which an agent's fallbacks take over."""
    return f"confidence < {float(threshold)}"


def sure_of(definition: ChainDefinition) -> set[str]:
    """Return the steps that no condition can leave out, where the flow begins and ends at the ends of its edges."""
    edges = [edge for edge in definition.edges or () if not edge.loop]
    names = {step.name for step in definition.steps}
    first, left = names - {edge.target for edge in edges}, names - {edge.source for edge in edges}
    alone = reachable(first, successors((e.source, e.target) for e in edges if e.condition is None))
    return certain(first, edges, left) | alone


def _step(agent: _Agent, optional: bool) -> Document:
    facts = dict(agent.metadata)
    if agent.confidence_threshold is not None:
        facts["confidence_threshold"] = agent.confidence_threshold
    several = {"inputs": agent.inputs, "outputs": agent.outputs}
    facts |= {name: types for name, types in several.items() if len(types) > 1}
    return {
        "name": agent.id, "component": agent.service or agent.id, "expected_duration_ms": agent.expected_ms,
        "deadline_ms": agent.deadline_ms, "optional": optional, "repeated": agent.repeated, "metadata": facts,
        "input": agent.inputs[0] if len(agent.inputs) == 1 else None,
        "output": agent.outputs[0] if len(agent.outputs) == 1 else None,
    }  # fmt: skip


# -- the way back -----------------------------------------------------------------------------------------------------


def export_ai_brain(definition: ChainDefinition) -> Document:
    """Return a definition as a brain, in normal form."""
    flow = canonical(definition)
    sure = sure_of(flow)
    fallback = {edge for edge in flow.edges or () if _is_fallback(edge, flow)}
    replaced = {step.name: [edge.target for edge in flow.edges or () if edge in fallback and edge.source == step.name] for step in flow.steps}
    agents = [_agent(step, step.name in sure, replaced[step.name]) for step in flow.steps]
    decisions = [_decision(edge) for edge in flow.edges or () if edge not in fallback]
    return {"brain": flow.name, **head_of(flow, "ai_brain"), "agents": agents, "decisions": decisions}


def _is_fallback(edge: FlowEdge, flow: ChainDefinition) -> bool:
    source = next(step for step in flow.steps if step.name == edge.source)
    threshold = _threshold(source)
    return threshold is not None and edge.condition == below(threshold) and not (edge.loop or edge.data)


def _threshold(step: ChainStep) -> float | None:
    value = step.metadata.get("confidence_threshold")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 else None


def _agent(step: ChainStep, sure: bool, fallbacks: list[str]) -> Document:
    facts = dict(step.metadata)
    threshold = _threshold(step)
    if threshold is not None:
        del facts["confidence_threshold"]
    agent: Document = {
        "id": step.name, "service": None if step.component == step.name else step.component,
        "inputs": _types(step.input, facts, "inputs"), "outputs": _types(step.output, facts, "outputs"),
        "expected_ms": step.expected_duration_ms, "deadline_ms": step.deadline_ms, "confidence_threshold": threshold,
        "fallbacks": fallbacks, "optional": None if step.optional is not sure else step.optional,
        "repeated": step.repeated or None,
    }  # fmt: skip
    agent["metadata"] = {name: plain(value) for name, value in facts.items()}
    return {name: value for name, value in agent.items() if value not in (None, [], {})}


def _types(one: str | None, facts: dict[str, Any], fact: str) -> list[str]:
    """Return the types that an agent takes or gives; several come out of the facts."""
    several = facts.get(fact)
    if one is not None or not isinstance(several, tuple) or len(several) < 2 or not all(map(_is_name, several)):
        return [one] if one is not None else []
    del facts[fact]
    return list(several)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 128 and re.fullmatch(WITHOUT_CONTROLS, text) is not None


def _decision(edge: FlowEdge) -> Document:
    decision: Document = {"from": edge.source, "to": edge.target}
    if edge.condition is not None:
        decision["when"] = edge.condition
    if edge.loop:
        decision["again"] = True
    return decision | ({"data": edge.data} if edge.data else {})
