"""Holds an execution to its definition: what is slow, missing, late, out of order, unexpected, repeated; when it is over.

An execution of a chain without a definition is followed as observed: it ends with its execution event once the
allowed lateness has passed, and a step that began and never ended is missing when the execution has been silent for
long enough.
"""

from collections.abc import Iterable, Iterator

from schemas.internal import COMPLETED, FAILED, STARTED
from schemas.violations import LogPosition, Violation
from streams.events import StepEvent
from streams.limits import Limits
from streams.rules import ChainRules, StepRule
from streams.runs import Execution, Step
from streams.violations import milliseconds, step_violation, violation

SAW_STARTED, SAW_COMPLETED, SAW_FAILED = 1, 2, 4
ENDED = SAW_COMPLETED | SAW_FAILED


def failed(execution: Execution, step: Step, position: LogPosition) -> Violation:
    """Return the step.failed of a step that failed."""
    detail = f"{step.component} failed in {step.step} with {step.error_type}"
    facts = {
        "duration_us": step.duration_us,
        "error_type": step.error_type,
        "error_message": step.error_message or None,
    }
    return step_violation("step.failed", execution, step, detail, position, **facts)


def ran_again(execution: Execution, step: Step, event: StepEvent, position: LogPosition) -> Violation:
    """Return the step.duplicated of a step that ended twice under different event ids."""
    return violation(
        "step.duplicated", execution, event.time_unix_us, f"{step.step} ended a second time", step=step.step,
        component=step.component, instance=f"{step.span}@{position.offset}/{event.id}", position=position,
    )  # fmt: skip


def check_end(execution: Execution, step: Step, rules: ChainRules, position: LogPosition) -> Iterator[Violation]:
    """Yield what a step that has just ended breaks of its definition; call before its end is noted in `ends`."""
    rule = rules.steps.get(step.step)
    if rule is None:
        yield step_violation(
            "step.unexpected", execution, step, f"{step.step} is not a step of {rules.name} {rules.version}", position
        )
        return
    if rule.expected_us and step.duration_us > rule.expected_us:
        took, allowed = milliseconds(step.duration_us), milliseconds(rule.expected_us)
        detail = f"{step.step} took {took}, {allowed} expected"
        facts = {"duration_us": step.duration_us, "expected_us": rule.expected_us}
        yield step_violation("step.slow", execution, step, detail, position, **facts)
    if step.step in execution.missing:
        if step.end_us <= (_due_us(execution, rule) or execution.ended_us):
            detail = f"{step.step} ended in time, but was heard of only after it was missed"
            yield step_violation("step.delayed", execution, step, detail, position)
        else:
            yield step_violation("step.late", execution, step, f"{step.step} came after it was missed", position)
    if step.step in execution.ends and not rule.repeated and step.attempt == 1:
        yield step_violation("step.duplicated", execution, step, f"{step.step} ran more than once", position)


def ended_badly(execution: Execution) -> Violation:
    """Return the execution.failed of an execution that failed."""
    return violation(
        "execution.failed", execution, execution.ended_us,
        f"{execution.chain} failed with {execution.error_type}", component=execution.component,
        error_type=execution.error_type or None, error_message=execution.error_message or None,
    )  # fmt: skip


def out_of_order(execution: Execution, rules: ChainRules, limits: Limits) -> Iterator[Violation]:
    """Yield a step.out_of_order for every step that began before one ended that it has to wait for."""
    first = {step.step: step for step in reversed(execution.steps.values()) if step.status == COMPLETED}
    for name, step in sorted(first.items()):
        rule = rules.steps.get(name)
        waited_for = [first[before] for before in rule.after if before in first] if rule is not None else []
        last = max(waited_for, key=lambda before: before.end_us, default=step)
        if last is not step and last.end_us > step.start_us + limits.skew_us:
            detail = f"{name} began {milliseconds(last.end_us - step.start_us)} before {last.step} ended"
            yield step_violation("step.out_of_order", execution, step, detail, None)


