"""OTLP requests of any encoding, to records of the spans topic: one per trace, keyed by it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from connectors.spans import otlp_json, otlp_proto
from connectors.spans.model import Audit, Options, Span
from connectors.spans.traces import is_usable

encode_spans: Callable[[list[Span]], bytes] = msgspec.json.Encoder().encode
decode_spans: Callable[[bytes], list[Span]] = msgspec.json.Decoder(list[Span]).decode
MAX_TOLD = 5
"""Reasons that an answer names."""
MOST_SPANS = 5_000
"""Of one record: a trace with more comes in several."""


@dataclass(frozen=True)
class Received:
    """What a request holds."""

    records: list[tuple[str, bytes]]
    """(trace id, spans) each."""
    spans: int
    rejected: int
    """Spans that are not as OTLP has them."""
    reason: str
    """Why they are rejected; empty where none is."""


def from_proto(request: ExportTraceServiceRequest, options: Options) -> Received:
    """Return what a request in protobuf holds."""
    audit = Audit()
    return _received(otlp_proto.spans_of(request, options, audit), audit)


def from_json(body: bytes, options: Options) -> Received:
    """Return what a request in JSON holds; raises ValueError when it is none."""
    document: Any = orjson.loads(body)
    if not isinstance(document, dict) or not isinstance(document.get("resourceSpans", []), list):
        raise ValueError("not an ExportTraceServiceRequest: no object with resourceSpans")
    audit = Audit()
    return _received(otlp_json.spans_of({"resourceSpans": [], **document}, options, audit), audit)


def from_bytes(body: bytes, options: Options) -> Received:
    """Return what a record of the Collector holds, told apart by its first byte: `{` begins JSON, and no protobuf of ours."""
    if body.startswith(b"{"):
        return from_json(body, options)
    return from_proto(otlp_proto.parse(body), options)


def _received(spans: Iterable[Span], audit: Audit) -> Received:
    traces: dict[str, list[Span]] = {}
    count = 0
    for span in spans:
        if is_usable(span, audit):
            traces.setdefault(span.trace_id, []).append(span)
            count += 1
    reasons = list(audit.skipped)[:MAX_TOLD]
    return Received(list(_records(traces)), count, sum(audit.skipped.values()), "; ".join(reasons))


def _records(traces: dict[str, list[Span]]) -> Iterator[tuple[str, bytes]]:
    for trace, spans in traces.items():
        for start in range(0, len(spans), MOST_SPANS):
            yield trace, encode_spans(spans[start : start + MOST_SPANS])
