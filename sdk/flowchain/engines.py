"""How a ChainRunner runs the steps that are ready: in threads, or in tasks of asyncio."""

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from datetime import UTC, datetime
from threading import Thread
from types import TracebackType
from typing import Any, NamedTuple, Self

import flowchain
from flowchain.plan import Plan, PlannedStep, Progress
from flowchain.results import ChainExecution, Retry, StepResult, UserContext
from flowchain.spans import Scope

Function = Callable[[Any], Any]


class Limits(NamedTuple):
    """Of each step by its name, and of the whole run."""

    retry: Mapping[str, Retry]
    timeout_s: Mapping[str, float | None]
    deadline_s: float | None


class Run:
    """One run of a plan, open while its block runs; `execution` says what became of it."""

    def __init__(
        self, plan: Plan, functions: Mapping[str, Function], progress: Progress, user: UserContext, limits: Limits
    ) -> None:
        self.functions = functions
        self._progress = progress
        self._limits = limits
        self._began_s = time.monotonic()
        self.execution = ChainExecution(plan.chain, user, datetime.now(UTC))
        self._scope = flowchain.execution(
            plan.chain,
            user=user.user_id,
            tier=user.subscription_tier,
            tenant=user.tenant_id or plan.tenant,
            version=plan.version,
        )

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self.execution.execution_id = getattr(self._scope, "id", None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        execution = self.execution
        execution.output, execution.skipped = self._progress.output, self._progress.skipped
        execution.complete(time.monotonic() - self._began_s)
        error = error or execution.error
        self._scope.__exit__(type(error) if error else None, error, trace)

    def ready(self) -> list[PlannedStep]:
        """Return the steps to begin now; none once the run has failed."""
        if self.execution.error is not None:
            return []
        try:
            return self._progress.ready()
        except Exception as error:  # noqa: BLE001 - a condition of the host: it fails the run
            self.execution.error = error
            return []

    def begin(self, step: PlannedStep) -> "Attempts":
        """Return the attempts at a step."""
        return Attempts(self, step, self._progress.input_of(step))

    def settle(self, step: PlannedStep, result: StepResult) -> None:
        """Note what became of a step."""
        self.execution.add_step_result(result)
        if result.error is None:
            self._progress.done(step, result.output_data)
        elif step.optional:
            self._progress.done(step, self._progress.input_of(step))
        elif self.execution.error is None and isinstance(result.error, Exception):
            self.execution.error = result.error

    def scope(self, step: PlannedStep, attempt: int) -> Scope:
        """Return the tracked step of an attempt; the steps before it are its parents."""
        contexts = {result.name: result.context for result in self.execution.step_results}
        parents = [contexts.get(source) for source, _ in step.after]
        return flowchain.step(step.name, component=step.component, parents=parents, attempt=attempt)

    def left_s(self, step: PlannedStep, began_s: float) -> float | None:
        """Return how long an attempt at a step that began at `began_s` may take; None = for ever."""
        now_s = time.monotonic()
        limits = [self._limits.timeout_s[step.name]]
        if step.deadline_ms is not None:
            limits.append(began_s + step.deadline_ms / 1000 - now_s)
        if self._limits.deadline_s is not None:
            limits.append(self._began_s + self._limits.deadline_s - now_s)
        return min((limit for limit in limits if limit is not None), default=None)

    def pause_s(self, step: PlannedStep, attempt: int, error: Exception) -> float | None:
        """Return how long to wait before the next attempt; None = there is none."""
        return self._limits.retry[step.name].pause_s(attempt, error)


class Attempts:
    """The attempts at one step: `go_on` until it says no, a `scope` around each."""

    def __init__(self, run: Run, step: PlannedStep, given: Any) -> None:
        self._run = run
        self._step = step
        self._began_s = time.monotonic()
        self.given = given
        self.function = run.functions[step.name]
        self.result = StepResult(step.name, step.component)

    def scope(self) -> Scope:
        """Return the tracked step of the next attempt."""
        self.result.attempts += 1
        return self._run.scope(self._step, self.result.attempts)

    def limit_s(self) -> float | None:
        """Return how long the attempt may take; TimeoutError where no time is left."""
        left_s = self._run.left_s(self._step, self._began_s)
        if left_s is not None and left_s <= 0:
            raise TimeoutError(f"no time left for step {self._step.name}")
        return left_s

    def succeeded(self, output: Any) -> None:
        """Note what the step returned."""
        self.result.output_data, self.result.error = output, None

    def failed(self, error: Exception) -> float | None:
        """Note a failed attempt; return the pause before the next one, None = there is none."""
        self.result.error = error
        pause_s = self._run.pause_s(self._step, self.result.attempts, error)
        left_s = self._run.left_s(self._step, self._began_s)
        return None if pause_s is None or (left_s is not None and left_s <= pause_s) else pause_s

    def ended(self) -> StepResult:
        """Return what became of the step."""
        self.result.execution_time = time.monotonic() - self._began_s
        return self.result


def run_in_threads(run: Run) -> None:
    """Run a chain of plain functions; a step that is ready alone runs in the caller's thread, unless it has a time limit."""
    running: dict[Future[StepResult], PlannedStep] = {}
    with ThreadPoolExecutor(thread_name_prefix="flowchain-runner") as pool:
        while True:
            ready = run.ready()
            if len(ready) == 1 and not running:
                run.settle(ready[0], _attempt(run.begin(ready[0])))
                continue
            running |= {pool.submit(copy_context().run, _attempt, run.begin(step)): step for step in ready}
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run.settle(running.pop(future), future.result())


def _attempt(attempts: Attempts) -> StepResult:
    pause_s: float | None = 0.0
    while pause_s is not None:
        if pause_s:
            time.sleep(pause_s)
        try:
            with attempts.scope() as scope:
                attempts.result.context = scope.context
                attempts.succeeded(_within(attempts.limit_s(), attempts.function, attempts.given))
            pause_s = None
        except Exception as error:  # noqa: BLE001 - of the host's function: it is in the result
            pause_s = attempts.failed(error)
    return attempts.ended()


def _within(limit_s: float | None, function: Function, given: Any) -> Any:
    if limit_s is None:
        return function(given)
    answer: Future[Any] = Future()
    context = copy_context()

    def work() -> None:
        try:
            answer.set_result(context.run(function, given))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            answer.set_exception(error)

    Thread(target=work, name="flowchain-runner-limited", daemon=True).start()
    wait([answer], limit_s)
    if not answer.done():
        raise TimeoutError(f"longer than {limit_s:.3f} s")
    return answer.result()


async def run_in_tasks(run: Run) -> None:
    """Run a chain of coroutine functions and plain ones, which run in threads; cancels what runs when a step fails."""
    running: dict[asyncio.Task[StepResult], PlannedStep] = {}
    try:
        while True:
            for step in run.ready():
                running[asyncio.create_task(_attempt_async(run.begin(step)))] = step
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                run.settle(running.pop(task), task.result())
            if run.execution.error is not None:
                return
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _attempt_async(attempts: Attempts) -> StepResult:
    pause_s: float | None = 0.0
    while pause_s is not None:
        if pause_s:
            await asyncio.sleep(pause_s)
        try:
            with attempts.scope() as scope:
                attempts.result.context = scope.context
                async with asyncio.timeout(attempts.limit_s()):
                    attempts.succeeded(await _called(attempts.function, attempts.given))
            pause_s = None
        except Exception as error:  # noqa: BLE001 - of the host's function: it is in the result
            pause_s = attempts.failed(error)
    return attempts.ended()


async def _called(function: Function, given: Any) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(given)
    found = await asyncio.to_thread(function, given)
    return await found if inspect.isawaitable(found) else found
