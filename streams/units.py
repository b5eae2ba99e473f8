"""What a finished execution tells about each component's handling of one call: the input of root-cause ranking.

A *unit* is a maximal set of spans of one component that are connected by calls; its context is (component, step of its
first span). Source: our study of method E (`streams/rootcause/executions.py`). Per unit: the events present in it, whether an error
began in it, its own time (without callees') and the edge gap in front of it. All additive: nobody keeps executions.

Indicators, the names of events:
- `span:<step>`                 a further step of the component inside the unit
- `call:<component>/<step>`     a call to another component
- `log:<LEVEL template>`        a log statement
- `err:<what>`                  the same for errors that *began* here; `err:step <step> failed with <type>`,
                                `err:step <step> never ended`, `err:log <LEVEL template>`, `err:span <step>`
Errors are booked in all units, the others only in clean ones (no error in the unit, nor in one called from it).
"""

import re
from functools import lru_cache

from mypy_extensions import mypyc_attr

from schemas.internal import COMPLETED, FAILED, STARTED
from streams.runs import Execution, Step

CALL, FLOW, TOPIC = "call", "flow", "topic"
ERROR = "err:"
UNKNOWN = -1

_ERROR_NAME = re.compile(r"error|exception", re.IGNORECASE)
_ERROR_LOG = ("ERROR ", "FATAL ", "error ", "fatal ")
_STUCK = ("incomplete", "abandoned")


@mypyc_attr(acyclic=True)
class Unit:
    """A component's handling of one call."""

    __slots__ = ("component", "end_us", "explained", "failed", "gap_us", "indicators", "own_us", "step")

    def __init__(self, component: str, step: str, end_us: int) -> None:
        self.component = component
        self.step = step
        self.end_us = end_us
        self.own_us = UNKNOWN
        self.gap_us = UNKNOWN
        self.failed = False
        """An error is in it, wherever it began."""
        self.explained = False
        """An error is in a unit that it waited for, or a step before it in the flow failed."""
        self.indicators: tuple[str, ...] = ()


@mypyc_attr(acyclic=True)
class Edge:
    """One observed dependency: `target` did a step because of `source`."""

    __slots__ = ("failed", "kind", "latency_us", "source", "target", "topic")

    def __init__(self, kind: str, source: str, target: str, topic: str, failed: bool, latency_us: int) -> None:
        self.kind = kind
        self.source = source
        self.target = target
        self.topic = topic
        self.failed = failed
        self.latency_us = latency_us


Links = dict[str, tuple[Step, str]]
"""span -> (its parent in the same execution, kind)."""


def observe(execution: Execution) -> tuple[list[Unit], list[Edge]]:
    """Return the units of an execution that is finished, and its edges: one per observed dependency."""
    steps = execution.steps
    of: dict[str, Unit] = {}
    edges: list[Edge] = []
    links: Links = {}
    calls: list[Step] = []
    joined: list[Step] = []
    special = False
    for span, step in steps.items():
        unit = of[span] = Unit(step.component, step.step, step.end_us or execution.last_us)
        if step.status == COMPLETED:  # a failed one may have waited for somebody who never answered
            unit.own_us = step.duration_us
            if step.logs or _error_name(step.step):
                special = True
        else:
            special = True
        if not step.parents:
            if step.topic:
                unit.gap_us = step.broker_us
            continue
        link = (_link_one if len(step.parents) == 1 else _link_many)(execution, step, unit, edges)
        if link is not None:
            links[span] = link
            if link[1] is CALL:
                (joined if link[0].component == step.component else calls).append(step)
    if joined:
        _join(of, links, joined)
    if calls:
        _charge_calls(of, links, calls, steps)
    if special:
        _book_events(execution, of, links)
    elif joined or calls:
        _book_presence(of, links, joined, calls)
    if not joined:
        return list(of.values()), edges
    return [unit for span, unit in of.items() if not _is_joined(span, links, steps)], edges


def _link_one(execution: Execution, step: Step, unit: Unit, edges: list[Edge]) -> tuple[Step, str] | None:
    """Resolve a single parent: add its edge, and return it if the step's unit hangs on it."""
    return _resolve(execution, step, step.parents[0], unit, edges)


