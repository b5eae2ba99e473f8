"""Reads OTLP/JSON traces: one TracesData (= ExportTraceServiceRequest) object per file, or one per line.

Every line is one object where the Collector's file exporter wrote it. Field names are those of the OTLP/JSON
encoding (camelCase, ids in hex, 64-bit integers as text or number, enums as number or name).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from connectors.spans.attributes import plain
from connectors.spans.model import AttributeValue, Audit, Item, Kind, Options, Span, SpanImportError
from connectors.spans.semantics import Seen, span_of

SUFFIXES = (".json", ".jsonl", ".ndjson")
_KINDS: dict[Any, Kind] = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
_KINDS |= {f"SPAN_KIND_{kind.upper()}": kind for kind in list(_KINDS.values())}
_HEX = re.compile(r"[0-9a-fA-F]{16}|[0-9a-fA-F]{32}")
_ERROR_STATUS = (2, "STATUS_CODE_ERROR")


def files(path: Path) -> list[Path]:
    """Return the files of an import: the path itself, or the JSON files of a folder by name."""
    if path.is_file():
        return [path]
    return sorted(child for child in path.iterdir() if child.is_file() and child.suffix in SUFFIXES)


def read(path: Path, options: Options, audit: Audit) -> Iterator[Item]:
    """Yield the spans of a file or folder; a file without a single readable object is an error."""
    for file in files(path) if "traces" in options.inputs else ():
        audit.open(file.name)
        usable = False
        for document in _documents(file, audit):
            usable = True
            yield from spans_of(document, options, audit)
        if not usable:
            raise SpanImportError(f"{file}: not an OTLP/JSON trace file, no object with resourceSpans in it.")


def _documents(file: Path, audit: Audit) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file: one per line, or the whole file if its first line is no JSON by itself."""
    with file.open("rb") as lines:
        first = lines.readline()
        lines.seek(0)
        by_line = _parsed(first) is not None or file.suffix != ".json"
        texts: Iterator[bytes] = iter(lines) if by_line else iter((lines.read(),))
        for text in texts:
            audit.row += 1
            if not text.strip():
                continue
            audit.rows += 1
            document = _parsed(text)
            if isinstance(document, dict) and isinstance(document.get("resourceSpans"), list):
                yield document
            else:
                audit.skip("line: not JSON" if document is None else "line: no resourceSpans in it")


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def spans_of(document: dict[str, Any], options: Options, audit: Audit) -> Iterator[Span]:
    """Yield the spans of an object with resourceSpans; what is not as OTLP has it is counted."""
    for group in document["resourceSpans"]:
        try:
            resource = plain((group.get("resource") or {}).get("attributes"), audit)
            # instrumentationLibrarySpans: what scopeSpans was called before OTLP 0.15
            scopes = group.get("scopeSpans") or group.get("instrumentationLibrarySpans") or ()
            raw_spans = [raw for scope in scopes for raw in scope.get("spans") or ()]
        except (AttributeError, TypeError):
            audit.skip("resourceSpans: resource or scopeSpans is not as OTLP has it")
            continue
        for raw in raw_spans:
            span = _span_or_reason(raw, resource, options, audit)
            if isinstance(span, str):
                audit.skip(span)
            else:
                yield span


def _span_or_reason(
    raw: Any, resource: dict[str, AttributeValue], options: Options, audit: Audit
) -> Span | str:
    if not isinstance(raw, dict):
        return "span: not an object"
    try:
        start_ns, end_ns = int(raw["startTimeUnixNano"]), int(raw["endTimeUnixNano"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return "span: startTimeUnixNano or endTimeUnixNano is missing or not a whole number"
    try:
        return _span(raw, start_ns, end_ns, resource, options, audit)
    except (KeyError, TypeError, AttributeError):
        return "span: ids, name, links, events or status are not as OTLP has them"


def _span(
    raw: dict[str, Any],
    start_ns: int,
    end_ns: int,
    resource: dict[str, AttributeValue],
    options: Options,
    audit: Audit,
) -> Span:
    code, message, exception = _status(raw, audit)
    seen = Seen(
        _id(raw["traceId"]), _id(raw["spanId"]), _id(raw.get("parentSpanId") or ""), str(raw.get("name") or ""), start_ns, end_ns,
        _KINDS.get(raw.get("kind"), ""), plain(raw.get("attributes"), audit), _links(raw), code in _ERROR_STATUS, message, exception,
        str(raw.get("traceState") or ""),
    )  # fmt: skip
    return span_of(seen, resource, options, audit)


def _id(text: Any) -> str:
    """Return an id, hex in lower case; "" for zeros, which OTLP calls invalid. TypeError if it is no text."""
    if not isinstance(text, str):
        raise TypeError("an id is a text")
    if not text.strip("0"):
        return ""
    return text.lower() if _HEX.fullmatch(text) else text


def _links(raw: dict[str, Any]) -> list[tuple[str, str]]:
    return [(_id(link["traceId"]), _id(link["spanId"])) for link in raw.get("links") or ()]


def _status(raw: dict[str, Any], audit: Audit) -> tuple[Any, str, dict[str, AttributeValue]]:
    """Return (status code, its message, attributes of the last exception): the last one is what ended the span."""
    status = raw.get("status") or {}
    exception: dict[str, AttributeValue] = {}
    for event in raw.get("events") or ():
        if event.get("name") == "exception":
            exception = plain(event.get("attributes"), audit)
    return status.get("code"), str(status.get("message") or ""), exception
