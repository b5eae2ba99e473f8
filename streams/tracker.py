"""Follows the executions of one source partition: events in, additions to windows, violations and finished executions out.

Everything is a function of the log: timers run on the partition's watermark (the largest event time seen), before the
event that moved it is applied, so the outcome does not depend on how the log is cut into chunks or transactions.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct, field

from schemas.internal import COMPLETED, FAILED, HEARD_OF, STARTED, Delta, Execution, Step
from schemas.violations import LogPosition, Violation
from streams import conformance
from streams.booking import OVERFLOW, Book, SeriesKey, add_affected, add_duration, add_samples, add_violation
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
from streams.ids import derived_id
from streams.limits import Limits
from streams.rules import ChainRules, RuleBook
from streams.timers import GRANULARITY_US, Timers
from streams.units import book_unit, observe

ExecutionKey = tuple[str, str]
"""(tenant, execution id)"""
Refusal = tuple[int, Refused]
"""(offset, reason)"""
SAW = {ExecutionStarted: 1, ExecutionCompleted: 2, ExecutionFailed: 4}
ENDED = 2 | 4
RESOURCES = (
    "cpu_ratio", "memory_ratio", "memory_bytes", "io_wait_ratio", "network_receive_bytes_per_s",
    "network_transmit_bytes_per_s",
)  # fmt: skip


class Output(Struct):
    """What one transaction has to say about one source partition."""

    book: Book
    violations: list[Violation] = field(default_factory=list)
    finished: dict[int, Execution] = field(default_factory=dict)
    """By first offset; also those that changed after they had been finished."""
    touched: set[ExecutionKey] = field(default_factory=set)
    new_series: list[SeriesKey] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    """Ids of the cardinality.exceeded that were said."""
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> None:
        """Add one to a counter."""
        self.counts[name] = self.counts.get(name, 0) + 1


class Tracker:
    """The state of one source partition. One thread; `apply` in log order; `take` at each commit."""

    def __init__(self, topic: str, partition: int, rules: RuleBook, limits: Limits) -> None:
        self.partition = partition
        self.watermark_us = 0
        self.next_offset = 0
        self.clock = (0, 0)
        """(watermark, broker time) in µs when the last record that is no tick came."""
        self.executions: dict[ExecutionKey, Execution] = {}
        """Open ones, and finished ones that are remembered."""
        self.series: set[SeriesKey] = set()
        self.logged: set[ExecutionKey] = set()
        """Executions that stand in the changelog; kept by the shell that writes it."""
        self._topic = topic
        self._rules = rules
        self._limits = limits
        self._timers: Timers[ExecutionKey] = Timers()
        self._open = 0
        self._finished: deque[ExecutionKey] = deque()
        self._out = self._fresh_output()
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            StepCompleted: self._on_step_ended,
            StepStarted: self._on_step_started,
            StepFailed: self._on_step_ended,
            ExecutionStarted: self._on_execution,
            ExecutionCompleted: self._on_execution,
            ExecutionFailed: self._on_execution,
            LogObserved: self._on_log,
            ResourceSampled: self._on_sample,
            ClockTick: self._on_tick,
        }

    # -- what the shell calls -------------------------------------------------------------------------------------

    def apply(self, events: Sequence[Event | Refused], offsets: Sequence[int], broker_us: Sequence[int]) -> list[Refusal]:
        """Apply decoded records in log order; `broker_us` is each record's broker time. Return what was refused."""
        handlers, limits = self._handlers, self._limits
        refused: list[Refusal] = []
        for event, offset, at_us in zip(events, offsets, broker_us, strict=True):
            if type(event) is Refused:
                refused.append((offset, event))
                continue
            time_us = event.time_unix_us  # type: ignore[union-attr]
            if time_us > self.watermark_us:
                if time_us > at_us + limits.future_us:
                    why = f"time_unix_us is more than {limits.future_us} µs ahead of the broker"
                    refused.append((offset, Refused("future", why)))
                    continue
                self.watermark_us = time_us
                if time_us - limits.lateness_us >= self._timers.next_us:
                    self._run_timers()
            elif time_us < self.watermark_us - limits.grace_us and type(event) is not ClockTick:
                why = f"time_unix_us is more than {limits.grace_us} µs behind the watermark"
                refused.append((offset, Refused("late", why)))
                continue
            handlers[type(event)](event, offset)
        if offsets:
            self.next_offset = offsets[-1] + 1
            self._set_clock(any(type(event) is not ClockTick for event in events), broker_us[-1])
        return refused

    def _set_clock(self, has_events: bool, broker_us: int) -> None:
        """Let ticks go on from here after events, and after a foreign tick that is ahead of where ours would be."""
        event_us, since_us = self.clock
        if has_events or not event_us or self.watermark_us > event_us + broker_us - since_us:
            self.clock = (self.watermark_us, broker_us)

    def take(self) -> Output:
        """Return what has come together since the last call."""
        out, self._out = self._out, self._fresh_output()
        return out

    @property
    def open_executions(self) -> int:
        """How many executions are open."""
        return self._open

    def restore(
        self, watermark_us: int, open_: Iterable[Execution], finished: Iterable[Execution], series: Iterable[SeriesKey]
    ) -> None:
        """Take the state back as of a commit; `finished` in the order in which they finished."""
        self.watermark_us = watermark_us
        self.series.update(series)
        for execution in finished:
            self._remember(execution)
        for execution in sorted(open_, key=lambda x: x.first_offset):
            self.executions[execution.tenant, execution.execution] = execution
            self.logged.add((execution.tenant, execution.execution))
            self._open += 1
            self._arm(execution, self._rules_of(execution))

    # -- events ---------------------------------------------------------------------------------------------------

    def _on_step_started(self, event: StepStarted, offset: int) -> None:
        execution = self._execution(event, offset)
        step, _ = self._step(execution, event, offset)
        if step is None or step.saw_started:
            self._again(execution, step, event, offset)
            return
        step.saw_started = True
        step.start_us = event.time_unix_us
        if step.status == HEARD_OF:
            step.status = STARTED
        if step.status == STARTED:
            execution.pending += 1
        delta = self._out.book.at(
            execution.tenant, execution.chain, step.step, step.component, event.time_unix_us, offset
        )
        delta.events += 1
        delta.started += 1
        self._revise(execution, offset)

    def _on_step_ended(self, event: StepCompleted | StepFailed, offset: int) -> None:
        execution = self._execution(event, offset)
        step, is_new = self._step(execution, event, offset)
        if step is None or (not is_new and step.status in (COMPLETED, FAILED)):
            self._again(execution, step, event, offset)
            return
        if step.saw_started:
            execution.pending -= 1
        _fill(step, event)
        delta = self._out.book.at(
            execution.tenant, execution.chain, step.step, step.component, event.time_unix_us, offset
        )
        _book_step(delta, step)
        rules = self._rules_of(execution)
        if rules is not None:
            self._conform(execution, step, rules, delta)
        if step.status == FAILED:
            self._violate(
                conformance.failed(execution, step, self._position(offset)), execution, delta
            )
        self._revise(execution, offset)
        self._finish_if_done(execution, rules)

    def _on_execution(self, event: ExecutionStarted | ExecutionCompleted | ExecutionFailed, offset: int) -> None:
        execution = self._execution(event, offset)
        bit = SAW[type(event)]
        if execution.saw & bit:
            self._out.count("duplicates")
            return
        execution.saw |= bit
        time_us = event.time_unix_us
        self._out.book.at(execution.tenant, execution.chain, "", "", time_us, offset).events += 1
        self._revise(execution, offset)
        if type(event) is ExecutionStarted:
            execution.component = event.component or execution.component
            if time_us < execution.start_us:
                execution.start_us = time_us
                self._arm(execution, self._rules_of(execution))
            return
        execution.ended_us = time_us
        execution.duration_us = event.duration_us or max(0, time_us - execution.start_us)  # type: ignore[union-attr]
        if type(event) is ExecutionFailed:
            execution.error_type, execution.error_message = event.error_type, event.error_message or ""
        self._finish_if_done(execution, self._rules_of(execution))

    def _on_log(self, event: LogObserved, offset: int) -> None:
        in_step = event.chain is not None and event.step is not None
        self._out.book.at(
            event.tenant, (event.chain or "") if in_step else "", (event.step or "") if in_step else "",
            event.component, event.time_unix_us, offset,
        ).events += 1  # fmt: skip
        execution = self.executions.get((event.tenant, event.execution or ""))
        if execution is None or not event.span:
            return
        step = execution.steps.get(event.span)
        if step is None:
            if len(execution.steps) >= self._limits.max_steps:
                return
            step = execution.steps[event.span] = Step(
                event.span, event.step or "", event.component, offset, status=HEARD_OF
            )
        statement = f"{event.level.upper()} {event.template}"
        if statement not in step.logs and len(step.logs) < self._limits.max_logs:
            step.logs.append(statement)
            self._out.touched.add((execution.tenant, execution.execution))
            self._revise(execution, offset)

    def _on_sample(self, event: ResourceSampled, offset: int) -> None:
        delta = self._out.book.at(event.tenant, "", "", event.component, event.time_unix_us, offset)
        delta.events += 1
        values = ((name, getattr(event, name)) for name in RESOURCES)
        add_samples(delta, ((name, float(value)) for name, value in values if value is not None))

    def _on_tick(self, event: ClockTick, offset: int) -> None:
        self._out.count("ticks")

    # -- executions and steps -------------------------------------------------------------------------------------

    def _execution(self, event: Any, offset: int) -> Execution:
        key = (event.tenant, event.execution)
        self._out.touched.add(key)
        execution = self.executions.get(key)
        if execution is None:
            execution = self._open_execution(event, key, offset)
        if execution.finished_us:
            return execution  # only what changes it, and so is published again, may touch it: see _revise
        execution.last_offset = offset
        if event.time_unix_us > execution.last_us:
            execution.last_us = event.time_unix_us
        if event.user is not None and not execution.user:
            execution.user = event.user
            execution.tier = event.tier or execution.tier
        return execution

    def _open_execution(self, event: Any, key: ExecutionKey, offset: int) -> Execution:
        duration_us = getattr(event, "duration_us", None) or 0
        start_us = max(0, event.time_unix_us - duration_us)
        execution = Execution(
            event.tenant, event.chain, event.execution, offset, offset, user=event.user or "", tier=event.tier or "",
            chain_version=event.chain_version or "", start_us=start_us, last_us=event.time_unix_us, component=event.component or "",
        )  # fmt: skip
        self.executions[key] = execution
        self._open += 1
        if self._open > self._limits.max_open:
            self._close_oldest()
        rules = self._rules_of(execution)
        self._timers.at(conformance.next_check_us(execution, rules, self._limits), key)
        return execution

    def _step(self, execution: Execution, event: Any, offset: int) -> tuple[Step | None, bool]:
        """Return the run of the step that the event speaks of, and whether it is new; None beyond the limit."""
        span = event.span or f"{event.step}#{event.attempt}"
        step = execution.steps.get(span)
        if step is not None:
            return step, False
        if len(execution.steps) >= self._limits.max_steps:
            self._out.count("untracked_steps")
            return None, False
        step = Step(span, event.step, event.component or event.step, offset, event.attempt)
        if event.parents:
            step.parents = [(p.span, p.execution or "", p.component or "") for p in event.parents]
        execution.steps[span] = step
        return step, True

    def _again(self, execution: Execution, step: Step | None, event: Any, offset: int) -> None:
        """Handle an event that adds no step: a duplicate, a second run under the same name, or one over the limit."""
        delta = self._out.book.at(
            execution.tenant, execution.chain, event.step, event.component or event.step, event.time_unix_us, offset
        )
        if step is None:
            delta.events += 1
            self._revise(execution, offset)
        elif event.id is not None and step.id and event.id != step.id and type(event) is not StepStarted:
            delta.events += 1
            self._revise(execution, offset)
            self._violate(conformance.ran_again(execution, step, event.time_unix_us, self._position(offset)), execution, delta)
        else:
            self._out.count("duplicates")

    def _conform(self, execution: Execution, step: Step, rules: ChainRules, delta: Delta) -> None:
        if conformance.may_break(execution, step, rules):
            for found in conformance.check_end(execution, step, rules, self._position(step.offset)):
                self._violate(found, execution, delta)
        if step.status == COMPLETED:
            if step.end_us > execution.ends.get(step.step, -1):
                execution.ends[step.step] = step.end_us
            due_us = conformance.next_due_us(execution, rules, step)
            if due_us:
                self._timers.at(due_us, (execution.tenant, execution.execution))

    def _finish_if_done(self, execution: Execution, rules: ChainRules | None) -> None:
        if execution.finished_us:
            return
        if conformance.is_done(execution, rules):
            self._finish(execution, "failed" if execution.saw & 4 else "completed")
        elif execution.saw & ENDED:
            self._timers.at(execution.ended_us, (execution.tenant, execution.execution))

    def _finish(self, execution: Execution, status: str) -> None:
        key = (execution.tenant, execution.execution)
        end_us = execution.ended_us or execution.last_us
        execution.status = status
        execution.duration_us = execution.duration_us or max(0, end_us - execution.start_us)
        delta = self._out.book.at(
            execution.tenant, execution.chain, "", "", self.watermark_us, execution.last_offset
        )
        if status == "completed":
            delta.completed += 1
        else:
            delta.failed += 1
        add_duration(delta, execution.duration_us)
        rules = self._rules_of(execution)
        for found in conformance.check_finished(execution, rules, self._limits):
            self._violate(found, execution, delta)
        self._book_structure(execution)
        self._open -= 1
        del self.executions[key]
        execution.finished_us = self.watermark_us
        self._remember(execution)
        self._out.finished[execution.first_offset] = execution

    def _book_structure(self, execution: Execution) -> None:
        """Book what only a whole execution shows: its units' indicators and its edges, at the time it was known."""
        at_us, book = self.watermark_us, self._out.book
        units, edges = observe(execution)
        for edge in edges:
            edge.window_start_unix_us = at_us
            book.edge(edge)
        for unit in units:
            delta = book.at(
                execution.tenant, execution.chain, unit.step, unit.component, at_us, execution.last_offset
            )
            book_unit(delta, unit)

    def _revise(self, execution: Execution, offset: int) -> None:
        """Note that an execution changes; a finished one goes out again, whole and under a higher revision."""
        if execution.finished_us:
            execution.revision += 1
            execution.last_offset = offset
            self._out.finished[execution.first_offset] = execution

    def _remember(self, execution: Execution) -> None:
        key = (execution.tenant, execution.execution)
        self.executions[key] = execution
        self._finished.append(key)
        self._timers.at(execution.finished_us + self._limits.linger_us, key)
        if len(self._finished) > self._limits.max_finished:
            self._forget(self._finished[0])

    def _forget(self, key: ExecutionKey) -> None:
        self.executions.pop(key, None)
        while self._finished and self._finished[0] not in self.executions:
            self._finished.popleft()

    def _close_oldest(self) -> None:
        self._out.count("closed_by_limit")
        oldest = next(x for x in self.executions.values() if not x.finished_us)
        self._out.touched.add((oldest.tenant, oldest.execution))
        self._finish(oldest, "abandoned")

    # -- timers, violations, limits -------------------------------------------------------------------------------

    def _run_timers(self) -> None:
        """Look at what is due. Time goes in the timers' steps, so that looking more often changes nothing: a restart
        arms every open execution anew, and must come to the same at the same event."""
        now_us = self.watermark_us - self._limits.lateness_us
        now_us -= now_us % GRANULARITY_US
        for key in self._timers.due(now_us):
            execution = self.executions.get(key)
            if execution is None:
                continue
            if execution.finished_us:
                if execution.finished_us + self._limits.linger_us <= now_us:
                    self._forget(key)
                continue
            self._out.touched.add(key)
            self._check(execution, now_us)

    def _check(self, execution: Execution, now_us: int) -> None:
        rules = self._rules_of(execution)
        if not execution.missing and conformance.next_check_us(execution, rules, self._limits) > now_us:
            self._arm(execution, rules, now_us)  # what the timer was set for has come meanwhile
            return
        for found in conformance.overdue(execution, rules, now_us, self._limits):
            delta = self._out.book.at(
                execution.tenant, execution.chain, found.step, found.component, self.watermark_us, execution.last_offset
            )
            self._violate(found, execution, delta)
        status = conformance.verdict(execution, rules, now_us, self._limits)
        if status is not None:
            self._finish(execution, status)
        else:
            self._arm(execution, rules, now_us)

    def _arm(self, execution: Execution, rules: ChainRules | None, after_us: int = 0) -> None:
        """Have an open execution looked at at its next time after `after_us`."""
        at_us = conformance.next_check_us(execution, rules, self._limits, after_us)
        self._timers.at(at_us, (execution.tenant, execution.execution))

    def _violate(self, found: Violation, execution: Execution, delta: Delta) -> None:
        self._out.violations.append(found)
        add_violation(delta, found.type, found.time_unix_us)
        if not execution.violations:
            add_affected(delta, execution.execution, execution.user)
        execution.violations += 1

    def _rules_of(self, execution: Execution) -> ChainRules | None:
        rules = self._rules.find(execution.tenant, execution.chain)
        return rules if rules is None or rules.effective_from_us <= execution.start_us else None

    def _position(self, offset: int) -> LogPosition:
        return LogPosition(topic=self._topic, partition=self.partition, offset=offset)

    def _admit(self, series: SeriesKey, time_us: int) -> SeriesKey:
        if series in self.series:
            return series
        if len(self.series) < self._limits.max_series:
            self.series.add(series)
            self._out.new_series.append(series)
            return series
        self._out.count("series_over_limit")
        self._tell_overflow(series[0], time_us)
        return (series[0], OVERFLOW, "", "")

    def _tell_overflow(self, tenant: str, time_us: int) -> None:
        start_us = time_us - time_us % self._limits.window_us
        found = Violation(
            id=derived_id("cardinality.exceeded", tenant, start_us), type="cardinality.exceeded", tenant=tenant,
            chain=OVERFLOW, time_unix_us=start_us,
            detail=f"more than {self._limits.max_series} distinct steps of chains: further ones are booked under {OVERFLOW}",
        )  # fmt: skip
        if found.id not in self._out.told:
            self._out.told.add(found.id)
            self._out.violations.append(found)

    def _fresh_output(self) -> Output:
        return Output(Book(self._limits.window_us, self._admit))


