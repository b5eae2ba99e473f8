"""Reads OTLP/protobuf traces: the messages of an ExportTraceServiceRequest, which is what TracesData is too."""

import math
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as RawSpan

from connectors.spans.model import AttributeValue, Audit, Kind, Options, Span
from connectors.spans.semantics import Seen, span_of

_KINDS: tuple[Kind, ...] = ("", "internal", "server", "client", "producer", "consumer")
_ERROR_STATUS = 2
_NO_EXCEPTION: dict[str, AttributeValue] = {}


def parse(body: bytes) -> ExportTraceServiceRequest:
    """Return the request that bytes hold; raises ValueError."""
    try:
        request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError("not an ExportTraceServiceRequest in protobuf") from error
    return request


def spans_of(request: ExportTraceServiceRequest, options: Options, audit: Audit) -> Iterator[Span]:
    """Yield the spans of a request; what is not as OTLP has it is counted."""
    for group in request.resource_spans:
        resource = plain(group.resource.attributes, audit)
        for scope in group.scope_spans:
            for raw in scope.spans:
                yield span_of(_seen(raw, audit), resource, options, audit)


def _seen(raw: RawSpan, audit: Audit) -> Seen:
    status = raw.status
    return Seen(
        _id(raw.trace_id), _id(raw.span_id), _id(raw.parent_span_id), raw.name, raw.start_time_unix_nano, raw.end_time_unix_nano,
        _KINDS[raw.kind] if 0 <= raw.kind < len(_KINDS) else "", plain(raw.attributes, audit),
        [(_id(link.trace_id), _id(link.span_id)) for link in raw.links], status.code == _ERROR_STATUS, status.message,
        _exception(raw, audit) if raw.events else _NO_EXCEPTION, raw.trace_state,
    )  # fmt: skip


def _id(raw: bytes) -> str:
    """Return an id in hex; "" for zeros, which OTLP calls invalid."""
    return raw.hex() if raw.strip(b"\0") else ""


def _exception(raw: RawSpan, audit: Audit) -> dict[str, AttributeValue]:
    last = next((event for event in reversed(raw.events) if event.name == "exception"), None)
    return plain(last.attributes, audit) if last is not None else _NO_EXCEPTION


def plain(pairs: Iterable[Any], audit: Audit) -> dict[str, AttributeValue]:
    """Return key-values as a dict; lists and maps become JSON text, what has no value is left out."""
    values: dict[str, AttributeValue] = {}
    for pair in pairs:
        held = pair.value
        if text := held.string_value:  # by far the most; asking for the kind costs more
            values[pair.key] = text
            continue
        value = _value(held)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            audit.repair("span: an attribute without a usable value was left out")
        else:
            values[pair.key] = value if isinstance(value, (str, bool, int, float)) else orjson.dumps(value).decode()
    return values


def _value(held: Any) -> Any:
    """Return an AnyValue as JSON has it; bytes as OTLP/JSON has them, in base64."""
    kind = held.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(inner) for inner in held.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _value(pair.value) for pair in held.kvlist_value.values}
    if kind == "bytes_value":
        return b64encode(held.bytes_value).decode()
    return getattr(held, kind)
