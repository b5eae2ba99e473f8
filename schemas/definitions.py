"""Definitions of flows: the declared contract that executions are held to (`flowchain.definitions.v1`, compacted)."""

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple, Self, TypeAlias

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from schemas.base import WITHOUT_CONTROLS, Name, Ratio, Record, UnixUs
from schemas.order import Arrow, find_cycle, reachable, successors

DurationMs = Annotated[float, Field(gt=0, le=86_400_000.0)]
Kind: TypeAlias = Literal["chain", "langgraph", "ai_brain", "chain_mapping", "custom"]
Text = Annotated[str, Field(max_length=1024)]
Whole = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Fact = Text | bool | Whole | Number | Annotated[tuple[Text, ...], Field(max_length=64)]
Facts = Annotated[dict[Name, Fact], Field(max_length=64)]
MAX_STEPS = 256
MAX_EDGES = 2048


class ChainStep(Record):
    """One declared step."""

    name: Name
    component: Name
    after: tuple[Name, ...] | None = Field(
        None, description="steps that must have ended before; the step before it in the list where left out"
    )
    expected_duration_ms: DurationMs | None = Field(None, description="longer is step.slow")
    deadline_ms: DurationMs | None = Field(
        None, description="at most so long after the steps before it ended; later is step.missing"
    )
    optional: bool = False
    repeated: bool = Field(False, description="may run several times in one execution")
    input: Name | None = None
    output: Name | None = None
    metadata: Facts = Field(default_factory=dict, description="what an importer keeps of the step for the way back")


class FlowEdge(Record):
    """One arrow between two steps: target comes after source."""

    source: Name
    target: Name
    condition: Annotated[str, Field(max_length=512, pattern=WITHOUT_CONTROLS)] | None = Field(
        None, description="taken only when this holds, in the words of the flow; always taken where left out"
    )
    loop: bool = Field(False, description="leads back to a step that has run: it orders nothing, and the steps between may repeat")
    data: Name | None = Field(None, description="type of what passes")


class SLO(Record):
    """What share of the executions of a chain must be good, over how long."""

    objective: Annotated[float, Field(gt=0, lt=1)] = Field(description="share of good executions, 0.999 = 99.9 %")
    window_days: Annotated[int, Field(ge=1, le=366)] = 30
    latency_ms: DurationMs | None = Field(None, description="an execution that takes longer is not good")


class ChainDefinition(Record):
    """A flow: its steps and what is expected of them."""

    name: Name
    version: Annotated[str, Field(min_length=1, max_length=64)] = "1"
    tenant: Name | None = Field(None, description="whose chain it is; every tenant's where left out")
    description: Annotated[str, Field(max_length=1024)] = ""
    steps: Annotated[tuple[ChainStep, ...], Field(min_length=1, max_length=MAX_STEPS)]
    effective_from_unix_us: UnixUs = Field(0, description="executions that began earlier are not held to it")
    kind: Kind = "chain"
    edges: Annotated[tuple[FlowEdge, ...], Field(max_length=MAX_EDGES)] | None = Field(
        None, description="the order of the steps as arrows, in place of `after`"
    )
    requires: Annotated[tuple[Name, ...], Field(max_length=MAX_STEPS)] = Field(
        (), description="other flows, of the tenant or of every tenant, that must work for this one"
    )
    error_budget_ratio: Ratio | None = Field(None, description="share of executions that may fail")
    slo: SLO | None = None
    metadata: Facts = Field(default_factory=dict, description="what an importer keeps of the flow for the way back")

    @model_validator(mode="after")
    def _steps_form_an_acyclic_order(self) -> Self:
        problems = [*_names(self), *_edges(self), *_requirements(self)] or [*_cycles(self)]
        if problems:
            reason = "; ".join(problem.reason for problem in problems)
            raise PydanticCustomError("definition", "{reason}", {"reason": reason, "problems": problems})
        return self


class Problem(NamedTuple):
    """What is wrong with a definition whose fields are right each for itself; `field` is its place in the definition."""

    field: tuple[str | int, ...]
    reason: str


NO_FACT = "is neither a text, a number, true or false, nor a list of texts"


