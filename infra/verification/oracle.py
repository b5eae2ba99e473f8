"""What truly happened in one source partition: a plain fold over its records, in the order of the log.

Pure: no Kafka, no clock. Written from the documents and the contract; it shares with the pipeline the decoding of
events, the compiled definitions and the limits, and nothing that decides. Everything is decided by event time: whatever
is due is concluded when the watermark moves, before the event that moves it is looked at.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import msgspec
from msgspec import Struct

from infra.verification import promises
from infra.verification.edges import Edge, EdgeWindows, add_edges
from infra.verification.steps import Run, add_samples, add_step, end_step, keep, opened, parents_of, run_of
from infra.verification.windows import OVERFLOW, Book, Series, Totals
from schemas.internal import COMPLETED, FAILED, HEARD_OF, STARTED, Execution, Step
from schemas.violations import LogPosition, Violation
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

Key = tuple[str, str]
"""(tenant, execution id)"""
STEP_US = 50_000
"""Event time moves on in steps of this when something is due."""
BIT = {ExecutionStarted: 1, ExecutionCompleted: 2, ExecutionFailed: 4}
encode = msgspec.msgpack.Encoder().encode


class Finished(Struct, gc=False):
    """The last word on one run of an execution."""

    record: bytes
    """An Execution in MessagePack: hundreds of thousands of them are kept."""
    changed: int
    """Offset of the record that led to it."""


class Oracle:
    """The truth of one source partition: `apply` every record, then `end`."""

    def __init__(self, topic: str, partition: int, rules: RuleBook, limits: Limits, book: Book, edges: EdgeWindows, committed: int) -> None:
        """`book` and `edges` are added to. `committed`: the offset up to which the pipeline has committed; what comes later is under way."""
        self.watermark_us = 0
        self.committed_watermark_us = 0
        self.counts = {"records": 0, "ticks": 0, "duplicates": 0}
        self.dead: dict[tuple[int, int], str] = {}
        """Stage of refusal by (offset, which event of that record)."""
        self.violations: list[tuple[int, Violation]] = []
        """(offset of the record that led to it, violation)"""
        self.finished: dict[Run, Finished] = {}
        """An execution that comes again after it was forgotten is another one."""
        self._topic, self._partition, self._committed = topic, partition, committed
        self._rules, self._limits, self._book, self._edges = rules, limits, book, edges
        self._offset, self._index, self._begun = -1, 0, 0
        """The record, which event of it, and how many executions have begun in it."""
        self._open: dict[Key, Execution] = {}
        self._remembered: dict[Key, Execution] = {}
        self._looks: dict[Key, int] = {}
        self._agenda: list[tuple[int, Key]] = []
        """Heap of (event time, execution): the next look at each open one, the end of each remembered one."""
        self._series: set[Series] = set()
        self._tenants: set[str] = set()
        """Those with a series of their own."""
        self._known_edges: set[Edge] = set()
        self._changed: dict[Run, int] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            StepStarted: self._step_started, StepCompleted: self._step_ended, StepFailed: self._step_ended,
            ExecutionStarted: self._execution_event, ExecutionCompleted: self._execution_event,
            ExecutionFailed: self._execution_event, LogObserved: self._log, ResourceSampled: self._sample,
            ClockTick: self._tick,
        }  # fmt: skip

    def apply(self, offset: int, broker_us: int, event: Event | Refused) -> None:
        """Apply the next event of the log: of the record before, or of the next one; `broker_us` is the broker's time of it."""
        if offset == self._offset:
            self._index += 1
        else:
            self._offset, self._index, self._begun = offset, 0, 0
            self.counts["records"] += 1
        place = offset, self._index
        if isinstance(event, Refused):
            self.dead[place] = event.stage
        elif event.time_unix_us > max(self.watermark_us, broker_us + self._limits.future_us):
            self.dead[place] = "future"
        elif event.time_unix_us < self.watermark_us - self._limits.grace_us and type(event) is not ClockTick:
            self.dead[place] = "late"
        else:
            if event.time_unix_us > max(self.watermark_us, broker_us + self._limits.ahead_us):
                self._date_back(event, broker_us)
            if event.time_unix_us > self.watermark_us:
                self._move_clock(event.time_unix_us)
            self._handlers[type(event)](event)

    def end(self) -> None:
        """Settle what is still remembered; what is open stays open."""
        for key in list(self._remembered):
            self._forget(key)

    @property
    def open(self) -> list[Execution]:
        """The executions that are not over."""
        return list(self._open.values())

    def _date_back(self, event: Any, broker_us: int) -> None:
        """Nothing is on the log before it happens: the clock of whoever wrote it is ahead."""
        event.time_unix_us = broker_us
        component = getattr(event, "component", None)
        if component is not None:
            violations = self._at(event.tenant, "", "", component, broker_us).violations
            violations["clock.ahead"] = violations.get("clock.ahead", 0) + 1

    # -- events ---------------------------------------------------------------------------------------------------

    def _step_started(self, event: StepStarted) -> None:
        x = self._execution(event)
        step = self._step(x, event)
        if step is None or step.saw_started:
            self._again(x, step, event)
            return
        step.saw_started, step.start_us = True, event.time_unix_us
        if not step.parents:
            step.parents = parents_of(event)
            keep(x, step, True, "", self._limits.max_evidence)
        if step.status == HEARD_OF:
            step.status = STARTED
        totals = self._at(x.tenant, x.chain, step.step, step.component, event.time_unix_us)
        totals.events += 1
        totals.started += 1
        self._touch(x, earlier=False)

    def _step_ended(self, event: StepCompleted | StepFailed) -> None:
        x = self._execution(event)
        step = self._step(x, event)
        if step is None or step.status in (COMPLETED, FAILED):
            self._again(x, step, event)
            return
        had_parents = bool(step.parents)
        end_step(step, event)
        keep(x, step, not had_parents, step.error_message, self._limits.max_evidence)
        totals = self._at(x.tenant, x.chain, step.step, step.component, event.time_unix_us)
        add_step(totals, step)
        rules = self._rules_of(x)
        if rules is not None:
            came_late = step.step in x.missing  # counted, as its absence was, when it is known
            known = self._at(x.tenant, x.chain, step.step, step.component, self.watermark_us) if came_late else totals
            for found in promises.broken_at_end(x, step, rules, self._position()):
                self._violate(found, x, known)
            if step.status == COMPLETED:
                x.ends[step.step] = max(step.end_us, x.ends.get(step.step, 0))
        if isinstance(event, StepFailed):
            facts = {"duration_us": step.duration_us, "error_type": step.error_type, "error_message": step.error_message or None}
            self._violate(promises.broken_by("step.failed", x, step, self._position(), **facts), x, totals)
        self._touch(x)
        self._finish_if_done(x)

    def _again(self, x: Execution, step: Step | None, event: StepStarted | StepCompleted | StepFailed) -> None:
        """A step event that adds no step: beyond the limit, a second run under the same span, or a duplicate."""
        second_run = (
            step is not None and not isinstance(event, StepStarted)
            and event.id is not None and step.id != "" and event.id != step.id
        )  # fmt: skip
        if step is not None and not second_run:
            self.counts["duplicates"] += 1
            return
        totals = self._at(x.tenant, x.chain, event.step, event.component or event.step, event.time_unix_us)
        totals.events += 1
        self._touch(x)
        if step is not None:
            facts = {"step": step.step, "component": step.component, "position": self._position()}
            instance = f"{step.span}@{self._offset}/{event.id}"
            self._violate(promises.broken("step.duplicated", x, event.time_unix_us, instance=instance, **facts), x, totals)

    def _execution_event(self, event: ExecutionStarted | ExecutionCompleted | ExecutionFailed) -> None:
        x = self._execution(event)
        if x.saw & BIT[type(event)]:
            self.counts["duplicates"] += 1
            return
        x.saw |= BIT[type(event)]
        self._at(x.tenant, x.chain, "", "", event.time_unix_us).events += 1
        if isinstance(event, ExecutionStarted):
            x.component = event.component or x.component
            x.start_us = min(x.start_us, event.time_unix_us)
            self._touch(x)
            return
        x.ended_us = event.time_unix_us
        x.duration_us = event.duration_us or max(0, x.ended_us - x.start_us)
        if isinstance(event, ExecutionFailed):
            x.error_type, x.error_message = event.error_type, event.error_message or ""
        self._touch(x)
        self._finish_if_done(x)

    def _log(self, event: LogObserved) -> None:
        of_step = event.chain is not None and event.step is not None
        chain, name = (event.chain or "", event.step or "") if of_step else ("", "")
        self._at(event.tenant, chain, name, event.component, event.time_unix_us).events += 1
        x = self._known((event.tenant, event.execution or ""))
        if x is None or not event.span:
            return
        statement = f"{event.level.upper()} {event.template}"
        if x.evidence + len(statement) > self._limits.max_evidence:
            return
        step = x.steps.get(event.span)
        if step is None and len(x.steps) < self._limits.max_steps:
            step = Step(event.span, event.step or "", event.component, self._offset, status=HEARD_OF)
            x.steps[event.span] = step
        if step is not None and statement not in step.logs and len(step.logs) < self._limits.max_logs:
            step.logs.append(statement)
            x.evidence += len(statement)
            if x.finished_us:
                self._touch(x)

    def _sample(self, event: ResourceSampled) -> None:
        add_samples(self._at(event.tenant, "", "", event.component, event.time_unix_us), event)

    def _tick(self, event: ClockTick) -> None:
        self.counts["ticks"] += 1

    # -- executions -----------------------------------------------------------------------------------------------

    def _known(self, key: Key) -> Execution | None:
        return self._open.get(key) or self._remembered.get(key)

    def _execution(self, event: Any) -> Execution:
        """Return the execution of an event, which it may open; a finished one is changed only by what is new to it."""
        key = (event.tenant, event.execution)
        x = self._known(key)
        if x is None:
            x = self._open[key] = opened(event, self._offset, self._begun)
            self._begun += 1
            if len(self._open) > self._limits.max_open:
                self._finish(next(iter(self._open.values())), "abandoned")
        if not x.finished_us:
            x.last_offset, x.last_us = self._offset, max(x.last_us, event.time_unix_us)
            if event.user is not None and not x.user:
                x.user, x.tier = event.user, event.tier or x.tier
        return x

    def _step(self, x: Execution, event: Any) -> Step | None:
        """Return the run of a step that an event speaks of; None beyond the limit."""
        span = event.span or f"{event.step}#{event.attempt}"
        step = x.steps.get(span)
        if step is None:
            if len(x.steps) >= self._limits.max_steps:
                return None
            step = x.steps[span] = Step(span, event.step, "", self._offset, status=HEARD_OF)
        if step.status == HEARD_OF:  # so far at most log statements told of it
            step.step, step.component, step.attempt = event.step, event.component or event.step, event.attempt
        return step

    def _touch(self, x: Execution, *, earlier: bool = True) -> None:
        """Note that an execution has changed: an open one is looked at anew, a finished one gets a higher revision.

        Not `earlier`: nothing is due sooner than it was, so the look that is planned, if there is one, will do.
        """
        if x.finished_us:
            x.revision += 1
            x.last_offset = self._changed[run_of(x)] = self._offset
        elif earlier or (x.tenant, x.execution) not in self._looks:
            self._plan(x)

    def _finish_if_done(self, x: Execution) -> None:
        if not x.finished_us and promises.is_done(x, self._rules_of(x)):
            self._finish(x, "failed" if x.saw & promises.SAW_FAILED else "completed")

    def _finish(self, x: Execution, status: str) -> None:
        x.status = status
        x.duration_us = x.duration_us or max(0, (x.ended_us or x.last_us) - x.start_us)
        totals = self._at(x.tenant, x.chain, "", "", self.watermark_us)
        if status == "completed":
            totals.completed += 1
        else:
            totals.failed += 1
        totals.add_duration(x.duration_us)
        for found in promises.broken_as_a_whole(x, self._rules_of(x), self._limits.skew_us):
            self._violate(found, x, totals)
        start_us = self.watermark_us - self.watermark_us % self._limits.window_us
        add_edges(self._edges, x, start_us, self._offset >= self._committed, self._known_edges, self._limits.max_series)
        key = (x.tenant, x.execution)
        del self._open[key]
        self._looks.pop(key, None)
        x.finished_us = self.watermark_us
        self._changed[run_of(x)] = self._offset
        self._remembered[key] = x
        heappush(self._agenda, (x.finished_us + self._limits.linger_us, key))
        if len(self._remembered) > self._limits.max_finished:
            self._forget(next(iter(self._remembered)))

    def _forget(self, key: Key) -> None:
        x = self._remembered.pop(key)
        x.pending = promises.pending(x)
        self.finished[run_of(x)] = Finished(encode(x), self._changed.pop(run_of(x)))

    # -- time -----------------------------------------------------------------------------------------------------

    def _move_clock(self, time_us: int) -> None:
        """Conclude what is due, in the order in which executions began."""
        self.watermark_us = time_us
        if self._offset < self._committed:
            self.committed_watermark_us = time_us
        now_us = time_us - self._limits.lateness_us
        now_us -= now_us % STEP_US
        while due := self._due(now_us):
            for x in sorted(due, key=run_of):
                key = (x.tenant, x.execution)
                if not x.finished_us:
                    self._look(x, now_us)
                elif self._remembered.get(key) is x and x.finished_us + self._limits.linger_us <= now_us:
                    self._forget(key)

    def _due(self, now_us: int) -> list[Execution]:
        """Take what is due from the agenda."""
        due: list[Execution] = []
        while self._agenda and self._agenda[0][0] <= now_us:
            at_us, key = heappop(self._agenda)
            if self._looks.get(key) == at_us:
                del self._looks[key]
                due.append(self._open[key])
            elif key in self._remembered:
                due.append(self._remembered[key])
        return due

    def _look(self, x: Execution, now_us: int) -> None:
        rules = self._rules_of(x)
        if promises.has_waited_long_enough(x, rules) and x.last_us > now_us:
            self._plan(x, now_us)
            return
        for found in promises.missing(x, rules, now_us, self._limits):
            self._violate(found, x, self._at(x.tenant, x.chain, found.step, found.component, self.watermark_us))
        status = promises.verdict(x, rules, now_us, self._limits)
        if status is not None:
            self._finish(x, status)
        else:
            self._plan(x, now_us)

    def _plan(self, x: Execution, after_us: int = -1) -> None:
        """Have an open execution looked at as soon as something can be concluded."""
        key = (x.tenant, x.execution)
        at_us = promises.look_us(x, self._rules_of(x), self._limits, after_us)
        if at_us < self._looks.get(key, at_us + 1):
            self._looks[key] = at_us
            heappush(self._agenda, (at_us, key))

    # -- violations and windows -----------------------------------------------------------------------------------

    def _violate(self, found: Violation, x: Execution, totals: Totals) -> None:
        self.violations.append((self._offset, found))
        totals.violations[found.type] = totals.violations.get(found.type, 0) + 1
        if not x.violations:
            totals.add_affected(x.execution)
        x.violations += 1

    def _at(self, tenant: str, chain: str, step: str, component: str, time_us: int) -> Totals:
        """Return the window to add to; beyond the limit of series, that of the overflow."""
        series = (tenant, chain, step, component)
        if series not in self._series:
            if len(self._series) < self._limits.max_series:
                self._series.add(series)
                self._tenants.add(tenant)
            else:
                tenant = tenant if tenant in self._tenants else OVERFLOW
                self._tell_overflow(tenant, time_us - time_us % self._limits.window_us)
                series = (tenant, OVERFLOW, "", "")
        return self._book.at(series, time_us, self.watermark_us, self._offset >= self._committed)

    def _tell_overflow(self, tenant: str, start_us: int) -> None:
        found = Violation(
            id=derived_id("cardinality.exceeded", tenant, start_us), type="cardinality.exceeded", tenant=tenant,
            chain=OVERFLOW, time_unix_us=start_us, detail="",
        )  # fmt: skip
        self.violations.append((self._offset, found))

    def _rules_of(self, x: Execution) -> ChainRules | None:
        return self._rules.find(x.tenant, x.chain, x.start_us)

    def _position(self) -> LogPosition:
        return LogPosition(topic=self._topic, partition=self._partition, offset=self._offset)
