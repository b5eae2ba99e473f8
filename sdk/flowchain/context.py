"""Which execution and step the running code belongs to, and how that travels between services.

Three ways carry it, the first that is there is taken: `flowchain-*` headers (all of it), W3C `baggage` (the execution and
for whom it runs) with `traceparent` (the caller's span), and our entry in `tracestate` (the last step that FlowChain saw, the
chain and the tenant). So a service in between that knows only W3C keeps the thread, and becomes the parent of what comes after
it; and where it exports spans of OpenTelemetry, these hold the entry, which says what execution they are part of.
"""

import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from flowchain import w3c
from flowchain.ids import trace_id

MAX_NAME = 128
CONTROLS = dict.fromkeys([*range(0x20), 0x7F], "\N{REPLACEMENT CHARACTER}")
"""What the contract refuses in names and ids, and what stands for it."""
MAX_ID = 64
_PREFIX = "flowchain-"
_STATE_KEY = "flowchain"
_STATED = ("chain", "tenant", "execution")
"""What our entry says behind the span."""
_FIELDS = ("chain", "execution", "tenant", "user", "tier", "version")
_SINGLE = frozenset((*(_PREFIX + field for field in (*_FIELDS, "span", "component")), "traceparent"))
_LISTS = frozenset(("tracestate", "baggage"))
READ = _SINGLE | _LISTS
"""The headers that may say something here, in lower case."""
_FIELD_HEADERS = tuple((field, _PREFIX + field) for field in _FIELDS)
_MAX_KEYS = 1024
_names: dict[str | bytes, str | None] = {}
"""What header each key that came so far stands for, for so many of them."""

Headers = Mapping[str, str | bytes] | Mapping[bytes, bytes] | Iterable[tuple[str | bytes, str | bytes | None]]


class Foreign(NamedTuple):
    """What others sent along with the flow: passed on as it came."""

    tracestate: str = ""
    baggage: str = ""


_NOTHING = Foreign()


class Flow(NamedTuple):
    """One execution of a chain, and for whom it runs."""

    chain: str
    execution: str
    tenant: str
    user: str | None = None
    tier: str | None = None
    version: str | None = None
    foreign: Foreign = _NOTHING

    def fields(self) -> dict[str, Any]:
        """Return what every event of the execution carries."""
        fields: dict[str, Any] = {"chain": self.chain, "execution": self.execution, "tenant": self.tenant}
        if self.user is not None:
            fields["user"] = self.user
        if self.tier is not None:
            fields["tier"] = self.tier
        if self.version is not None:
            fields["chain_version"] = self.version
        return fields


class Context(NamedTuple):
    """A place in an execution: the step's span, or no span at the execution itself."""

    flow: Flow
    fields: dict[str, Any]
    span: str | None = None
    component: str | None = None
    step: str | None = None

    def parent(self, execution: str) -> dict[str, str] | None:
        """Return this step as the parent of a step of `execution`; None where there is no step."""
        if self.span is None:
            return None
        parent = {"span": self.span}
        if self.component is not None:
            parent["component"] = self.component
        if self.flow.execution != execution:
            parent["execution"] = self.flow.execution
        return parent


current: ContextVar[Context | None] = ContextVar("flowchain", default=None)


def name(value: object, limit: int = MAX_NAME) -> str:
    """Return `value` as the contract wants a name: a string of 1 to `limit` characters, none of them a control character."""
    text = value if isinstance(value, str) else str(value)
    if not text.isprintable():
        text = text.translate(CONTROLS)
    return text[:limit] or "unknown"


def optional_name(value: object | None) -> str | None:
    """Return `value` as a name, or None where it is None or empty."""
    return None if value is None or value == "" else name(value)


def to_headers(context: Context) -> dict[str, str]:
    """Return the headers that carry `context`; names are lower case, values visible ASCII.

    Where the host has a recording span of OpenTelemetry open, `traceparent` is that span's: its own trace stays whole, and our
    step travels in `flowchain-span` and `tracestate`.
    """
    flow = context.flow
    values = {field: value for field, value in zip(_FIELDS, flow[:6], strict=True) if value is not None}
    headers = {_PREFIX + field: _quoted(value) for field, value in values.items()}
    headers["baggage"] = w3c.join_baggage(values, _PREFIX, flow.foreign.baggage)
    if context.component is not None:
        headers[_PREFIX + "component"] = _quoted(context.component)
    if context.span is not None:
        headers[_PREFIX + "span"] = _quoted(context.span)
        headers |= _trace_headers(flow, context.span)
    return headers


