"""A chain's definition as a runner reads it: which step comes after which, and what is ready to run."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

Condition = Callable[[Any], bool]
"""Whether an arrow is taken, told from what the step before it returned."""


class PlannedStep(NamedTuple):
    """One step; `after`: the steps it comes after, each with the condition of the arrow between, if it has one."""

    name: str
    component: str | None
    after: tuple[tuple[str, str | None], ...]
    optional: bool = False
    deadline_ms: float | None = None


class Plan(NamedTuple):
    """A chain as it runs: steps in the order in which they stand in the definition."""

    chain: str
    version: str | None
    tenant: str | None
    steps: tuple[PlannedStep, ...]

    @property
    def conditions(self) -> set[str]:
        """The conditions of all arrows."""
        return {condition for step in self.steps for _, condition in step.after if condition}


def read_definition(source: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Return a definition: itself, or what a JSON file holds."""
    if isinstance(source, Mapping):
        return source
    loaded = json.loads(Path(source).read_text())
    if not isinstance(loaded, dict):
        raise ValueError(f"{source} holds no definition of a chain")
    return loaded


def fetch_definition(
    chain: str, url: str, api_key: str = "", *, tenant: str | None = None, timeout_s: float = 10.0
) -> Mapping[str, Any]:
    """Return the definition of a chain that is in force, from the API at `url`; OSError where it cannot be had."""
    query = f"?{urlencode({'tenant': tenant})}" if tenant else ""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    request = Request(f"{url.rstrip('/')}/v1/flows/{quote(chain, safe='')}{query}", headers=headers)
    with urlopen(request, timeout=timeout_s) as response:
        found: Mapping[str, Any] = json.load(response)["definition"]
    return found


def plan_of(definition: Mapping[str, Any]) -> Plan:
    """Return the plan of a definition in the shape of FlowChain's contract; ValueError says what is wrong with it.

    Arrows marked as loops order nothing: a step runs once.
    """
    try:
        steps = tuple(
            PlannedStep(
                step["name"], step.get("component"), after, bool(step.get("optional")), step.get("deadline_ms")
            )
            for step, after in zip(definition["steps"], _arrows(definition), strict=True)
        )
        plan = Plan(definition["name"], definition.get("version"), definition.get("tenant"), steps)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no definition of a chain: {type(error).__name__}: {error}") from error
    _check_order(plan)
    return plan


def _arrows(definition: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str | None], ...]]:
    edges = definition.get("edges")
    before: str | None = None
    for step in definition["steps"]:
        if edges is not None:
            incoming = [edge for edge in edges if edge["target"] == step["name"] and not edge.get("loop")]
            yield tuple((edge["source"], edge.get("condition")) for edge in incoming)
        else:
            after = step.get("after")
            sources = ([before] if before else []) if after is None else after
            yield tuple((source, None) for source in sources)
        before = step["name"]


def _check_order(plan: Plan) -> None:
    names = [step.name for step in plan.steps]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"chain {plan.chain!r} has no steps, or two of one name")
    unknown = {source for step in plan.steps for source, _ in step.after} - set(names)
    if unknown:
        raise ValueError(f"chain {plan.chain!r} comes after steps that it does not have: {', '.join(sorted(unknown))}")
    done: set[str] = set()
    while len(done) < len(names):
        ready = {step.name for step in plan.steps if step.name not in done and done.issuperset(s for s, _ in step.after)}
        if not ready:
            raise ValueError(f"the steps of chain {plan.chain!r} form a cycle")
        done |= ready


class Progress:
    """What has run of a plan: tells what is ready, and what a step is given. Not to be used by two threads at a time."""

    def __init__(self, plan: Plan, given: Any, conditions: Mapping[str, Condition]) -> None:
        self._given = given
        self._conditions = conditions
        self._waiting = list(plan.steps)
        self._outputs: dict[str, Any] = {}
        self._skipped: list[str] = []
        self._leads_on = {source for step in plan.steps for source, _ in step.after}

    def ready(self) -> list[PlannedStep]:
        """Return the steps whose time has come, each once; steps that no arrow leads to any more are skipped.

        Raises what a condition raises.
        """
        ready: list[PlannedStep] = []
        settled = set(self._outputs) | set(self._skipped)
        for step in list(self._waiting):
            if not settled.issuperset(source for source, _ in step.after):
                continue
            self._waiting.remove(step)
            if step.after and not self._taken(step):
                self._skipped.append(step.name)
                return ready + self.ready()
            ready.append(step)
        return ready

    def _taken(self, step: PlannedStep) -> list[str]:
        """Return the steps before this one whose arrows are taken."""
        return [
            source
            for source, condition in step.after
            if source in self._outputs and (condition is None or self._conditions[condition](self._outputs[source]))
        ]

    def input_of(self, step: PlannedStep) -> Any:
        """Return what a step is given: the chain's input, the output of the step before, or {step: output} of several."""
        if not step.after:
            return self._given
        if len(step.after) == 1:
            return self._outputs[step.after[0][0]]
        return {source: self._outputs[source] for source in self._taken(step)}

    def done(self, step: PlannedStep, output: Any) -> None:
        """Note what a step returned."""
        self._outputs[step.name] = output

    @property
    def skipped(self) -> list[str]:
        """The steps that no arrow led to."""
        return list(self._skipped)

    @property
    def output(self) -> Any:
        """What the last step returned; {step: output} where the chain ended in several."""
        ends = {name: output for name, output in self._outputs.items() if name not in self._leads_on}
        ends = ends or dict(list(self._outputs.items())[-1:])
        return next(iter(ends.values())) if len(ends) == 1 else ends or self._given
