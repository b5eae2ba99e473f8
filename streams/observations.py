"""What is told of a component or a step beside its own events: log statements and resource samples."""

from schemas.internal import HEARD_OF
from streams.events import LogObserved, ResourceSampled
from streams.evidence import has_room
from streams.lifecycle import Lifecycle
from streams.limits import Limits
from streams.runs import Step
from streams.steps import RESOURCES


class Observations:
    """Takes them for one source partition."""

    def __init__(self, life: Lifecycle, limits: Limits) -> None:
        self._life = life
        self._limits = limits

    def on_log(self, event: LogObserved, offset: int) -> None:
        """Book a log statement, and keep it with the run of the step that it names."""
        in_step = event.chain is not None and event.step is not None
        chain = self._life.chain(event.tenant, (event.chain or "") if in_step else "")
        name = (event.step or "") if in_step else ""
        self._life.book.at(chain, name, event.component, event.time_unix_us, offset).events += 1
        tracked = self._life.executions.get((event.tenant, event.execution or ""))
        if tracked is None or not event.span:
            return
        steps, statement = tracked.execution.steps, f"{event.level.upper()} {event.template}"
        step = steps.get(event.span)
        full = len(steps) >= self._limits.max_steps if step is None else len(step.logs) >= self._limits.max_logs
        if full or (step is not None and statement in step.logs):
            return
        if not has_room(tracked.execution, statement, self._limits.max_evidence):
            self._life.out.count("evidence_over_limit")
            return
        if step is None:
            step = steps[event.span] = Step(event.span, event.step or "", event.component, offset, status=HEARD_OF)
        step.logs.append(statement)
        self._life.out.touch(tracked)
        self._life.revise(tracked, offset)

    def on_sample(self, event: ResourceSampled, offset: int) -> None:
        """Book samples of a component's resources."""
        window = self._life.book.at(self._life.chain(event.tenant, ""), "", event.component, event.time_unix_us, offset)
        window.events += 1
        for name in RESOURCES:
            value = getattr(event, name)
            if value is not None:
                window.sampled(name, float(value))
