"""Spans, log lines and samples -> chain events of the contract (`schemas/events.py`), in event-time order.

A trace is an execution, a span one ended step. Per trace one `execution.started` at its earliest start and
one `execution.completed` or `execution.failed` at its latest end are added.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple, cast

import orjson

from connectors.spans.model import LogLine, ParentRef, Sample, Span
from connectors.spans.names import MAX_MESSAGE, clean_id, clean_name, shorten
from connectors.spans.traces import Collected, Trace

_DEFAULT_ERROR = "error"


class Event(NamedTuple):
    """One record for the events topic."""

    key: str
    """Execution id; the component for resource.sampled."""
    time_unix_us: int
    value: bytes


@dataclass(slots=True)
class Edge:
    """The beginning or the end of an execution."""

    trace: Trace
    begins: bool


Entry = Span | LogLine | Sample | Edge


def time_us(entry: Entry) -> int:
    """Return the event time of an entry, before any shift."""
    if isinstance(entry, Span):
        return entry.end_ns // 1000
    if isinstance(entry, Edge):
        return entry.trace.start_us if entry.begins else entry.trace.end_us
    return entry.time_us


def _rank(entry: Entry) -> int:
    """Sort key: time, and at the same microsecond an execution begins first and ends last."""
    rank = 1 if not isinstance(entry, Edge) else 0 if entry.begins else 2
    return time_us(entry) * 4 + rank


def in_order(collected: Collected) -> list[Entry]:
    """Return all entries by event time; the same input always gives the same order."""
    entries: list[Entry] = []
    for trace in collected.traces.values():
        entries += (Edge(trace, True), Edge(trace, False))
        # of spans that end together the later begun is the inner one: it ends first
        entries += sorted(trace.spans.values(), key=attrgetter("start_ns"), reverse=True)
    entries += collected.logs
    entries += collected.samples
    entries.sort(key=_rank)
    return entries


def encoded(key: str, body: dict[str, Any]) -> Event:
    """Return an event as it stands on the topic."""
    return Event(key, body["time_unix_us"], orjson.dumps(body))


Find = Callable[[ParentRef, Span], Span | None]
"""Returns the span that caused another one, where it is known."""


class Encoder:
    """Turns entries into events; times are moved by `shift_us`."""

    def __init__(self, traces: Mapping[str, Trace], tenant: str, shift_us: int = 0, find: Find | None = None) -> None:
        """`tenant` is that of log lines and samples; spans are found among those of the traces unless `find` says where."""
        self._traces = traces
        self._tenant = clean_name(tenant, "default")
        self._shift_us = shift_us
        self._find = find or self._find_in_traces
        encode: dict[type, Callable[[Any], tuple[str, dict[str, Any]]]] = {
            Span: lambda span: self.step(span, self._traces[span.trace_id]),
            LogLine: self._log,
            Sample: self._sample,
            Edge: self.edge,
        }
        self._encode = encode

    def events(self, entries: Iterable[Entry]) -> Iterator[Event]:
        """Yield the event of each entry, in the given order."""
        for entry in entries:
            yield encoded(*self._encode[type(entry)](entry))

    def _find_in_traces(self, parent: ParentRef, span: Span) -> Span | None:
        trace = self._traces.get(parent.trace_id or span.trace_id)
        return trace.spans.get(parent.span_id) if trace else None

    def edge(self, edge: Edge) -> tuple[str, dict[str, Any]]:
        """Return the key and the event of the beginning or the end of an execution."""
        trace = edge.trace
        status = "started" if edge.begins else "failed" if trace.failure else "completed"
        body: dict[str, Any] = {
            "type": f"execution.{status}",
            "chain": trace.chain,
            "execution": trace.execution,
            "time_unix_us": time_us(edge) + self._shift_us,
            "tenant": trace.tenant,
            "component": trace.component,
        }
        if trace.user:
            body["user"] = trace.user
        if not edge.begins:
            body["duration_us"] = trace.end_us - trace.start_us
            if trace.failure:
                body.update(_error(trace.failure))
        return trace.execution, body

    def step(self, span: Span, trace: Trace) -> tuple[str, dict[str, Any]]:
        """Return the key and the event of a span of a trace."""
        body: dict[str, Any] = {
            "type": "step.failed" if span.failed else "step.completed",
            "chain": trace.chain,
            "execution": trace.execution,
            "time_unix_us": span.end_ns // 1000 + self._shift_us,
            "tenant": trace.tenant,
            "component": clean_name(span.service),
            "step": clean_name(span.operation),
            "span": clean_id(span.span_id),
            "duration_us": (span.end_ns - span.start_ns) // 1000,
        }
        if span.parents:
            body["parents"] = self._parents(span)
        if span.failed:
            body.update(_error(span))
        # only OTLP has these; one look keeps the other layout quick
        if span.kind or span.attributes or span.attempt > 1 or span.user:
            self._add_optional(span, body)
        return trace.execution, body

    def _add_optional(self, span: Span, body: dict[str, Any]) -> None:
        if span.attempt > 1:
            body["attempt"] = span.attempt
        if span.user:
            body["user"] = clean_name(span.user)
        if span.attributes:
            body["attributes"] = span.attributes
        if span.consumed:
            body["consumed"] = span.consumed._asdict() | {"broker_us": self._broker_us(span)}

    def _parents(self, span: Span) -> list[dict[str, str]]:
        parents = []
        for parent in span.parents:
            body = {"span": clean_id(parent.span_id)}
            if parent.trace_id:
                body["execution"] = clean_id(parent.trace_id)
            if found := self._find(parent, span):
                body["component"] = clean_name(found.service)
            parents.append(body)
        return parents

    def _broker_us(self, span: Span) -> int:
        """Return the time from the end of the latest producer span known to this one's start; 0 = unknown."""
        found = (self._find(parent, span) for parent in span.parents)
        produced_ns = max((producer.end_ns for producer in found if producer and producer.kind == "producer"), default=0)
        return max(0, span.start_ns - produced_ns) // 1000 if produced_ns else 0

    def _log(self, line: LogLine) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "type": "log.observed",
            "component": clean_name(line.service),
            "level": line.level,
            "template": line.template,
            "time_unix_us": line.time_us + self._shift_us,
            "tenant": self._tenant,
        }
        if not line.trace_id:
            return cast(str, body["component"]), body
        execution = body["execution"] = clean_id(line.trace_id)
        if line.span_id:
            body["span"] = clean_id(line.span_id)
        if trace := self._traces.get(line.trace_id):
            body["tenant"], body["chain"] = trace.tenant, trace.chain
            if span := trace.spans.get(line.span_id):
                body["step"] = clean_name(span.operation)
        return execution, body

    def _sample(self, sample: Sample) -> tuple[str, dict[str, Any]]:
        component = clean_name(sample.service)
        body: dict[str, Any] = {
            "type": "resource.sampled",
            "component": component,
            "time_unix_us": sample.time_us + self._shift_us,
            "tenant": self._tenant,
            "instance": clean_name(sample.instance),
            "cpu_ratio": sample.cpu_ratio,
            "memory_ratio": sample.memory_ratio,
            "memory_bytes": sample.memory_bytes,
            "network_receive_bytes_per_s": sample.network_receive_bytes_per_s,
            "network_transmit_bytes_per_s": sample.network_transmit_bytes_per_s,
        }
        return component, {name: value for name, value in body.items() if value is not None}


def _error(span: Span) -> dict[str, str]:
    error = {"error_type": clean_name(span.error_type, _DEFAULT_ERROR)}
    if span.error_message:
        error["error_message"] = shorten(span.error_message, MAX_MESSAGE)
    return error
