"""What an execution has promised: what is due and when, what it broke, how it ended. Pure, and slow but plain.

Written from the documents and the contract, not from the code of the pipeline: `flowchain verify` holds one against the
other. Times are event times in µs; `now_us` is the watermark less the allowed lateness.
"""

from collections.abc import Iterator
from typing import Any

from schemas.internal import COMPLETED, FAILED, STARTED, Execution, Step
from schemas.violations import LogPosition, Violation
from streams.ids import derived_id
from streams.limits import Limits
from streams.rules import ChainRules, StepRule

SAW_STARTED, SAW_COMPLETED, SAW_FAILED = 1, 2, 4


def broken(kind: str, x: Execution, time_us: int, *, instance: str = "", **facts: Any) -> Violation:
    """Return the violation of one execution; `instance` tells runs of the same step apart."""
    step = facts.get("step", "")
    return Violation.model_validate(
        {
            "id": derived_id(kind, x.tenant, x.chain, x.execution, step, instance),
            "type": kind, "tenant": x.tenant, "chain": x.chain, "execution": x.execution, "user": x.user or None,
            "tier": x.tier or None, "time_unix_us": time_us, "detail": "", **facts,
        }
    )  # fmt: skip


def broken_by(kind: str, x: Execution, step: Step, position: LogPosition | None, **facts: Any) -> Violation:
    """Return the violation of one run of a step, at its end."""
    more = {"step": step.step, "component": step.component, "position": position, **facts}
    return broken(kind, x, step.end_us or step.start_us or x.last_us, instance=step.span, **more)


def broken_at_end(x: Execution, step: Step, rules: ChainRules, position: LogPosition) -> Iterator[Violation]:
    """Yield what a step that has just ended breaks of its definition, before its end is noted in `ends`."""
    rule = rules.steps.get(step.step)
    if rule is None:
        yield broken_by("step.unexpected", x, step, position)
        return
    if rule.expected_us and step.duration_us > rule.expected_us:
        yield broken_by(
            "step.slow", x, step, position, duration_us=step.duration_us, expected_us=rule.expected_us
        )
    if step.step in x.missing:
        by_us = due_us(x, rule)
        in_time = step.end_us <= (x.ended_us if by_us is None else by_us)
        yield broken_by("step.delayed" if in_time else "step.late", x, step, position)
    if step.step in x.ends and not rule.repeated and step.attempt == 1:
        yield broken_by("step.duplicated", x, step, position)


def broken_as_a_whole(x: Execution, rules: ChainRules | None, skew_us: int) -> Iterator[Violation]:
    """Yield what only a finished execution shows: its own failure, and steps that began before those they wait for ended."""
    if x.saw & SAW_FAILED:
        yield broken(
            "execution.failed", x, x.ended_us, component=x.component, error_type=x.error_type or None,
            error_message=x.error_message or None,
        )  # fmt: skip
    if rules is None:
        return
    first: dict[str, Step] = {}
    for step in x.steps.values():
        if step.status == COMPLETED:
            first.setdefault(step.step, step)
    for name, step in sorted(first.items()):
        after = rules.steps[name].after if name in rules.steps else ()
        if any(first[before].end_us > step.start_us + skew_us for before in after if before in first):
            yield broken_by("step.out_of_order", x, step, None)


def due_us(x: Execution, rule: StepRule) -> int | None:
    """Return by when a step must have ended; None without a deadline, or while one that it waits for has not ended."""
    if not rule.deadline_us:
        return None
    if not rule.after:
        return x.start_us + rule.deadline_us
    ends = [x.ends.get(name, 0) for name in rule.after]
    return max(ends) + rule.deadline_us if all(ends) else None


def awaited(x: Execution, rules: ChainRules | None) -> list[StepRule]:
    """Return the steps that must come, have not come and are not known to be missing."""
    if rules is None:
        return []
    return [r for r in rules.steps.values() if not (r.optional or r.name in x.ends or r.name in x.missing)]


