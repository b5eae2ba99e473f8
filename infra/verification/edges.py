"""Who depended on whom: what the parents of an execution's steps tell, known when the execution is over. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct

from infra.verification.compare import Record
from infra.verification.windows import closing_us
from schemas.internal import FAILED, Execution, Step
from streams.ids import derived_id
from streams.limits import Limits

CALL, FLOW, TOPIC = "call", "flow", "topic"


class Edge(NamedTuple):
    """`target` worked for, or on what was left by, `source`."""

    tenant: str
    chain: str
    kind: str
    source: str
    target: str
    topic: str


class EdgeTotals(Struct):
    """The uses of one edge in one window."""

    count: int = 0
    failed: int = 0
    latency_sum_us: int = 0
    latency_max_us: int = 0
    under_way: bool = False
    """One of them follows from a record that the pipeline has not committed."""


EdgeWindows = dict[tuple[Edge, int], EdgeTotals]
"""By edge and window start in µs."""


def add_edges(windows: EdgeWindows, x: Execution, start_us: int, under_way: bool, known: set[Edge], limit: int) -> None:
    """Add the edges of a finished execution to a window; once `limit` are known, no further ones."""
    for step in x.steps.values():
        for edge, latency_us in edges_of(x, step):
            if edge not in known:
                if len(known) >= limit:
                    continue
                known.add(edge)
            totals = windows.setdefault((edge, start_us), EdgeTotals())
            totals.count += 1
            totals.failed += step.status == FAILED
            totals.latency_sum_us += latency_us
            totals.latency_max_us = max(totals.latency_max_us, latency_us)
            totals.under_way = totals.under_way or under_way


def merge_edges(windows: EdgeWindows, others: EdgeWindows) -> None:
    """Add the edge windows of another source partition."""
    for key, other in others.items():
        totals = windows.setdefault(key, EdgeTotals())
        totals.count += other.count
        totals.failed += other.failed
        totals.latency_sum_us += other.latency_sum_us
        totals.latency_max_us = max(totals.latency_max_us, other.latency_max_us)
        totals.under_way = totals.under_way or other.under_way


def edges_of(x: Execution, step: Step) -> Iterator[tuple[Edge, int]]:
    """Yield (edge, latency in µs), one per component that a step depended on, itself left out."""
    known = {step.component}
    for span, elsewhere, component in step.parents:
        parent = x.steps.get(span) if not elsewhere and span != step.span else None
        if parent is not None:
            kind, latency_us = relation(parent, step)
            component = parent.component
        else:
            kind, latency_us = TOPIC if step.topic else FLOW, step.broker_us + step.duration_us
        if component and component not in known:
            known.add(component)
            yield Edge(x.tenant, x.chain, kind, component, step.component, step.topic), latency_us


def relation(parent: Step, step: Step) -> tuple[str, int]:
    """Return the kind of a step's dependency on its parent, and its latency: for a call the duration, else the wait too."""
    began_us = step.start_us or step.end_us - step.duration_us
    if not step.topic and is_call(parent, step, began_us):
        return CALL, step.duration_us
    waited_us = began_us - parent.end_us if parent.end_us else step.broker_us
    return TOPIC if step.topic else FLOW, step.duration_us + max(0, waited_us)


def is_call(parent: Step, step: Step, began_us: int) -> bool:
    """Tell whether a step ran while its parent waited: it lies within it, or sticks out by less than half.

    What outlives a parent that failed was called: the parent gave up waiting.
    """
    if not parent.end_us or (step.end_us and step.end_us <= parent.end_us and began_us < parent.end_us):
        return True
    if began_us >= parent.end_us:
        return False
    inside_us, outside_us = parent.end_us - began_us, step.end_us - parent.end_us
    return not step.end_us or parent.status == FAILED or inside_us >= outside_us


def conclude_edges(
    windows: Mapping[tuple[Edge, int], EdgeTotals], watermarks: Iterable[int], limits: Limits
) -> tuple[dict[str, Record], set[str]]:
    """Return the dependency windows that are closed by id, and the ids of those that are not."""
    watermark_us = min(watermarks, default=0)
    closed, still_open = dict[str, Record](), set[str]()
    for (edge, start_us), totals in windows.items():
        ident = derived_id(*edge, start_us)
        if totals.under_way or closing_us(start_us, limits) > watermark_us:
            still_open.add(ident)
        else:
            closed[ident] = {
                **edge._asdict(), "window_start_unix_us": start_us, "window_end_unix_us": start_us + limits.window_us,
                "count": totals.count, "failed": totals.failed, "latency_mean_us": totals.latency_sum_us / totals.count,
                "latency_max_us": totals.latency_max_us,
            }  # fmt: skip
    return closed, still_open
