"""Follows the executions of one source partition: events in, additions to windows, violations and finished executions out.

Everything is a function of the log: see `streams/lifecycle.py` for what happens when, `streams/booking.py` for what is
counted. This is the hot path: every event of every service passes `Tracker.apply`.
"""

from collections.abc import Callable, Iterable
from typing import Any

from schemas import internal
from schemas.internal import COMPLETED, FAILED, HEARD_OF, STARTED
from streams import conformance
from streams.booking import KnownEdge, SeriesKey, Window
from streams.events import (
    ClockTick,
    Event,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    LogObserved,
    Refused,
    ResourceSampled,
    StepCompleted,
    StepFailed,
    StepStarted,
)
from streams.lifecycle import Lifecycle
from streams.limits import Limits
from streams.observations import Observations
from streams.rules import ChainRules, RuleBook
from streams.runs import Step
from streams.steps import ended, parents_of
from streams.timers import NEVER_US
from streams.tracked import Output, Tracked

Refusal = tuple[int, Refused]
"""(number of the event among those applied, reason)"""
SAW = {
    ExecutionStarted: conformance.SAW_STARTED,
    ExecutionCompleted: conformance.SAW_COMPLETED,
    ExecutionFailed: conformance.SAW_FAILED,
}


class Tracker:
    """The state of one source partition. One thread; `apply` in log order; `take` at each commit."""

    def __init__(self, topic: str, partition: int, rules: RuleBook, limits: Limits) -> None:
        self.partition = partition
        self.next_offset = 0
        self.clock = (0, 0)
        """(watermark, broker time) in µs when the last record that is no tick came."""
        self.trace_batches = 0
        """Published so far; counted by the shell that publishes them."""
        self._limits = limits
        self._times_us = (limits.future_us, limits.ahead_us, limits.grace_us, limits.lateness_us)
        self._life = Lifecycle(topic, partition, rules, limits)
        self._book = self._life.book
        observations = Observations(self._life, limits)
        self._others: dict[type, Callable[[Any, int], None]] = {
            LogObserved: observations.on_log,
            ResourceSampled: observations.on_sample,
            ClockTick: self._on_tick,
        }

    # -- what the shell calls -------------------------------------------------------------------------------------

    def apply(self, events: list[Event | Refused], offsets: list[int], broker_us: list[int]) -> list[Refusal]:
        """Apply the events of whole records in log order, each with its record's offset and broker time; return what was refused."""
        life, others = self._life, self._others
        future_us, ahead_us, grace_us, lateness_us = self._times_us
        life.refresh_rules()
        executions, touched = life.executions, life.out.touched
        timers = life.timers
        watermark_us = life.watermark_us
        step_completed, step_started, step_failed, tick = StepCompleted, StepStarted, StepFailed, ClockTick
        refused: list[Refusal] = []
        for number in range(len(events)):
            event: Any = events[number]
            kind = type(event)
            if kind is Refused:
                refused.append((number, event))
                continue
            time_us: int = event.time_unix_us
            offset, at_us = offsets[number], broker_us[number]
            if time_us > watermark_us:
                if time_us > at_us + future_us:
                    why = f"time_unix_us is more than {future_us} µs ahead of the broker"
                    refused.append((number, Refused("future", why)))
                    continue
                if time_us > at_us + ahead_us:
                    self._set_back(event, at_us, offset)
                    time_us = at_us
                if time_us > watermark_us:
                    life.watermark_us = watermark_us = time_us
                    if time_us >= life.slice_end_us:
                        life.cut()
                    if time_us - lateness_us >= timers.next_us:
                        life.run_timers()
            elif time_us < watermark_us - grace_us and kind is not tick:
                why = f"time_unix_us is more than {grace_us} µs behind the watermark"
                refused.append((number, Refused("late", why)))
                continue
            other = others.get(kind)
            if other is not None:
                other(event, offset)
                continue
            tracked = executions.get((event.tenant, event.execution))
            if tracked is None:
                tracked = life.begin(event, offset)
            if not tracked.touched:
                tracked.touched = True
                touched.append(tracked)
            if not tracked.finished_us:  # else only what is published again may change it: see Lifecycle.revise
                execution = tracked.execution
                execution.last_offset = offset
                if time_us > execution.last_us:
                    execution.last_us = time_us
                if not execution.user and event.user is not None:
                    execution.user = event.user
                    execution.tier = event.tier or execution.tier
            if kind is step_completed or kind is step_failed:
                self._on_step_ended(tracked, event, offset)
            elif kind is step_started:
                self._on_step_started(tracked, event, offset)
            else:
                self._on_execution(tracked, event, offset)
        if offsets:
            self.next_offset = offsets[-1] + 1
            self._set_clock(any(type(event) is not tick for event in events), broker_us[-1])
        return refused

    def take(self) -> Output:
        """Return what has come together since the last call."""
        return self._life.take()

    @property
    def watermark_us(self) -> int:
        """The largest event time seen."""
        return self._life.watermark_us

    @property
    def open_executions(self) -> int:
        """How many executions are open."""
        return self._life.open

    @property
    def executions(self) -> list[internal.Execution]:
        """Those that are open, and finished ones that are remembered, as they would be published."""
        return [tracked.execution.record() for tracked in self._life.executions.values()]

    def find(self, tenant: str, execution: str) -> Tracked | None:
        """Return an execution that is open or remembered."""
        return self._life.executions.get((tenant, execution))

    @property
    def series(self) -> list[SeriesKey]:
        """The series that are told apart."""
        return list(self._book.known)

    def restore(
        self, watermark_us: int, open_: Iterable[internal.Execution], finished: Iterable[internal.Execution],
        series: Iterable[SeriesKey], edges: Iterable[KnownEdge] = (),
    ) -> None:  # fmt: skip
        """Take the state back as of a commit; `finished` in the order in which they finished."""
        self._life.restore(watermark_us, open_, finished, series, edges)

    def _set_back(self, event: Any, broker_us: int, offset: int) -> None:
        """Date an event at its broker time, since nothing is on the log before it happens, and book the wrong clock."""
        event.time_unix_us = broker_us
        component = getattr(event, "component", None)
        if component is not None:
            window = self._book.at(self._life.chain(event.tenant, ""), "", component, broker_us, offset)
            window.violated("clock.ahead", broker_us)

    def _set_clock(self, has_events: bool, broker_us: int) -> None:
        """Let ticks go on from here after events, and after a foreign tick that is ahead of where ours would be."""
        event_us, since_us = self.clock
        if has_events or not event_us or self.watermark_us > event_us + broker_us - since_us:
            self.clock = (self.watermark_us, broker_us)

    # -- steps ----------------------------------------------------------------------------------------------------

    def _on_step_started(self, tracked: Tracked, event: StepStarted, offset: int) -> None:
        execution = tracked.execution
        steps, time_us = execution.steps, event.time_unix_us
        span = event.span or f"{event.step}#{event.attempt}"
        step = steps.get(span)
        if step is None:
            if len(steps) >= self._limits.max_steps:
                self._untracked(tracked, event, offset)
                return
            step = steps[span] = Step(
                span, event.step, event.component or event.step, offset, event.attempt, parents_of(event.parents), STARTED,
                time_us, 0, 0, True,
            )  # fmt: skip
            execution.pending += 1
            if len(step.parents) > 1:
                self._life.limit_evidence(execution, step, parents=True)
        elif step.saw_started:
            self._again(tracked, step, event, offset)
            return
        else:
            step.saw_started, step.start_us = True, time_us
            if event.parents and not step.parents:
                step.parents = parents_of(event.parents)
                self._life.limit_evidence(execution, step, parents=True)
            if step.status == HEARD_OF:
                step.step, step.component, step.attempt = event.step, event.component or event.step, event.attempt
                step.status = STARTED
                execution.pending += 1
        window = self._book.at(tracked.chain, step.step, step.component, time_us, offset)
        window.events += 1
        window.started += 1
        if tracked.finished_us:
            self._life.revise(tracked, offset)

    def _on_step_ended(self, tracked: Tracked, event: StepCompleted | StepFailed, offset: int) -> None:
        execution = tracked.execution
        steps = execution.steps
        span = event.span or f"{event.step}#{event.attempt}"
        begun = steps.get(span)
        if begun is None:
            if len(steps) >= self._limits.max_steps:
                self._untracked(tracked, event, offset)
                return
        elif begun.status == COMPLETED or begun.status == FAILED:
            self._again(tracked, begun, event, offset)
            return
        elif begun.saw_started:
            execution.pending -= 1
        step = steps[span] = ended(begun, span, event, offset)
        if step.error_message or len(step.parents) > 1:
            self._life.limit_evidence(execution, step, parents=begun is None or step.parents is not begun.parents, message=True)
        window = self._book.at(tracked.chain, step.step, step.component, step.end_us, offset)
        window.events += 1
        window.durations_us.append(step.duration_us)
        used = event.resources
        if used is not None:
            window.cpu_us += used.cpu_us
            window.io_wait_us += used.io_wait_us
            if used.memory_bytes > window.memory_max_bytes:
                window.memory_max_bytes = used.memory_bytes
        if event.consumed is not None:
            window.broker_us.append(event.consumed.broker_us)
        rules = tracked.rules
        if rules is not None:
            self._conform(tracked, step, rules, window, offset)
        if step.status == FAILED:
            window.failed += 1
            found = conformance.failed(execution, step, self._life.position(offset))
            self._life.violate(found, execution, window)
        if tracked.finished_us:
            self._life.revise(tracked, offset)
        elif execution.saw != conformance.SAW_STARTED:  # else its end is still to come
            self._life.finish_if_done(tracked)

    def _conform(self, tracked: Tracked, step: Step, rules: ChainRules, window: Window, offset: int) -> None:
        execution = tracked.execution
        ends, name = execution.ends, step.step
        rule = rules.steps.get(name)
        if rule is None or 0 < rule.expected_us < step.duration_us or name in ends or name in execution.missing:
            if name in execution.missing:  # booked, as that was, when it is known: the one takes the other back
                window = self._book.at(tracked.chain, name, step.component, self._life.watermark_us, offset)
            for found in conformance.check_end(execution, step, rules, self._life.position(offset)):
                self._life.violate(found, execution, window)
            tracked.in_order = False
        elif tracked.in_order:
            latest_us = step.start_us + self._limits.skew_us
            for before in rule.after:
                if ends.get(before, NEVER_US) > latest_us:
                    tracked.in_order = False
        if step.status == COMPLETED:
            if step.end_us > ends.get(name, -1):
                ends[name] = step.end_us
            due_us = step.end_us + rules.due_after_us.get(name, NEVER_US)
            if due_us < tracked.armed_us or execution.missing:
                self._life.arm(tracked)

    def _again(self, tracked: Tracked, step: Step, event: StepStarted | StepCompleted | StepFailed, offset: int) -> None:
        """Handle an event of a run that is known already: a duplicate, or a second run under the same name."""
        if event.id is None or not step.id or event.id == step.id or type(event) is StepStarted:
            self._life.out.count("duplicates")
            return
        execution = tracked.execution
        window = self._book.at(tracked.chain, event.step, event.component or event.step, event.time_unix_us, offset)
        window.events += 1
        self._life.revise(tracked, offset)
        found = conformance.ran_again(execution, step, event, self._life.position(offset))
        self._life.violate(found, execution, window)

    def _untracked(self, tracked: Tracked, event: StepStarted | StepCompleted | StepFailed, offset: int) -> None:
        """Count an event of a step beyond the limit."""
        self._life.out.count("untracked_steps")
        window = self._book.at(tracked.chain, event.step, event.component or event.step, event.time_unix_us, offset)
        window.events += 1
        self._life.revise(tracked, offset)

    # -- everything else ------------------------------------------------------------------------------------------

    def _on_execution(
        self, tracked: Tracked, event: ExecutionStarted | ExecutionCompleted | ExecutionFailed, offset: int
    ) -> None:
        execution = tracked.execution
        bit = SAW[type(event)]
        if execution.saw & bit:
            self._life.out.count("duplicates")
            return
        execution.saw |= bit
        time_us = event.time_unix_us
        self._book.at(tracked.chain, "", "", time_us, offset).events += 1
        self._life.revise(tracked, offset)
        if type(event) is ExecutionStarted:
            execution.component = event.component or execution.component
            if time_us < execution.start_us:
                execution.start_us = time_us
                self._life.arm(tracked)
            return
        execution.ended_us = time_us
        execution.duration_us = event.duration_us or max(0, time_us - execution.start_us)  # type: ignore[union-attr]
        if type(event) is ExecutionFailed:
            execution.error_type, execution.error_message = event.error_type, event.error_message or ""
        self._life.finish_if_done(tracked)

    def _on_tick(self, event: ClockTick, offset: int) -> None:
        self._life.out.count("ticks")