def deadlines(x: Execution, rules: ChainRules | None) -> list[int]:
    """Return the deadlines that run, in µs of event time."""
    if rules is None:
        return []
    ends, missing = x.ends, x.missing
    left = [rule for rule in rules.timed if rule.name not in ends and rule.name not in missing]
    return [due for rule in left if (due := due_us(x, rule)) is not None]


def missing(x: Execution, rules: ChainRules | None, now_us: int, limits: Limits) -> Iterator[Violation]:
    """Yield a step.missing for all that should have ended by `now_us`, and note each in `missing`."""
    over = bool(x.saw & SAW_COMPLETED) and x.ended_us <= now_us
    for rule in awaited(x, rules) if not x.saw & SAW_FAILED else ():
        due = due_us(x, rule)
        if due is not None and due <= now_us:
            yield _missing(x, rule.name, rule.component, due, rule.deadline_us)
        elif due is None and over and rules is not None and _had_its_turn(x, rules, rule):
            yield _missing(x, rule.name, rule.component, x.ended_us, rule.deadline_us)
    if x.last_us + limits.idle_us <= now_us:
        for step in list(x.steps.values()):
            if step.status == STARTED and step.step not in x.missing:
                yield _missing(x, step.step, step.component, x.last_us + limits.idle_us, limits.idle_us)


def _had_its_turn(x: Execution, rules: ChainRules, rule: StepRule) -> bool:
    """Tell whether a step is missed from an execution that has completed: not if it waits for one that is missed itself."""
    return not rule.deadline_us or all(name in x.ends or rules.steps[name].optional for name in rule.after)


def _missing(x: Execution, name: str, component: str, time_us: int, allowed_us: int) -> Violation:
    x.missing.append(name)
    begun = [step.component for step in x.steps.values() if step.step == name and step.status == STARTED]
    component = begun[0] if begun else component
    return broken("step.missing", x, time_us, step=name, component=component, expected_us=allowed_us or None)


def is_done(x: Execution, rules: ChainRules | None) -> bool:
    """Tell whether nothing more can come, so that nobody has to wait: it failed, or all declared steps have ended."""
    end_comes = x.saw & (SAW_STARTED | SAW_COMPLETED) == SAW_STARTED
    all_ended = rules is not None and not end_comes and rules.required <= x.ends.keys()
    return (bool(x.saw & SAW_FAILED) or all_ended) and not pending(x)


def pending(x: Execution) -> int:
    """Return how many steps have begun and not ended."""
    return sum(step.status == STARTED for step in x.steps.values())


def verdict(x: Execution, rules: ChainRules | None, now_us: int, limits: Limits) -> str | None:
    """Return the status of an execution that is over at `now_us`; None = it is waited for."""
    if x.saw & SAW_FAILED and x.ended_us <= now_us:
        return "failed"
    over = bool(x.saw & SAW_COMPLETED) and x.ended_us <= now_us
    if (over or (rules is not None and x.missing)) and not deadlines(x, rules):
        if x.missing:
            return "incomplete"
        if rules is not None or not pending(x):
            return "completed"
    if x.last_us + limits.idle_us > now_us:
        return None
    if any(step.status == FAILED for step in x.steps.values()):
        return "failed"
    return "incomplete" if x.missing else "abandoned"


def has_waited_long_enough(x: Execution, rules: ChainRules | None) -> bool:
    """Tell whether a step is missing and no deadline runs: it is over once what came last is past the allowed lateness."""
    return rules is not None and bool(x.missing) and not deadlines(x, rules)


def look_us(x: Execution, rules: ChainRules | None, limits: Limits, after_us: int) -> int:
    """Return the first time later than `after_us` at which something can be concluded without any further event."""
    dues = deadlines(x, rules)
    idle_us = x.last_us + limits.idle_us
    times = [idle_us, *dues]
    if x.saw & (SAW_COMPLETED | SAW_FAILED):
        times.append(x.ended_us)
    if has_waited_long_enough(x, rules):
        return x.last_us if x.last_us > after_us else idle_us
    return min((time_us for time_us in times if time_us > after_us), default=idle_us)
