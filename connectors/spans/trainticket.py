"""Reads the CSV layout of the TrainTicket data set: a set (a folder of days) or a single day.

    <day>/{trace,log}/HH_MM.csv   <day>/metric/<pod>.csv   <day>/normal/{trace,log,metric}/*.csv

No day, minute, pod or service is known beforehand; columns are found by the header.
"""

import csv
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

from connectors.spans.log_lines import parse_line
from connectors.spans.model import (
    Audit,
    Input,
    Item,
    LogLine,
    Options,
    ParentRef,
    Sample,
    Span,
    SpanImportError,
    numbered,
)
from connectors.spans.names import service_of_pod

_FOLDERS: tuple[tuple[str, Input], ...] = (("trace", "traces"), ("log", "logs"), ("metric", "metrics"))
_SPAN_COLUMNS = (
    "TraceID",
    "SpanID",
    "ParentID",
    "PodName",
    "OperationName",
    "StartTimeUnixNano",
    "EndTimeUnixNano",
)
_LOG_COLUMNS = ("Timestamp", "TimeUnixNano", "PodName", "TraceID", "SpanID", "Log")
_METRIC_COLUMNS = (
    "TimeStamp",
    "PodName",
    "CpuUsageRate(%)",
    "MemoryUsageRate(%)",
    "MemoryUsage(Mi)",
    "NetworkReceiveBytes",
    "NetworkTransmitBytes",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MEBIBYTE = 1 << 20
_MAX_PERCENT, _MAX_AMOUNT = 1e8, 1e12
_MAX_FIELD_BYTES = 1 << 24
Columns = Callable[[list[str]], tuple[Any, ...]]


def is_day(path: Path) -> bool:
    """Return whether a folder is a day: it holds traces, or the fault-free part does."""
    return (path / "trace").is_dir() or (path / "normal" / "trace").is_dir()


def day_folders(path: Path) -> list[Path]:
    """Return the days at a path by name: the path itself, its folders, or the folders of a set in it."""
    if is_day(path):
        return [path]
    below = sorted(child for child in path.iterdir() if child.is_dir())
    days = [child for child in below if is_day(child)]
    return days or [day for child in below for day in sorted(child.iterdir()) if is_day(day)]


def read(path: Path, options: Options, audit: Audit) -> Iterator[Item]:
    """Yield every row of the chosen days as it stands (repeated ones too); what cannot be used is counted."""
    days = day_folders(path)
    if options.days is not None:
        missing = options.days - {day.name for day in days}
        if missing:
            raise SpanImportError(f"{path}: no day {', '.join(sorted(missing))} in it.")
        days = [day for day in days if day.name in options.days]
    _check_minutes(path, days, options)
    for day in days:
        for part in _parts(day, options):
            yield from _read_part(part, day.name, options, audit)


def _check_minutes(path: Path, days: list[Path], options: Options) -> None:
    if options.minutes is None or options.normal == "only":
        return
    known = {
        file.stem for day in days for folder in ("trace", "log") for file in (day / folder).glob("*.csv")
    }
    if missing := options.minutes - known:
        raise SpanImportError(f"{path}: no file {', '.join(sorted(missing))}.csv in the chosen days.")


def _parts(day: Path, options: Options) -> list[Path]:
    parts = {"include": [day / "normal", day], "exclude": [day], "only": [day / "normal"]}[options.normal]
    return [part for part in parts if part.is_dir()]


def _read_part(part: Path, day: str, options: Options, audit: Audit) -> Iterator[Item]:
    normal = part.name == "normal"
    for folder, wanted in _FOLDERS:
        if wanted not in options.inputs:
            continue
        for file in sorted((part / folder).glob("*.csv")):
            if (
                wanted != "metrics"
                and not normal
                and options.minutes is not None
                and file.stem not in options.minutes
            ):
                continue
            audit.open(f"{day}/{'normal/' if normal else ''}{folder}/{file.name}")
            yield from _READERS[wanted](file, audit)


def _rows(file: Path, audit: Audit) -> Iterator[list[str]]:
    """Yield the rows of a file, the header first; a row that the csv module refuses is counted."""
    csv.field_size_limit(_MAX_FIELD_BYTES)
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        reader = csv.reader(lines)
        while True:
            try:
                yield from numbered(reader, audit)
                return
            except csv.Error:
                audit.row += 1
                audit.rows += 1
                audit.skip("row: not CSV")


def _columns(header: list[str], names: tuple[str, ...], audit: Audit) -> Columns:
    positions = {name.removeprefix("\ufeff"): at for at, name in enumerate(header)}
    for name in names:
        if name not in positions:
            raise SpanImportError(f"{audit.where()}: column {name} is missing from the header.")
    return itemgetter(*(positions[name] for name in names))


def _read_spans(file: Path, audit: Audit) -> Iterator[Item]:
    rows = _rows(file, audit)
    pick = _columns(next(rows, []), _SPAN_COLUMNS, audit)
    shared: dict[str, str] = {}
    """One string object per trace id: a trace's rows repeat it fifty times and more."""
    for row in rows:
        audit.rows += 1
        try:
            trace, span, parent, pod, operation, start, end = pick(row)
            parents = () if parent == "root" or not parent else (ParentRef(parent),)
            yield Span(
                shared.setdefault(trace, trace),
                span,
                service_of_pod(pod),
                operation,
                int(start),
                int(end),
                parents,
            )
        except IndexError:
            audit.skip("span: columns are missing")
        except ValueError:
            audit.skip("span: StartTimeUnixNano or EndTimeUnixNano is not a whole number")


def _read_logs(file: Path, audit: Audit) -> Iterator[Item]:
    rows = _rows(file, audit)
    pick = _columns(next(rows, []), _LOG_COLUMNS, audit)
    for row in rows:
        audit.rows += 1
        try:
            stamp, nano, pod, trace, span, text = pick(row)
            time_us = _log_time_us(stamp, nano, audit)
        except IndexError:
            audit.skip("log: columns are missing")
            continue
        except ValueError:
            audit.skip("log: neither TimeUnixNano nor Timestamp is a time")
            continue
        level, template = parse_line(_log_text(text, audit))
        identity = blake2b(f"{stamp} {pod} {span} {text}".encode(), digest_size=12).digest()
        yield LogLine(time_us, service_of_pod(pod), level, template, trace, span, identity)


def _log_time_us(stamp: str, nano: str, audit: Audit) -> int:
    """Return the time of a log row: Timestamp (UTC) stands in for an overflowed (negative) TimeUnixNano."""
    try:
        nano_value = int(nano)
    except ValueError:
        nano_value = 0
    if nano_value > 0:
        return nano_value // 1000
    audit.repair("log: TimeUnixNano is not a time, Timestamp taken")
    moment = datetime.fromisoformat(stamp)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _log_text(text: str, audit: Audit) -> str:
    """Return the line inside the collector's JSON, or the text itself where that is broken."""
    try:
        line = orjson.loads(text)["log"]
        if isinstance(line, str):
            return line
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    audit.repair("log: Log is not JSON with a log text, kept as plain text")
    return text


def _read_metrics(file: Path, audit: Audit) -> Iterator[Item]:
    rows = _rows(file, audit)
    header = next(rows, [])
    # front_service.csv has success and latency of the whole shop: no resource of a component.
    pick = _columns(header, _METRIC_COLUMNS, audit) if "PodName" in header else None
    for row in rows:
        audit.rows += 1
        if pick is None:
            audit.leave_out("metric: no PodName, so no resource of a component")
            continue
        try:
            yield _sample(pick(row), audit)
        except IndexError:
            audit.skip("metric: columns are missing")
        except ValueError:
            audit.skip("metric: TimeStamp is not a whole number")


def _sample(cells: tuple[str, ...], audit: Audit) -> Sample:
    time_us = int(cells[0]) * 1_000_000
    cpu, memory = (_number(cell, _MAX_PERCENT, audit) for cell in cells[2:4])
    mebibytes, received, sent = (_number(cell, _MAX_AMOUNT, audit) for cell in cells[4:])
    return Sample(
        time_us,
        service_of_pod(cells[1]),
        cells[1],
        cpu_ratio=None if cpu is None else cpu / 100,
        memory_ratio=None if memory is None else memory / 100,
        memory_bytes=None if mebibytes is None else round(mebibytes * _MEBIBYTE),
        network_receive_bytes_per_s=received,
        network_transmit_bytes_per_s=sent,
    )


def _number(cell: str, limit: float, audit: Audit) -> float | None:
    """Return a measured value; None (counted) for an empty, negative or absurd one."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if 0 <= value <= limit:
        return value
    audit.repair("metric: a value that is no amount was left out")
    return None


_READERS: dict[Input, Callable[[Path, Audit], Iterator[Item]]] = {
    "traces": _read_spans,
    "logs": _read_logs,
    "metrics": _read_metrics,
}