def _link_many(execution: Execution, step: Step, unit: Unit, edges: list[Edge]) -> tuple[Step, str] | None:
    """Fan-in: the unit hangs on its caller, else on the parent that ended last; one edge per source component."""
    best: tuple[Step, str] | None = None
    sources: set[str] = set()
    gap = UNKNOWN
    for parent in step.parents:
        found: list[Edge] = []
        link = _resolve(execution, step, parent, unit, found)
        edges.extend(edge for edge in found if edge.source not in sources)
        sources.update(edge.source for edge in found)
        if link is not None and (best is None or _rank(link) > _rank(best)):
            best, gap = link, unit.gap_us
    if best is not None:
        unit.gap_us = gap if best[1] is not CALL else UNKNOWN
    return best


def _resolve(
    execution: Execution, step: Step, cause: tuple[str, str, str], unit: Unit, edges: list[Edge]
) -> tuple[Step, str] | None:
    """Resolve one parent.

    The gap of a flow is what passed between the end of the last parent and the step's start: waiting in a queue.
    """
    span, elsewhere, hint = cause
    topic, target = step.topic, step.component
    parent = None if elsewhere else execution.steps.get(span)
    if parent is None or parent is step:
        if hint and hint != target:
            latency_us = step.broker_us + step.duration_us
            edges.append(Edge(TOPIC if topic else FLOW, hint, target, topic, step.status == FAILED, latency_us))
        if topic:
            unit.gap_us = step.broker_us
        return None
    kind, end_us = relation(parent, step), parent.end_us
    latency_us = step.duration_us
    if kind is not CALL:
        gap_us = (step.start_us or step.end_us - latency_us) - end_us if end_us else step.broker_us
        if gap_us < 0:
            gap_us = 0
        unit.gap_us = gap_us
        latency_us += gap_us
    source = parent.component
    if source != target:
        edges.append(Edge(kind, source, target, topic, step.status == FAILED, latency_us))
    return parent, kind


def _rank(link: tuple[Step, str]) -> tuple[bool, int, str]:
    return link[1] is CALL, link[0].end_us, link[0].span


def relation(parent: Step, step: Step) -> str:
    """Return how a step hangs on its parent: CALL, FLOW or TOPIC.

    A call lies within its parent. Clocks differ, so a span that sticks out counts by its larger half. One that
    outlives a parent that failed was called: its caller gave up waiting.
    """
    if step.topic:
        return TOPIC
    end_us, parent_end_us = step.end_us, parent.end_us
    start_us = step.start_us or end_us - step.duration_us
    if not parent_end_us:
        return CALL
    if start_us >= parent_end_us:
        return FLOW
    if not end_us or end_us <= parent_end_us or parent.status == FAILED:
        return CALL
    return CALL if parent_end_us - start_us >= end_us - parent_end_us else FLOW


@lru_cache(maxsize=4096)
def _error_name(step: str) -> bool:
    """Return whether a span's name says that it handles an error: stands for a status where the source has none."""
    return _ERROR_NAME.search(step) is not None


def _is_joined(span: str, links: Links, steps: dict[str, Step]) -> bool:
    link = links.get(span)
    return link is not None and link[1] is CALL and link[0].component == steps[span].component


def _join(of: dict[str, Unit], links: Links, joined: list[Step]) -> None:
    """Let spans called by a span of the same component share its unit."""
    inside = {step.span for step in joined}
    for step in joined:
        span = step.span
        for _ in range(len(of)):
            if span not in inside:
                break
            span = links[span][0].span
        of[step.span] = of[span]


def _charge_calls(of: dict[str, Unit], links: Links, calls: list[Step], steps: dict[str, Step]) -> None:
    """Take the time spent in callees out of own time, and charge what passed between client and server to the callee.

    A span that wraps one call and is not the unit's first is a client span: all of it is waiting. Otherwise only the
    callee's duration is, since what the caller did beside it cannot be told apart.
    """
    children: dict[str, int] = {}
    for parent, kind in links.values():
        if kind is CALL:
            children[parent.span] = children.get(parent.span, 0) + 1
    waits: dict[int, tuple[Unit, list[tuple[int, int]]]] = {}
    for step in calls:
        caller = links[step.span][0]
        unit = of[caller.span]
        waiting = step
        if children[caller.span] == 1 and _is_joined(caller.span, links, steps):
            waiting = caller
            if caller.end_us and step.end_us:
                of[step.span].gap_us = max(0, caller.duration_us - step.duration_us)
        if waiting.end_us:
            waits.setdefault(id(unit), (unit, []))[1].append(
                (waiting.end_us - waiting.duration_us, waiting.end_us)
            )
    for unit, intervals in waits.values():
        if unit.own_us > 0:
            unit.own_us = max(0, unit.own_us - _covered(intervals))