def _fill(step: Step, event: StepCompleted | StepFailed) -> None:
    step.end_us = event.time_unix_us
    step.duration_us = (
        event.duration_us
        if event.duration_us is not None
        else max(0, step.end_us - step.start_us)
        if step.saw_started
        else 0
    )
    step.start_us = step.start_us or max(0, step.end_us - step.duration_us)
    step.step, step.component = event.step, event.component or event.step
    step.id = event.id or ""
    if event.parents and not step.parents:
        step.parents = [(p.span, p.execution or "", p.component or "") for p in event.parents]
    if type(event) is StepFailed:
        step.status, step.error_type, step.error_message = FAILED, event.error_type, event.error_message or ""
    else:
        step.status = COMPLETED
    if event.resources is not None:
        used = event.resources
        step.cpu_us, step.memory_bytes, step.io_wait_us = used.cpu_us, used.memory_bytes, used.io_wait_us
    if event.consumed is not None:
        read = event.consumed
        step.topic, step.topic_partition, step.topic_offset = read.topic, read.partition, read.offset
        step.broker_us = read.broker_us


def _book_step(delta: Delta, step: Step) -> None:
    delta.events += 1
    if step.status == FAILED:
        delta.failed += 1
    else:
        delta.completed += 1
    add_duration(delta, step.duration_us)
    delta.cpu_us += step.cpu_us
    delta.io_wait_us += step.io_wait_us
    if step.memory_bytes > delta.memory_max_bytes:
        delta.memory_max_bytes = step.memory_bytes
    if step.topic:
        delta.broker_count += 1
        delta.broker_sum_us += step.broker_us
        if step.broker_us > delta.broker_max_us:
            delta.broker_max_us = step.broker_us