def problems_of(error: ValidationError) -> list[Problem]:
    """Return all that a refused document was refused for, each with its field."""
    found = [problem for detail in error.errors(include_url=False) for problem in _problems(detail)]
    beneath = {problem.field[:depth] for problem in found for depth in range(len(problem.field))}
    # An array of which nothing is left, since all of it was refused, is not too short.
    return list(dict.fromkeys(p for p in found if p.field not in beneath or not p.reason.startswith("Tuple should have at least")))


def _problems(detail: ErrorDetails) -> list[Problem]:
    place = detail["loc"]
    if inner := detail.get("ctx", {}).get("problems"):
        return [Problem((*place, *problem.field), problem.reason) for problem in inner]
    if "metadata" in place[:-2]:  # one error for each type that a fact may have
        return [Problem(place[: place.index("metadata") + 2], NO_FACT)]
    return [Problem(place, detail["msg"])]


def order(definition: ChainDefinition) -> list[FlowEdge]:
    """Return all edges of a definition, loops included: those it gives, or those that `after` and the list stand for."""
    if definition.edges is not None:
        return list(definition.edges)
    return [edge for edge, _ in _listed(definition)]


def _listed(definition: ChainDefinition) -> Iterator[tuple[FlowEdge, tuple[str | int, ...]]]:
    """Yield the edges of a definition without `edges`, with the fields that say so."""
    before: str | None = None
    for index, step in enumerate(definition.steps):
        sources = step.after if step.after is not None else (before,) if before is not None else ()
        field = ("steps", index, "after") if step.after is not None else ("steps", index)
        for source in dict.fromkeys(sources):
            yield FlowEdge(source=source, target=step.name), field
        before = step.name


def _names(definition: ChainDefinition) -> Iterator[Problem]:
    names = {step.name for step in definition.steps}
    seen: set[str] = set()
    for index, step in enumerate(definition.steps):
        if step.name in seen:
            yield Problem(("steps", index, "name"), f"step {step.name!r} is defined twice")
        seen.add(step.name)
        for name in step.after or ():
            if name not in names:
                yield Problem(("steps", index, "after"), f"step {step.name!r} comes after {name!r}, which is no step")
        if step.after is not None and definition.edges is not None:
            yield Problem(("steps", index, "after"), f"step {step.name!r} has `after` in a definition with `edges`: one of both")


def _edges(definition: ChainDefinition) -> Iterator[Problem]:
    names = {step.name for step in definition.steps}
    seen: set[tuple[str, str, str | None]] = set()
    for index, edge in enumerate(definition.edges or ()):
        for end in ("source", "target"):
            if (name := getattr(edge, end)) not in names:
                yield Problem(("edges", index, end), f"edge {edge.source} → {edge.target}: {name!r} is no step")
        key = (edge.source, edge.target, edge.condition)
        if key in seen:
            yield Problem(("edges", index), f"edge {edge.source} → {edge.target} is given twice")
        seen.add(key)


def _requirements(definition: ChainDefinition) -> Iterator[Problem]:
    for index, name in enumerate(definition.requires):
        if name == definition.name:
            yield Problem(("requires", index), f"flows require each other: {name} → {name}")
        elif name in definition.requires[:index]:
            yield Problem(("requires", index), f"flow {name!r} is required twice")


def _cycles(definition: ChainDefinition) -> Iterator[Problem]:
    """Yield the cycle of the arrows that are no loops, or the loops that lead nowhere back."""
    edges = order(definition)
    arrows = [(edge.source, edge.target) for edge in edges if not edge.loop]
    if cycle := find_cycle(arrows):
        closing = (cycle[-2], cycle[-1])
        yield Problem(_field_of(definition, closing), f"steps form a cycle: {' → '.join(cycle)}")
        return
    after = successors(arrows)
    for index, edge in enumerate(edges):
        if edge.loop and edge.source not in reachable([edge.target], after):
            reason = f"edge {edge.source} → {edge.target} is marked as a loop, but nothing leads from {edge.target} to {edge.source}"
            yield Problem(("edges", index, "loop"), reason)


def _field_of(definition: ChainDefinition, arrow: Arrow) -> tuple[str | int, ...]:
    if definition.edges is None:
        return next(field for edge, field in _listed(definition) if (edge.source, edge.target) == arrow)
    return next(("edges", i) for i, edge in enumerate(definition.edges) if (edge.source, edge.target, edge.loop) == (*arrow, False))
