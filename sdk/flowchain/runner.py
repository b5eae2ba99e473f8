"""Runs a chain of Python callables by its definition, tracked: retries, time limits, branches side by side, sync and async."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from flowchain.engines import Function, Limits, Run, run_in_tasks, run_in_threads
from flowchain.plan import Condition, Plan, Progress, plan_of, read_definition
from flowchain.results import ChainExecution, Retry, UserContext

T = TypeVar("T")


class ChainRunner:
    """Runs the chain of a definition: a mapping, or a JSON file, in the shape of `flowchain.definitions.v1`.

    `functions`: by the names of the steps, each takes one argument: the chain's input, what the step before it returned, or
    {step: output} where it comes after several. Steps that are ready at the same time run side by side. A step that
    fails ends the chain; an optional one hands on what it was given. `retry`, `timeout_s`: for all steps, or by name. A step's
    time limit is of each attempt; its `deadline_ms` in the definition is of all attempts together. `deadline_s`: of the whole run.
    `conditions`: what the conditions of arrows mean, by their text.

    A function that runs longer than it may is given up: a coroutine is cancelled, a thread goes on and nobody waits for it.
    ValueError where definition and functions do not fit.
    """

    def __init__(
        self,
        definition: Mapping[str, Any] | str | Path,
        functions: Mapping[str, Function],
        *,
        retry: Retry | Mapping[str, Retry] | None = None,
        timeout_s: float | Mapping[str, float] | None = None,
        deadline_s: float | None = None,
        conditions: Mapping[str, Condition] | None = None,
    ) -> None:
        self.plan: Plan = plan_of(read_definition(definition))
        self._functions = dict(functions)
        names = [step.name for step in self.plan.steps]
        self._limits = Limits(
            _by_name(retry or Retry(), names, Retry()), _by_name(timeout_s, names, None), deadline_s
        )
        self._conditions = dict(conditions or {})
        _require("functions of steps", {step.name for step in self.plan.steps}, self._functions)
        _require("conditions", self.plan.conditions, self._conditions)

    def run(self, input_data: Any = None, user_context: UserContext | None = None) -> ChainExecution:
        """Run the chain and return what became of it; errors of steps are in the result, not raised.

        TypeError where a function is a coroutine function: those are run by `run_async`.
        """
        coroutines = [name for name, function in self._functions.items() if inspect.iscoroutinefunction(function)]
        if coroutines:
            raise TypeError(f"coroutine functions are run by run_async: {', '.join(coroutines)}")
        with self._begun(input_data, user_context) as run:
            run_in_threads(run)
        return run.execution

    async def run_async(self, input_data: Any = None, user_context: UserContext | None = None) -> ChainExecution:
        """Run the chain and return what became of it; functions that are no coroutine functions run in threads."""
        with self._begun(input_data, user_context) as run:
            await run_in_tasks(run)
        return run.execution

    def _begun(self, input_data: Any, user_context: UserContext | None) -> Run:
        progress = Progress(self.plan, input_data, self._conditions)
        return Run(self.plan, self._functions, progress, user_context or UserContext(), self._limits)


def _by_name(value: T | Mapping[str, T], names: Iterable[str], default: T) -> dict[str, T]:
    """Return a value for each name: the same, or each its own."""
    return {name: value.get(name, default) if isinstance(value, Mapping) else value for name in names}


def _require(what: str, wanted: set[str], given: Mapping[str, object]) -> None:
    missing = sorted(wanted - set(given))
    if missing:
        raise ValueError(f"no {what}: {', '.join(missing)}")
