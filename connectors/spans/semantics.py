"""What the fields of an OTLP span mean, by today's semantic conventions and older ones: one place for every encoding."""

from typing import NamedTuple
from urllib.parse import unquote

from connectors.spans.attributes import RESENDS, attempt, bounded, consumed_record, consumes
from connectors.spans.model import AttributeValue, Audit, Kind, Options, ParentRef, Span, first_text
from connectors.spans.names import clean_id, clean_name

CHAIN, EXECUTION = ("flowchain.chain", "flowchain-chain"), ("flowchain.execution", "flowchain-execution")
"""Attributes that say which execution of which chain a span is part of; the second name of each is that of the SDK's baggage, which
comes as an attribute where OpenTelemetry's baggage span processor is in use."""
_USER = ("user.id", "enduser.id")
_RARE = frozenset((*CHAIN, *EXECUTION, *_USER, *RESENDS))
"""One look for all of them: most spans have none."""
STATE = "flowchain="
"""Begins the SDK's entry in tracestate, which spans hold as it came and goes on."""


class Seen(NamedTuple):
    """A span as it stands in OTLP: ids in hex, times in unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty: a root."""
    name: str
    start_ns: int
    end_ns: int
    kind: Kind
    attributes: dict[str, AttributeValue]
    links: list[tuple[str, str]]
    """(trace id, span id) each."""
    failed: bool
    """The status is an error."""
    message: str
    """Of the status."""
    exception: dict[str, AttributeValue]
    """Attributes of the last exception event."""
    trace_state: str


class Carried(NamedTuple):
    """What the SDK's entry in `tracestate` says: the execution that the trace is part of."""

    chain: str = ""
    tenant: str = ""
    execution: str = ""


_NOTHING = Carried()


def _carried(seen: Seen) -> Carried:
    """Return what came from a service with the SDK: `flowchain=<span>;<chain>;<tenant>;<execution where it is not the trace>`."""
    for member in seen.trace_state.split(","):
        _, *about = map(unquote, member.strip().split(";"))
        if member.strip().startswith(STATE) and len(about) >= 3:
            return Carried(about[0], about[1], about[2] or seen.trace_id)
    return _NOTHING


def span_of(seen: Seen, resource: dict[str, AttributeValue], options: Options, audit: Audit) -> Span:
    """Return the span of ours."""
    values, kind = seen.attributes, seen.kind
    error_type, error_message = _error(seen) if seen.failed else ("", "")
    consumed = consumed_record(values) if consumes(kind, values) else None
    carried = _carried(seen) if STATE in seen.trace_state else _NOTHING
    tenant = resource.get(options.tenant_attribute) or values.get(options.tenant_attribute) or carried.tenant
    chain, execution, user, tried = first_text(resource, *CHAIN) or carried.chain, carried.execution, "", 1
    if not _RARE.isdisjoint(values):
        chain, execution = first_text(values, *CHAIN) or chain, first_text(values, *EXECUTION) or execution
        user, tried = first_text(values, *_USER), attempt(values)
    if kind:
        values["span.kind"] = kind
    return Span(
        seen.trace_id, seen.span_id, first_text(resource, "service.name"), seen.name, seen.start_ns, seen.end_ns, _parents(seen), kind,
        seen.failed, error_type, error_message, str(tenant), user, tried, consumed, bounded(values, audit),
        clean_name(chain) if chain else "", clean_id(execution) if execution else "", STATE in seen.trace_state,
    )  # fmt: skip


def _parents(seen: Seen) -> tuple[ParentRef, ...]:
    """Return the parent, then the links, each once."""
    own = ParentRef(seen.parent_id) if seen.parent_id else None
    if not seen.links:
        return (own,) if own else ()
    parents = [own] if own else []
    for trace, span in seen.links:
        if trace and span:
            parents.append(ParentRef(span, "" if trace == seen.trace_id else trace))
    return tuple(dict.fromkeys(parents))


def _error(seen: Seen) -> tuple[str, str]:
    """Return (type, message): the status decides that it failed, the exception says what it was."""
    values = seen.attributes
    kind = first_text(seen.exception, "exception.type") or first_text(values, "error.type") or _http_error(values)
    return kind, seen.message or first_text(seen.exception, "exception.message")


def _http_error(values: dict[str, AttributeValue]) -> str:
    code = first_text(values, "http.response.status_code", "http.status_code")
    return f"http {code}" if code else ""
