"""Executions of one source partition from their first event to the moment they are forgotten.

Timers run on the partition's watermark in fixed steps, before the event that moved it is applied, so what happens does
not depend on how the log is cut into chunks or transactions, nor on a restart, which arms every open execution anew.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from schemas import internal
from schemas.internal import COMPLETED
from schemas.violations import LogPosition, Violation
from streams import conformance
from streams.booking import OVERFLOW, Book, Chain, KnownEdge, SeriesKey, Window
from streams.events import ExecutionEvent, StepEvent
from streams.evidence import keep_within
from streams.ids import derived_id
from streams.limits import Limits
from streams.rules import RuleBook, declared_edges
from streams.runs import Execution, Step
from streams.structure import book_structure
from streams.timers import GRANULARITY_US, NEVER_US, Timers
from streams.tracked import ExecutionKey, Output, RunKey, Tracked

SPARE = 10_000
"""So many more than are needed may be held, so that they are not looked through too often."""


class Lifecycle:
    """Opens, watches, finishes, remembers and forgets executions."""

    def __init__(self, topic: str, partition: int, rules: RuleBook, limits: Limits) -> None:
        self.partition = partition
        self.watermark_us = 0
        self.slice_end_us = limits.slice_us
        """The watermark at which the current slice ends."""
        self.executions: dict[ExecutionKey, Tracked] = {}
        """Open ones, and finished ones that are remembered."""
        self.open = 0
        self.book = Book(
            limits.window_us, limits.max_series, self._tell_overflow, lambda: self.out.count("edges_over_limit")
        )
        self.out = Output()
        self.timers: Timers[Tracked] = Timers()
        self._topic = topic
        self._rules = rules
        self._rules_version = rules.version
        self._limits = limits
        self._chains: dict[tuple[str, str], Chain] = {}
        self._finished: deque[Tracked] = deque()
        self._opened: deque[Tracked] = deque()
        """In the order in which they were opened, also some that are not open any more."""
        self._begun = (-1, 0)
        """(offset, ordinal) of the execution that began last."""

    def take(self) -> Output:
        """Return what has come together since the last call."""
        out, self.out = self.out, Output()
        for tracked in out.touched:
            tracked.touched = False
        self.cut()
        out.slices, out.new_series, out.new_edges = self.book.take()
        if len(self._chains) > self._limits.max_series:
            self._chains.clear()
        self._spare()
        return out

    def _spare(self) -> None:
        """Let go of executions that only timers, or the order of opening, still hold."""
        if len(self.timers) > 2 * len(self.executions) + SPARE:
            self.timers.keep(lambda tracked: self.executions.get(tracked.key) is tracked)
        if len(self._opened) > 2 * self.open + SPARE:
            self._opened = deque(tracked for tracked in self._opened if not tracked.finished_us)

    def cut(self) -> None:
        """End the slice that the watermark has left, if it has; also at the end of a transaction."""
        self.book.cut(self.slice_end_us)
        self.slice_end_us = self._limits.slice_end_us(self.watermark_us)

    def restore(
        self, watermark_us: int, open_: Iterable[internal.Execution], finished: Iterable[internal.Execution],
        series: Iterable[SeriesKey], edges: Iterable[KnownEdge] = (),
    ) -> None:  # fmt: skip
        """Take the state back as of a commit; `finished` in the order in which they finished."""
        self.watermark_us = watermark_us
        self.slice_end_us = self._limits.slice_end_us(watermark_us)
        self.book.restore(series, edges)
        for record in finished:
            if record.finished_us + self._limits.linger_us > self._now_us:
                tracked = self._track(Execution.of(record))
                tracked.rest(msgspec.json.encode(record))
                self._remember(tracked)
        for tracked in sorted(map(self._track, map(Execution.of, open_)), key=_beginning):
            tracked.logged, tracked.in_order = True, not tracked.execution.steps
            _note_ends(tracked)
            self._hold(tracked)
            self.arm(tracked)

    def chain(self, tenant: str, name: str) -> Chain:
        """Return a tenant's chain."""
        chain = self._chains.get((tenant, name))
        if chain is None:
            chain = self._chains[tenant, name] = Chain(tenant, name, self._rules.versions(tenant, name))
            for rules in chain.rules[:1]:
                for edge in declared_edges(tenant, rules):
                    self.book.declare(edge)
        return chain

    def refresh_rules(self) -> None:
        """Hold executions to the definitions that are in force now."""
        if self._rules.version == self._rules_version:
            return
        self._rules_version = self._rules.version
        self._chains.clear()
        for tracked in self.executions.values():
            tracked.chain = self.chain(tracked.chain.tenant, tracked.chain.name)
            if not tracked.finished_us:
                _note_ends(tracked)
                tracked.in_order = False  # by the new rules nobody has looked
                self.arm(tracked)

    def begin(self, event: StepEvent | ExecutionEvent, offset: int) -> Tracked:
        """Follow the execution whose first event this is."""
        duration_us = getattr(event, "duration_us", None) or 0
        start_us = max(0, event.time_unix_us - duration_us)
        execution = Execution(
            event.tenant, event.chain, event.execution, offset, offset, user=event.user or "", tier=event.tier or "",
            chain_version=event.chain_version or "", start_us=start_us, last_us=event.time_unix_us,
            component=event.component or "", ordinal=self._ordinal(offset),
        )  # fmt: skip
        tracked = self._track(execution)
        self._hold(tracked)
        if self.open > self._limits.max_open:
            self._close_oldest()
        self.arm(tracked)
        return tracked

    def arm(self, tracked: Tracked, after_us: int = 0) -> None:
        """Have an open execution looked at at its next time after `after_us`."""
        self.arm_at(tracked, conformance.next_check_us(tracked.execution, tracked.rules, self._limits, after_us))

    def arm_at(self, tracked: Tracked, time_us: int) -> None:
        """Have an open execution looked at at `time_us` at the latest."""
        if time_us < tracked.armed_us:
            tracked.armed_us = time_us
            self.timers.at(time_us, tracked)

    @property
    def _now_us(self) -> int:
        """The event time up to which timers have run."""
        now_us = self.watermark_us - self._limits.lateness_us
        return now_us - now_us % GRANULARITY_US

    def run_timers(self) -> None:
        """Look at what is due. Time goes in the timers' steps, so that looking more often changes nothing.

        In the order of first events: that in which timers were set is another one after a restart, and which of two that
        end together is forgotten first would depend on it.
        """
        now_us = self._now_us
        while self.timers.next_us <= now_us:
            for tracked in sorted(self.timers.due(now_us), key=_beginning):
                if self.executions.get(tracked.key) is tracked:
                    self._look(tracked, now_us)

    def _look(self, tracked: Tracked, now_us: int) -> None:
        finished_us = tracked.finished_us
        if finished_us:
            if finished_us + self._limits.linger_us <= now_us:
                self._forget(tracked)
        elif tracked.armed_us <= now_us:
            tracked.armed_us = NEVER_US
            self._check(tracked, now_us)

    def finish_if_done(self, tracked: Tracked) -> None:
        """Finish an execution of which nothing more can be expected."""
        if tracked.finished_us:
            return
        execution = tracked.execution
        if conformance.is_done(execution, tracked.rules):
            self._finish(tracked, "failed" if execution.saw & conformance.SAW_FAILED else "completed")
        elif execution.saw & conformance.ENDED:
            self.arm_at(tracked, execution.ended_us)

    def revise(self, tracked: Tracked, offset: int) -> None:
        """Note that an execution changes; a finished one goes out again, whole and under a higher revision."""
        if tracked.finished_us:
            execution = tracked.execution
            execution.revision += 1
            execution.last_offset = offset
            self.out.finished[tracked.run] = tracked

    def violate(self, found: Violation, execution: Execution, window: Window) -> None:
        """Publish a violation and book it."""
        self.out.violations.append(found)
        window.violated(found.type, found.time_unix_us)
        if not execution.violations:
            window.hurt(execution.execution, execution.user)
        execution.violations += 1

    def limit_evidence(self, execution: Execution, step: Step, *, parents: bool, message: bool = False) -> None:
        """Keep what a step has just brought within the execution's limit."""
        if not keep_within(execution, step, parents, message, self._limits.max_evidence):
            self.out.count("evidence_over_limit")

    def position(self, offset: int) -> LogPosition:
        """Return where a record stands on the log."""
        return LogPosition(topic=self._topic, partition=self.partition, offset=offset)

    # -- the end of an execution ----------------------------------------------------------------------------------

    def _check(self, tracked: Tracked, now_us: int) -> None:
        execution, rules = tracked.execution, tracked.rules
        if conformance.next_check_us(execution, rules, self._limits) > now_us:
            self.arm(tracked, now_us)  # what the timer was set for has come meanwhile
            return
        self.out.touch(tracked)
        for found in conformance.overdue(execution, rules, now_us, self._limits):
            window = self.book.at(
                tracked.chain, found.step, found.component, self.watermark_us, execution.last_offset
            )  # fmt: skip
            self.violate(found, execution, window)
        status = conformance.verdict(execution, rules, now_us, self._limits)
        if status is not None:
            self._finish(tracked, status)
        else:
            self.arm(tracked, now_us)

    def _finish(self, tracked: Tracked, status: str) -> None:
        execution = tracked.execution
        end_us = execution.ended_us or execution.last_us
        execution.status = status
        execution.duration_us = execution.duration_us or max(0, end_us - execution.start_us)
        window = self.book.at(tracked.chain, "", "", self.watermark_us, execution.last_offset)
        window.durations_us.append(execution.duration_us)
        if status != "completed":
            window.failed += 1
        if execution.saw & conformance.SAW_FAILED:
            self.violate(conformance.ended_badly(execution), execution, window)
        rules = tracked.rules
        if rules is not None and not tracked.in_order:
            for found in conformance.out_of_order(execution, rules, self._limits):
                self.violate(found, execution, window)
        book_structure(self.book, tracked.chain, execution, self.watermark_us)
        self.open -= 1
        del self.executions[tracked.key]
        execution.finished_us = tracked.finished_us = self.watermark_us
        self._remember(tracked)
        self.out.finished[tracked.run] = tracked

    def _remember(self, tracked: Tracked) -> None:
        self.executions[tracked.key] = tracked
        self._finished.append(tracked)
        self.timers.at(tracked.finished_us + self._limits.linger_us, tracked)
        if len(self._finished) > self._limits.max_finished:
            self.out.count("finished_over_limit")
            self._forget(self._finished[0])

    def _forget(self, tracked: Tracked) -> None:
        self.executions.pop(tracked.key, None)
        finished = self._finished
        while finished and self.executions.get(finished[0].key) is not finished[0]:
            finished.popleft()

    def _close_oldest(self) -> None:
        self.out.count("closed_by_limit")
        oldest = next(tracked for tracked in iter(self._opened.popleft, None) if not tracked.finished_us)
        self.out.touch(oldest)
        self._finish(oldest, "abandoned")

    def _hold(self, tracked: Tracked) -> None:
        self.executions[tracked.key] = tracked
        self._opened.append(tracked)
        self.open += 1

    def _ordinal(self, offset: int) -> int:
        """Return how many executions the record has begun before this one."""
        last, ordinal = self._begun
        self._begun = offset, ordinal + 1 if offset == last else 0
        return self._begun[1]

    def _track(self, execution: Execution) -> Tracked:
        key = (execution.tenant, execution.execution)
        return Tracked(key, execution, self.chain(execution.tenant, execution.chain))

    def _tell_overflow(self, tenant: str, time_us: int) -> None:
        self.out.count("series_over_limit")
        start_us = time_us - time_us % self._limits.window_us
        found = Violation(
            id=derived_id("cardinality.exceeded", tenant, start_us), type="cardinality.exceeded", tenant=tenant,
            chain=OVERFLOW, time_unix_us=start_us,
            detail=f"more than {self._limits.max_series} distinct steps of chains: further ones are booked under {OVERFLOW}",
        )  # fmt: skip
        if found.id not in self.out.told:
            self.out.told.add(found.id)
            self.out.violations.append(found)


def _beginning(tracked: Tracked) -> RunKey:
    return tracked.run


def _note_ends(tracked: Tracked) -> None:
    """Note when steps ended that nobody had declared then: a definition may come while an execution runs."""
    if tracked.rules is None:
        return
    ends = tracked.execution.ends
    for step in tracked.execution.steps.values():
        if step.status == COMPLETED and step.end_us > ends.get(step.step, -1):
            ends[step.step] = step.end_us