def _covered(intervals: list[tuple[int, int]]) -> int:
    """Return the length of a union of intervals: callees that run side by side are waited for once."""
    if len(intervals) == 1:
        return intervals[0][1] - intervals[0][0]
    total, reached = 0, 0
    for start, end in sorted(intervals):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total


def _book_presence(of: dict[str, Unit], links: Links, joined: list[Step], calls: list[Step]) -> None:
    """Book spans and calls of units, leaving out those that an error touched."""
    for step in joined:
        _add(of[step.span], "span:" + step.step)
    for step in calls:
        _add(of[links[step.span][0].span], f"call:{step.component}/{step.step}")


def _add(unit: Unit, indicator: str) -> None:
    if indicator not in unit.indicators:
        unit.indicators = (*unit.indicators, indicator)


def _book_events(execution: Execution, of: dict[str, Unit], links: Links) -> None:
    """Book events of an execution that has logs or errors: errors where they began, the rest in clean units."""
    steps = execution.steps
    errors = [(step, what) for step in steps.values() for what in _errors(execution, step, links)]
    for step, _ in errors:
        of[step.span].failed = True
    _explain(execution, of, links, {step.span for step, _ in errors})
    for step, what in errors:
        unit = of[step.span]
        if not unit.explained:
            _add(unit, ERROR + what)
    clean = [step for step in steps.values() if not (of[step.span].failed or of[step.span].explained)]
    for step in clean:
        for log in step.logs:
            _add(of[step.span], "log:" + log)
    joined = [step for step in clean if _is_joined(step.span, links, steps)]
    called = [step for span, step in steps.items() if span in links and links[span][1] is CALL]
    calls = [step for step in called if not _is_joined(step.span, links, steps)]
    callers_clean = [
        s for s in calls if not (of[links[s.span][0].span].failed or of[links[s.span][0].span].explained)
    ]
    _book_presence(of, links, joined, callers_clean)


def _errors(execution: Execution, step: Step, links: Links) -> list[str]:
    """Return what went wrong in a span."""
    found = [f"log {log}" for log in step.logs if log.startswith(_ERROR_LOG)]
    if step.status == FAILED:
        found.append(f"step {step.step} failed with {step.error_type or 'an error'}")
    elif step.status == STARTED and _is_stuck(execution, step, links):
        found.append(f"step {step.step} never ended")
    elif _outlived(step, links):
        found.append(f"step {step.step} outlived its caller")
    if _error_name(step.step):
        found.append(f"span {step.step}")
    return found


def _is_stuck(execution: Execution, step: Step, links: Links) -> bool:
    """Return whether an open span is a fault: its execution fell silent, or its caller has given up."""
    link = links.get(step.span)
    return execution.status in _STUCK or (link is not None and link[1] is CALL and link[0].status == FAILED)


def _outlived(step: Step, links: Links) -> bool:
    link = links.get(step.span)
    if link is None or link[1] is not CALL:
        return False
    parent = link[0]
    return parent.status == FAILED and step.end_us - parent.end_us > max(1000, step.duration_us // 10)


def _explain(execution: Execution, of: dict[str, Unit], links: Links, errors: set[str]) -> None:
    """Mark units whose error is another's: callers of a unit with an error, and what follows a failed step."""
    steps = execution.steps
    broken = {span for span in errors if steps[span].status != COMPLETED}
    for span in errors:
        unit, waited, here = of[span], True, span
        for _ in range(len(steps)):
            link = links.get(here)
            if link is None:
                break
            here = link[0].span
            waited = waited and link[1] is CALL
            if of[here] is unit:
                continue
            if waited:
                of[here].explained = True
            elif here in broken:
                unit.explained = True
