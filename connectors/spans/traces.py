"""Collects what the readers yield: traces with their spans, each once, and what a trace is as a whole."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from connectors.spans.model import Audit, Item, LogLine, Options, Sample, Span, SpanImportError
from connectors.spans.names import MAX_NAME, MAX_PARENTS, clean_id, clean_name
from schemas.base import YEAR_2100_UNIX_US

_MAX_NS = YEAR_2100_UNIX_US * 1000


@dataclass(slots=True)
class Trace:
    """One execution. All its events carry this tenant and chain; times are unix microseconds."""

    execution: str
    spans: dict[str, Span] = field(default_factory=dict)
    tenant: str = ""
    chain: str = ""
    component: str = ""
    user: str = ""
    start_us: int = 0
    end_us: int = 0
    failure: Span | None = None
    """The failed span that made the execution fail."""


@dataclass
class Collected:
    """Everything of one import, in memory."""

    options: Options
    traces: dict[str, Trace] = field(default_factory=dict)
    logs: list[LogLine] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    spans: int = 0

    @property
    def items(self) -> int:
        """How many spans, log lines and samples there are."""
        return self.spans + len(self.logs) + len(self.samples)


def collect(items: Iterable[Item], options: Options, audit: Audit) -> Collected:
    """Return the usable items, repeated ones once; raises SpanImportError above `max_items`."""
    collected = Collected(options)
    seen_lines: set[bytes] = set()
    seen_samples: set[tuple[int, str]] = set()
    for item in items:
        if isinstance(item, Span):
            _add_span(item, collected, audit)
        elif isinstance(item, LogLine):
            _add_line(item, collected, seen_lines, audit)
        else:
            _add_sample(item, collected, seen_samples, audit)
        if collected.items > options.max_items:
            raise SpanImportError(
                f"{audit.where()}: more than {options.max_items} items; import fewer days or files at once."
            )
    for trace in collected.traces.values():
        _complete(trace, options, audit)
    return _cut(collected, audit)


def _add_span(span: Span, collected: Collected, audit: Audit) -> None:
    if not is_usable(span, audit):
        return
    trace = collected.traces.get(span.trace_id)
    if trace is None:
        trace = collected.traces[span.trace_id] = Trace(clean_id(span.trace_id))
    if span.span_id in trace.spans:
        audit.leave_out("span: repeated (same trace id and span id)")
        return
    trace.spans[span.span_id] = span
    collected.spans += 1


def is_usable(span: Span, audit: Audit) -> bool:
    """Return whether a span can become a step, mended where it must be; why not is counted."""
    if not span.trace_id or not span.span_id:
        audit.skip("span: no trace id or no span id")
        return False
    if not (0 < span.start_ns < _MAX_NS and 0 < span.end_ns < _MAX_NS):
        audit.skip("span: start or end is not between 1970 and 2100")
        return False
    _mend(span, audit)
    return True


def _mend(span: Span, audit: Audit) -> None:
    if span.end_ns < span.start_ns:
        audit.repair("span: ends before it starts, duration taken as 0")
        span.start_ns = span.end_ns
    if not span.service or not span.operation:
        audit.repair("span: no service or no operation name, named unknown")
    if len(span.service) > MAX_NAME or len(span.operation) > MAX_NAME:
        audit.repair(f"span: a name of more than {MAX_NAME} characters was shortened")
    if len(span.parents) > MAX_PARENTS:
        audit.repair(f"span: more than {MAX_PARENTS} parents and links, the rest was left out")
        span.parents = span.parents[:MAX_PARENTS]


def _add_line(line: LogLine, collected: Collected, seen: set[bytes], audit: Audit) -> None:
    if not 0 <= line.time_us <= YEAR_2100_UNIX_US:
        audit.skip("log: time is not between 1970 and 2100")
        return
    if line.identity in seen:
        audit.leave_out("log: repeated (same time, pod, span and text)")
        return
    if line.identity:
        seen.add(line.identity)
    collected.logs.append(line)


def _add_sample(sample: Sample, collected: Collected, seen: set[tuple[int, str]], audit: Audit) -> None:
    if not 0 <= sample.time_us <= YEAR_2100_UNIX_US:
        audit.skip("metric: time is not between 1970 and 2100")
        return
    key = (sample.time_us, sample.instance)
    if key in seen:
        audit.leave_out("metric: repeated (same pod and time)")
        return
    seen.add(key)
    collected.samples.append(sample)


def _complete(trace: Trace, options: Options, audit: Audit) -> None:
    root, is_whole = entry_of(trace)
    if not is_whole:
        what = "trace: its root span is missing, named after the earliest span without a known parent"
        audit.repair(what, f"trace {trace.execution}")
    describe(trace, root, options)


def entry_of(trace: Trace) -> tuple[Span, bool]:
    """Return the earliest span without a known parent, and whether it is the root: it has no parent at all."""
    spans = trace.spans.values()
    entries = [span for span in spans if not _has_parent_in(span, trace)]
    root = min(entries or spans, key=lambda span: span.start_ns)
    return root, bool(entries) and not has_parent(root)


def has_parent(span: Span) -> bool:
    """Return whether a span names a parent in its own trace."""
    return bool(span.parents) and any(not parent.trace_id for parent in span.parents)


def describe(trace: Trace, root: Span, options: Options) -> None:
    """Say of a trace what its spans tell, the root first: name, tenant, times, failure."""
    spans = trace.spans.values()
    trace.start_us = min(span.start_ns for span in spans) // 1000
    trace.end_us = max(span.end_ns for span in spans) // 1000
    trace.tenant = clean_name(root.tenant or options.tenant, "default")
    trace.component = clean_name(root.service)
    trace.user = clean_name(root.user) if root.user else ""
    named = root if options.chain_by == "root" else _first_called(trace, root)
    said = root.chain or next((span.chain for span in spans if span.chain), "")
    trace.chain = said or clean_name(f"{named.service or 'unknown'} {named.operation or 'unknown'}")
    trace.failure = _failure(root, trace)


def _has_parent_in(span: Span, trace: Trace) -> bool:
    return any(not parent.trace_id and parent.span_id in trace.spans for parent in span.parents)


def _first_called(trace: Trace, root: Span) -> Span:
    called = [span for span in trace.spans.values() if span.service != root.service]
    return min(called, key=lambda span: span.start_ns, default=root)


def _failure(root: Span, trace: Trace) -> Span | None:
    """Return the span whose failure is the execution's: the root, else a consumer, which no caller waits for.

    Any other failed span was handled by its caller, or the caller failed too.
    """
    if root.failed:
        return root
    failed = [span for span in trace.spans.values() if span.failed and span.kind == "consumer"]
    return min(failed, key=lambda span: span.end_ns, default=None)


def _cut(collected: Collected, audit: Audit) -> Collected:
    """Keep what ends in [from_unix_us, until_unix_us); a log line stays with its execution."""
    first, until = collected.options.from_unix_us, collected.options.until_unix_us
    if first is None and until is None:
        return collected

    def within(time_us: int) -> bool:
        return (first is None or time_us >= first) and (until is None or time_us < until)

    known = collected.traces
    kept = {trace_id: trace for trace_id, trace in known.items() if within(trace.end_us)}
    cut = Collected(
        collected.options,
        kept,
        [
            line
            for line in collected.logs
            if (line.trace_id in kept if line.trace_id in known else within(line.time_us))
        ],
        [sample for sample in collected.samples if within(sample.time_us)],
        sum(len(trace.spans) for trace in kept.values()),
    )
    if left_out := collected.items - cut.items:
        audit.leave_out("outside the chosen time", left_out)
    return cut
