"""Spans as they come, to chain events: an event needs the name of its chain, and a trace's root comes last.

Spans of a trace whose name is not known are held until its root comes, for a bounded time, and in a bounded number of traces.
Time is a parameter, everything else a function of the spans; what is remembered of a trace can be saved and restored.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

from connectors.spans.events import Edge, Encoder, Event, encoded
from connectors.spans.model import Options, ParentRef, Span
from connectors.spans.names import clean_id, clean_name
from connectors.spans.traces import Trace, describe, entry_of, has_parent

GAP = "flowchain.chain_by"
"""Attribute of execution.started and of an execution's end that says what a chain without a known root is named after."""
Basis = Literal["", "span", "root", "entry"]
"""What a trace has its chain from: nothing yet, a span that names it, its root, or the earliest span that came in time."""


@dataclass(slots=True)
class LiveTrace:
    """What is remembered of a trace. Times of arrival are unix microseconds."""

    trace: Trace
    """Its spans are those that are held."""
    first_us: int
    last_us: int
    basis: Basis = ""
    elsewhere: bool = False
    """The execution was begun, and ends, where it came from: here are only steps of it."""
    ended: bool = False


@dataclass
class LiveTraces:
    """The traces of one partition."""

    options: Options
    hold_us: int
    linger_us: int
    """A trace is forgotten when nothing came of it for so long."""
    max_traces: int
    """Remembered; beyond it the one that was silent for longest is told as it is, and forgotten."""
    produced: "Produced"
    told: Callable[[str], None]
    """Called with what a trace was named after, or with `limit`."""
    traces: OrderedDict[str, LiveTrace] = field(default_factory=OrderedDict)
    """By trace id, the one that was silent for longest first."""
    touched: dict[str, None] = field(default_factory=dict)
    """Trace ids of which something has changed since their owner has looked."""
    _nameless: dict[str, None] = field(default_factory=dict)
    """Trace ids that are held, the first one first."""

    def __post_init__(self) -> None:
        self._encoder = Encoder({}, self.options.tenant, find=self.produced.find)

    def take(self, spans: list[Span], now_us: int) -> list[Event]:
        """Return the events that spans of one trace lead to."""
        live = self._touch(spans[0].trace_id, now_us)
        for span in spans:
            if span.kind == "producer":
                self.produced.add(span)
        if live.basis:
            return self._tell(live, sorted(spans, key=attrgetter("end_ns")))
        for span in spans:
            live.trace.spans.setdefault(span.span_id, span)
        is_named = any(span.chain or not has_parent(span) for span in spans)
        events = self._name(live) if is_named else []
        while len(self.traces) > self.max_traces:
            self.told("limit")
            events += self._close(next(iter(self.traces)))
        return events

    def due(self, now_us: int) -> list[Event]:
        """Return the events of traces that were held, or silent, for long enough."""
        events: list[Event] = []
        while self._nameless and self.traces[first := next(iter(self._nameless))].first_us + self.hold_us <= now_us:
            events += self._name(self.traces[first])
            self.touched[first] = None
        while self.traces and next(iter(self.traces.values())).last_us + self.linger_us <= now_us:
            events += self._close(next(iter(self.traces)))
        return events

    def restore(self, traces: Iterable[tuple[str, LiveTrace]]) -> None:
        """Take back what was remembered."""
        self.traces = OrderedDict(sorted(traces, key=lambda item: item[1].last_us))
        held = [(live.first_us, name) for name, live in self.traces.items() if not live.basis]
        self._nameless = {name: None for _, name in sorted(held)}

    # -- one trace ------------------------------------------------------------------------------------------------

    def _touch(self, name: str, now_us: int) -> LiveTrace:
        live = self.traces.get(name)
        if live is None:
            live = self.traces[name] = LiveTrace(Trace(clean_id(name)), now_us, now_us)
            self._nameless[name] = None
        else:
            live.last_us = now_us
            self.traces.move_to_end(name)
        self.touched[name] = None
        return live

    def _name(self, live: LiveTrace) -> list[Event]:
        """Give a held trace its name, and tell what is held of it."""
        trace = live.trace
        entry, is_root = entry_of(trace)
        describe(trace, entry, self.options)
        said = next((span for span in trace.spans.values() if span.chain), None)
        live.basis = "span" if said else "root" if is_root else "entry"
        self.told(live.basis)
        live.elsewhere = entry.joins and not is_root
        if said and said.execution:
            live.elsewhere, trace.execution = True, said.execution
        held = sorted(trace.spans.values(), key=attrgetter("end_ns"))
        del self._nameless[entry.trace_id]
        trace.spans = {}
        trace.failure = trace.failure and bare(trace.failure)
        begun = [] if live.elsewhere else [self._edge(live, begins=True)]
        return begun + self._tell(live, held)

    def _tell(self, live: LiveTrace, spans: list[Span]) -> list[Event]:
        """Tell spans of a trace that has its name; its root ends the execution."""
        trace = live.trace
        for span in spans:
            trace.start_us = min(trace.start_us, span.start_ns // 1000)
            trace.end_us = max(trace.end_us, span.end_ns // 1000)
            if span.failed and span.kind == "consumer" and trace.failure is None:
                trace.failure = bare(span)
        events = [encoded(*self._encoder.step(span, trace)) for span in spans]
        root = next((span for span in spans if not has_parent(span)), None)
        if root is not None and not live.ended and not live.elsewhere:
            self._end_with(root, live)
            events.append(self._edge(live, begins=False))
        return events

    def _end_with(self, root: Span, live: LiveTrace) -> None:
        trace, live.ended = live.trace, True
        trace.start_us, trace.end_us, trace.component = root.start_ns // 1000, root.end_ns // 1000, clean_name(root.service)
        trace.failure = bare(root) if root.failed else trace.failure

    def _close(self, name: str) -> list[Event]:
        """Forget a trace; an execution whose root never came ends with the last of its spans."""
        live = self.traces[name]
        events = self._name(live) if not live.basis else []
        if not live.ended and not live.elsewhere:
            events.append(self._edge(live, begins=False))
        del self.traces[name]
        self.touched[name] = None
        return events

    def _edge(self, live: LiveTrace, *, begins: bool) -> Event:
        key, body = self._encoder.edge(Edge(live.trace, begins))
        if live.basis == "entry":
            body["attributes"] = {GAP: live.basis}
        return encoded(key, body)


class Produced:
    """Producer spans seen lately, of all partitions that a process has: what a consumer's link leads to is in another trace."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spans: dict[tuple[str, str], Span] = {}

    def add(self, span: Span) -> None:
        """Remember a span; the first of too many is forgotten."""
        self._spans[span.trace_id, span.span_id] = bare(span)
        if len(self._spans) > self._limit:
            del self._spans[next(iter(self._spans))]

    def find(self, parent: ParentRef, span: Span) -> Span | None:
        """Return the producer span that caused another one, where it is known."""
        return self._spans.get((parent.trace_id or span.trace_id, parent.span_id))


def bare(span: Span) -> Span:
    """Return what is needed of a span once it is told."""
    return Span(
        span.trace_id, span.span_id, span.service, span.operation, span.start_ns, span.end_ns, (), span.kind, span.failed,
        span.error_type, span.error_message,
    )  # fmt: skip
