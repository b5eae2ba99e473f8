"""How an execution runs: stage after stage, through topics and calls, and how faults show in it."""

from dataclasses import dataclass
from typing import NamedTuple

from flowchain import Consumed, Context, Step, StepOptions
from infra.simulator.faults import FaultKind
from infra.simulator.kernel import Process, Routine
from infra.simulator.topology import VERSION, Chain, Tenant, Work
from infra.simulator.world import World

UNSEEN: tuple[FaultKind, ...] = ("silence", "clock_skew")
CALL_TIMEOUT_US = 1_000_000
ERRORS = {
    "database-service": ("OperationalError", "could not write: deadlock detected", "database.pool:118"),
    "trading-engine": ("OrderRejectedError", "venue refused the order", "trading.venue:77"),
    "data-bridge": ("DataFormatError", "tick without a price", "bridge.mt5:203"),
}
OTHER_ERROR = ("InternalError", "unhandled state", "service.main:42")


class Outcome(NamedTuple):
    """How a step ended: `error` None is well; `context` None means that it never began or never ended."""

    context: Context | None
    error: tuple[str, str] | None = None


NEVER = Outcome(None)


@dataclass(slots=True)
class Run:
    """One execution on its way; `parents`: what else than the step before its first step joins."""

    chain: Chain
    root: Context
    began_us: int
    parents: tuple[Context, ...] = ()