def overdue(execution: Execution, rules: ChainRules | None, now_us: int, limits: Limits) -> Iterator[Violation]:
    """Yield a step.missing for every step that should have ended by `now_us`, and note it in `missing`."""
    if rules is not None and not execution.saw & SAW_FAILED:
        settled = bool(execution.saw & SAW_COMPLETED) and execution.ended_us <= now_us
        for rule in _awaited(execution, rules.steps.values() if settled else rules.timed):
            due_us = _due_us(execution, rule)
            if due_us <= now_us if due_us else settled and _had_its_turn(execution, rules, rule):
                yield _missing(execution, rule.name, rule.component, due_us or execution.ended_us, rule.deadline_us)
    if execution.last_us + limits.idle_us <= now_us:
        for step in list(execution.steps.values()):
            if step.status == STARTED and step.step not in execution.missing:
                yield _missing(
                    execution, step.step, step.component, execution.last_us + limits.idle_us, limits.idle_us
                )


def is_done(execution: Execution, rules: ChainRules | None) -> bool:
    """Tell whether nothing more can be expected of an execution, without waiting for lateness."""
    if execution.pending:
        return False
    if execution.saw & SAW_FAILED:
        return True
    if rules is None or execution.saw & (SAW_STARTED | SAW_COMPLETED) == SAW_STARTED:
        return False
    return execution.ends.keys() >= rules.required


def verdict(execution: Execution, rules: ChainRules | None, now_us: int, limits: Limits) -> str | None:
    """Return the final status of an execution that is over at `now_us`; None = still waiting."""
    if execution.saw & SAW_FAILED and execution.ended_us <= now_us:
        return "failed"
    waiting = rules is not None and any(_due_us(execution, rule) for rule in _awaited(execution, rules.timed))
    if execution.saw & SAW_COMPLETED and execution.ended_us <= now_us and not waiting:
        if execution.missing:
            return "incomplete"
        if rules is not None or not execution.pending:
            return "completed"
    if rules is not None and execution.missing and not waiting:
        return "incomplete"
    if execution.last_us + limits.idle_us > now_us:
        return None
    if any(step.status == FAILED for step in execution.steps.values()):
        return "failed"
    return "incomplete" if execution.missing else "abandoned"


def next_check_us(execution: Execution, rules: ChainRules | None, limits: Limits, after_us: int = 0) -> int:
    """Return the first event time later than `after_us` at which an open execution is to be looked at."""
    check_us = execution.last_us + limits.idle_us
    if rules is not None:
        waiting = False
        for rule in _awaited(execution, rules.timed):
            due_us = _due_us(execution, rule)
            if due_us:
                waiting = True
                if after_us < due_us < check_us:
                    check_us = due_us
        if execution.missing and not waiting and after_us < execution.last_us:
            return execution.last_us  # what it still waited for has come
    if execution.saw & ENDED and after_us < execution.ended_us < check_us:
        check_us = execution.ended_us
    return check_us


def _awaited(execution: Execution, rules: Iterable[StepRule]) -> Iterator[StepRule]:
    for rule in rules:
        if not rule.optional and rule.name not in execution.ends and rule.name not in execution.missing:
            yield rule


def _due_us(execution: Execution, rule: StepRule) -> int:
    """Return when a step must have ended; 0 = no deadline, or the steps before it have not ended."""
    if not rule.deadline_us:
        return 0
    if not rule.after:
        return execution.start_us + rule.deadline_us
    ends, last_us = execution.ends, 0
    for name in rule.after:
        end_us = ends.get(name, 0)
        if not end_us:
            return 0
        if end_us > last_us:
            last_us = end_us
    return last_us + rule.deadline_us


def _had_its_turn(execution: Execution, rules: ChainRules, rule: StepRule) -> bool:
    """Tell whether a step without a due time is missing from an execution that has completed.

    One with a deadline is not, as long as a step before it is missing itself; a skipped optional step is no excuse.
    """
    return not rule.deadline_us or all(name in execution.ends or rules.steps[name].optional for name in rule.after)


def _missing(execution: Execution, name: str, component: str, due_us: int, allowed_us: int) -> Violation:
    execution.missing.append(name)
    begun = next((s for s in execution.steps.values() if s.step == name and s.status == STARTED), None)
    what = "began and never ended" if begun else "never came"
    return violation(
        "step.missing", execution, due_us, f"{name} {what} within {milliseconds(allowed_us)}", step=name,
        component=begun.component if begun else component, expected_us=allowed_us or None,
    )  # fmt: skip