def _trace_headers(flow: Flow, span: str) -> dict[str, str]:
    own = w3c.format_traceparent(trace_id(flow.execution), span)
    traceparent, foreign = opentelemetry_span() or (own, flow.foreign.tracestate)
    if traceparent is None:
        return {}
    state = w3c.join_state(f"{_STATE_KEY}={_state(flow, span, traceparent)}", foreign) if own else foreign
    return {"traceparent": traceparent, "tracestate": state} if state else {"traceparent": traceparent}


def _state(flow: Flow, span: str, traceparent: str) -> str:
    """Return the value of our entry: span, chain, tenant, and the execution where it is not the trace itself."""
    execution = "" if traceparent[3:35] == flow.execution else flow.execution
    value = ";".join([span, *(quote(part, safe="") for part in (flow.chain, flow.tenant, execution))])
    return value if len(value) <= w3c.MAX_STATE_VALUE_CHARS else span


def opentelemetry_span() -> tuple[str, str] | None:
    """Return traceparent and tracestate of the recording span that the host has open, if it uses OpenTelemetry at all."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    span = api.get_current_span()
    about = span.get_span_context()
    if not (about.is_valid and span.is_recording()):
        return None
    text = f"00-{about.trace_id:032x}-{about.span_id:016x}-{about.trace_flags:02x}"
    return text, w3c.split_state(about.trace_state.to_header(), _STATE_KEY)[1]


def from_headers(headers: Headers) -> Context | None:
    """Return the context that `headers` carry (HTTP or Kafka; any case; str or bytes), or None where there is none."""
    values = _known(headers)
    if not values:
        return None
    baggage = values.get("baggage", "")
    trace = w3c.parse_traceparent(values.get("traceparent", ""))
    entry, state = w3c.split_state(values.get("tracestate", ""), _STATE_KEY) if trace else (None, "")
    last, *stated = (entry or "").split(";")
    carried = _flow_fields(values) or w3c.own_baggage(baggage, _PREFIX)
    if trace and stated and "chain" not in carried:
        carried = {field: unquote(part) for field, part in zip(_STATED, stated, strict=False) if part}
        carried.setdefault("execution", trace.trace)
    chain, execution = carried.get("chain"), carried.get("execution")
    if not chain or not execution:
        return None
    foreign = w3c.foreign_baggage(baggage, _PREFIX)
    flow = Flow(
        name(chain),
        name(execution, MAX_ID),
        name(carried.get("tenant") or "default"),
        optional_name(carried.get("user")),
        optional_name(carried.get("tier")),
        version_name(carried.get("version")),
        Foreign(state, foreign) if state or foreign else _NOTHING,
    )
    span = values.get(_PREFIX + "span")
    if span:
        return Context(flow, flow.fields(), name(span, MAX_ID), optional_name(values.get(_PREFIX + "component")))
    if trace is not None and trace.trace == trace_id(flow.execution):
        return Context(flow, flow.fields(), trace.span)
    return Context(flow, flow.fields(), optional_id(last))


def _flow_fields(values: Mapping[str, str]) -> dict[str, str] | None:
    """Return what the flow headers say, None where they do not name an execution."""
    if _PREFIX + "chain" not in values or _PREFIX + "execution" not in values:
        return None
    return {field: values[key] for field, key in _FIELD_HEADERS if key in values}


def _known(headers: Headers) -> dict[str, str]:
    """Return what is ours to read: of a header that came twice the last one, of a list all of them."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    values: dict[str, str] = {}
    for key, value in pairs:
        known = _names[key] if key in _names else _name_of(key)
        if known is None or not value:
            continue
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if known in _LISTS:
            values[known] = f"{values[known]},{text}" if known in values else text
        else:
            values[known] = unquote(text) if "%" in text else text
    return values


def _name_of(key: str | bytes) -> str | None:
    """Return the header that a key in any case stands for, None where it is none of ours to read."""
    known = (key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)).lower()
    found = known if known in READ else None
    if len(_names) < _MAX_KEYS:
        _names[key] = found
    return found


def version_name(value: object | None) -> str | None:
    """Return a chain's version as the contract wants it: at most 64 characters."""
    return optional_id(value)


def optional_id(value: object | None) -> str | None:
    """Return `value` as an id, or None where it is None or empty."""
    return None if value is None or value == "" else name(value, MAX_ID)


def _quoted(value: str) -> str:
    plain = value.isascii() and value.isprintable() and "%" not in value
    return value if plain else quote(value, safe=" ", errors="replace")