class Engine:
    """Runs executions in a world. `finished` is told the last step's context of each that ended well."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.finished: list[tuple[Chain, Context]] = []

    def execution(self, chain: Chain, tenant: Tenant, parents: tuple[Context, ...] = ()) -> Process:
        """Run one execution of `chain` for a user of `tenant`."""
        world = self._world
        first = chain.stages[0][0].service
        if world.faults.crash(first, world.kernel.now_us, world.kernel.now_us, tenant.name):
            world.truth.executions_prevented += 1
            return
        user = f"{tenant.name}-u{world.random.randrange(tenant.users)}"
        tracker = world.trackers[first]
        root = tracker.new_flow(chain.name, tenant=tenant.name, user=user, tier=tenant.tier, version=VERSION)
        tracker.execution_started(root)
        world.truth.executions_started += 1
        yield from self._stages(Run(chain, root, world.kernel.now_us, parents))

    def _stages(self, run: Run) -> Routine[None]:
        """Run stage after stage; an execution one of whose steps never ended is left open, as it would be."""
        before: tuple[Context, ...] = (run.root,)
        last = run.chain.stages[0][0]
        for number, stage in enumerate(run.chain.stages):
            parents = before[1:] + (run.parents if number == 0 else ())
            outcomes = yield from self._stage(run, stage, before[0], parents)
            if any(outcome.context is None for outcome in outcomes):
                return
            for work, outcome in zip(stage, outcomes, strict=True):
                last = work
                if outcome.error is not None:
                    return self._failed(run, work, outcome.error)
            before = tuple(outcome.context for outcome in outcomes if outcome.context is not None)
        self._completed(run, last, before[-1])

    def _stage(
        self, run: Run, stage: tuple[Work, ...], context: Context, parents: tuple[Context, ...]
    ) -> Routine[list[Outcome]]:
        if len(stage) == 1:
            outcome = yield from self._handed_over(run, stage[0], context, parents)
            return [outcome]
        branches = [self._handed_over(run, work, context, parents) for work in stage]
        return (yield from self._world.kernel.all(branches))

    def _completed(self, run: Run, last: Work, context: Context) -> None:
        world = self._world
        duration_us = world.kernel.now_us - run.began_us
        world.trackers[last.service].execution_completed(run.root, duration_us=duration_us)
        world.truth.executions_completed += 1
        self.finished.append((run.chain, context))

    def _failed(self, run: Run, work: Work, error: tuple[str, str]) -> None:
        world = self._world
        duration_us = world.kernel.now_us - run.began_us
        world.trackers[work.service].execution_failed(run.root, *error, duration_us=duration_us)
        world.truth.executions_failed += 1

    def _handed_over(
        self, run: Run, work: Work, context: Context, parents: tuple[Context, ...]
    ) -> Routine[Outcome]:
        """Bring the work to its service by topic or network, and try it as often as it may be."""
        consumed = yield from self._way_to(run, work, context)
        outcome = yield from self._step(run, work, context, parents, consumed, 1)
        for attempt in range(2, work.retries + 2):
            if outcome.context is None or outcome.error is None:
                break
            yield self._world.network_us() * attempt
            outcome = yield from self._step(run, work, context, parents, consumed, attempt)
        return outcome

    def _way_to(self, run: Run, work: Work, context: Context) -> Routine[Consumed | None]:
        world, tenant = self._world, context.flow.tenant
        if work.topic is None:
            if context.span is not None:
                yield world.network_us()
            return None
        backlog_us, fault = world.faults.backlog_us(work.service, world.kernel.now_us, tenant)
        if fault is not None:
            world.blame(fault, run.chain, work.name, run.root)
        broker_us = world.broker_us() + backlog_us
        yield broker_us
        return world.produce(work.topic, run.root.flow.execution, broker_us)

    def _step(
        self,
        run: Run,
        work: Work,
        context: Context,
        parents: tuple[Context, ...],
        consumed: Consumed | None,
        attempt: int,
    ) -> Routine[Outcome]:
        """Run one step where its service is up; work before its calls, calls, work after them."""
        world = self._world
        began_us = world.kernel.now_us
        if self._is_down(run, work, began_us):
            return NEVER
        options = StepOptions(consumed=consumed, parents=parents, attempt=attempt, context=context)
        step = Step(world.trackers[work.service], work.name, options)
        inner = step.start()
        assert inner is not None  # there is a context
        self._blame_unseen(run, work)
        work_us = self._work_us(run, work)
        step.resources = {"cpu_us": work_us * 3 // 10, "memory_bytes": 1 << 20}
        yield work_us * 6 // 10
        failed = yield from self._calls(run, work, inner)
        yield work_us * 4 // 10
        if self._is_down(run, work, began_us):
            return NEVER
        error = failed or self._error(run, work, inner)
        if error is None:
            step.complete()
        else:
            step.fail(*error)
        return Outcome(inner, error)

    def _is_down(self, run: Run, work: Work, since_us: int) -> bool:
        world = self._world
        crash = world.faults.crash(work.service, since_us, world.kernel.now_us, run.root.flow.tenant)
        if crash is not None:
            world.blame(crash, run.chain, work.name, run.root)
        return crash is not None

    def _blame_unseen(self, run: Run, work: Work) -> None:
        """Faults that falsify what is reported, not what is done."""
        world, tenant = self._world, run.root.flow.tenant
        for kind in UNSEEN:
            fault = world.faults.active(kind, work.service, world.kernel.now_us, tenant)
            if fault is not None:
                world.blame(fault, run.chain, work.name, run.root)

    def _work_us(self, run: Run, work: Work) -> int:
        world = self._world
        factor, fault = world.faults.slowness(work.service, world.kernel.now_us, run.root.flow.tenant)
        if fault is not None:
            world.blame(fault, run.chain, work.name, run.root)
        return round(world.work_us(work.service, work.expected_ms) * factor)

    def _error(self, run: Run, work: Work, inner: Context) -> tuple[str, str] | None:
        """Decide by lot whether the service fails by itself now; it logs that."""
        world = self._world
        fault = world.faults.active("error_burst", work.service, world.kernel.now_us, run.root.flow.tenant)
        if fault is None or world.random.random() >= fault.power:
            return None
        world.blame(fault, run.chain, work.name, run.root)
        error_type, message, location = ERRORS.get(work.service, OTHER_ERROR)
        world.trackers[work.service].log("error", location, context=inner)
        return error_type, message

    def _calls(self, run: Run, work: Work, inner: Context) -> Routine[tuple[str, str] | None]:
        """Call the others, one after the other or at once; return the error that this makes here."""
        if work.at_once:
            errors = yield from self._world.kernel.all([self._call(run, call, inner) for call in work.calls])
            error = next(filter(None, errors), None)
        else:
            error = None
            for call in work.calls:
                error = yield from self._call(run, call, inner)
                if error is not None:
                    break
        if error is not None:
            self._world.trackers[work.service].log("warn", "client.call:31", context=inner)
        return error

    def _call(self, run: Run, call: Work, caller: Context) -> Routine[tuple[str, str] | None]:
        world = self._world
        give_up_us = world.kernel.now_us + CALL_TIMEOUT_US
        yield world.network_us()
        outcome = yield from self._step(run, call, caller, (), None, 1)
        if outcome.context is None:
            yield max(0, give_up_us - world.kernel.now_us)
            return "TimeoutError", f"{call.service} did not answer within {CALL_TIMEOUT_US // 1000} ms"
        yield world.network_us()
        if outcome.error is not None:
            return "DependencyError", f"{call.service}: {outcome.error[0]}"
        return None
