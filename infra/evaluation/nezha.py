"""A directory in the TrainTicket layout of the Nezha set, through ingest, analysis and the reader of executions.

    <day>/faults.json      [{inject_time, service, type}]: read by the scoring only, but for which three files a case is
    <day>/{trace,log}/HH_MM.csv, <day>/metric/<pod>.csv, <day>/normal/{trace,log,metric}/*.csv

Per day the product learns from `normal`, dated a day earlier so that no case lies before it. Per case that state is
restored, and the case's three minutes follow in order of event time, with the metric rows of the half hour before them.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from heapq import merge
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import orjson

from connectors.spans import Event, Options, Timeline, load
from infra.evaluation.errors import EvaluationError
from infra.evaluation.pipeline import Pipeline, Saved
from streams.rootcause.base import Finding
from streams.rootcause.executions import ExecutionReader, ExecutionSettings
from streams.scoring.ranks import hits, left_out, mid_rank

INPUT_SETS = {"traces": ("traces",), "traces and metrics": ("traces", "metrics"), "all": ("traces", "metrics", "logs")}
KS = (1, 3, 5)
MINUTES = 3
DAY_US = 86_400_000_000
METRICS_BEFORE_US = 1_800_000_000
"""Metric rows so long before a case are read with it."""
CHECK_US = 10_000_000
"""The watch looks at the ranking so often in event time."""
ALERT_NATS = 4.0
"""The watch alerts when the leading component has more than this against it, and again when another one leads."""

GRID = [
    ExecutionSettings(pool=pool, prior_start=start, rho_drift=drift)
    for pool in (10.0, 5.0, 20.0)
    for start in (0.3, 0.5)
    for drift in (0.1, 0.2)
]
"""Settings among which leave-one-service-out chooses; those of the product first."""


class Fault(NamedTuple):
    """One case; `service` and `type` are read by the scoring only."""

    inject_us: int
    service: str
    type: str

    @property
    def minutes(self) -> list[str]:
        """Names of the files of the case."""
        inject = datetime.fromtimestamp(self.inject_us / 1e6, UTC)
        return [(inject + timedelta(minutes=number)).strftime("%H_%M") for number in range(MINUTES)]


def read_faults(day: Path) -> list[Fault]:
    """Return the faults of a day in the order of the file."""
    path = day / "faults.json"
    try:
        rows = orjson.loads(path.read_bytes())
        return [Fault(_time_us(row["inject_time"]), row["service"], row["type"]) for row in rows]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"{path}: no list of inject_time, service and type ({error!r}).") from error


def _time_us(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) * 1_000_000


def days_of(folder: Path) -> list[Path]:
    """Return the days with faults; raises EvaluationError where there is none."""
    days = sorted(path.parent for path in folder.glob("*/faults.json"))
    if not days:
        raise EvaluationError(f"{folder}: no <day>/faults.json in it, so it is no directory of the Nezha set.")
    for day in days:
        if not (day / "normal" / "trace").is_dir():
            raise EvaluationError(f"{day}: no normal/trace in it to learn from.")
    return days


def evaluate(folder: Path, advance: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Rank every case with every input set, on all processors; `advance` is told (what, done, total)."""
    days = {day: read_faults(day) for day in days_of(folder)}
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in INPUT_SETS}
    tasks = [(name, day) for name in INPUT_SETS for day in days]
    workers = min(os.cpu_count() or 1, len(tasks))
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        found = pool.map(_day, *zip(*((INPUT_SETS[name], day, days[day]) for name, day in tasks), strict=True))
        for done, ((name, day), part) in enumerate(zip(tasks, found, strict=True), 1):
            parts[name].append(part)
            advance(f"{name}: {day.name}", done, len(tasks))
    return {"set": "nezha", "cases": sum(map(len, days.values())), "inputs": {name: _report(found) for name, found in parts.items()}}


def _day(inputs: tuple[str, ...], folder: Path, faults: list[Fault]) -> dict[str, Any]:
    day = _Day(folder, inputs)
    return {"normal": day.watched, "rows": [{"day": folder.name, **day.case(fault)} for fault in faults]}


def _report(parts: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for part in parts for row in part["rows"]]
    grid = [row.pop("grid") for row in rows]
    without = left_out([row["service"] for row in rows], list(zip(*grid, strict=True)))
    for row, rank in zip(rows, without, strict=True):
        row["rank_left_out"] = rank
    return {
        "ranks": _ranks(rows, "rank"),
        "ranks_left_out": _ranks(rows, "rank_left_out"),
        "unaided": _unaided(rows, [part["normal"] for part in parts]),
        "faults": rows,
    }


class _Watch:
    """Looks at the ranking every 10 s of event time, and alerts when somebody new leads it clearly."""

    def __init__(self, pipeline: Pipeline, from_us: int) -> None:
        self.alerts: list[tuple[int, str]] = []
        self.first_us = self.last_us = 0
        self._pipeline = pipeline
        self._reader = ExecutionReader()
        self._next_us = from_us
        self._leading = ""

    def look(self, at_us: int) -> None:
        """Take note of an event time."""
        if at_us < self._next_us:
            return
        self.first_us, self.last_us = self.first_us or at_us, at_us
        self._next_us = at_us - at_us % CHECK_US + CHECK_US
        found = self._reader.weigh(self._pipeline.scene)
        leading = found[0].component if found and found[0].score > ALERT_NATS else ""
        if leading not in ("", self._leading):
            self.alerts.append((at_us, leading))
        self._leading = leading


class _Day:
    """What is learned from the fault-free part of a day."""

    def __init__(self, folder: Path, inputs: tuple[str, ...]) -> None:
        self._folder, self._inputs = folder, frozenset(inputs)
        timeline = load(folder, Options(normal="only", inputs=self._inputs))  # type: ignore[arg-type]
        timeline.shift(-DAY_US)
        pipeline = Pipeline()
        watch = _Watch(pipeline, timeline.summary.first_unix_us)
        pipeline.run(timeline.events(), watch.look)
        self._learned: Saved = pipeline.save()
        minutes = (watch.last_us - watch.first_us) / 6e7
        self.watched = {"minutes": minutes, "alerts": len(watch.alerts), "incidents": len(pipeline.alerts)}
        self._samples: list[Event] = []
        if "metrics" in self._inputs:
            self._samples = list(load(folder, Options(normal="exclude", inputs=frozenset(("metrics",)))).events())

    def case(self, fault: Fault) -> dict[str, Any]:
        """Return what was found in a case."""
        pipeline = Pipeline(saved=self._learned)
        timeline = self._timeline(fault)
        watch = _Watch(pipeline, timeline.summary.first_unix_us)
        pipeline.run(merge(timeline.events(), self._samples_of(timeline), key=lambda event: event.time_unix_us), watch.look)
        found = ExecutionReader().weigh(pipeline.scene)
        return {
            "inject_unix_us": fault.inject_us,
            "service": fault.service,
            "type": fault.type,
            "rank": _rank(found, fault),
            "grid": [_rank(ExecutionReader(settings).weigh(pipeline.scene), fault) for settings in GRID],
            "first": found[0].component if found else None,
            "reason": found[0].reason if found else None,
            "alerts": [(at_us - fault.inject_us) / 1e6 for at_us, _ in watch.alerts],
            "alerted": [name for _, name in watch.alerts],
            "incidents": [(at_us - fault.inject_us) / 1e6 for at_us in pipeline.alerts],
            "minutes_before": max(0.0, (fault.inject_us - watch.first_us) / 6e7),
        }

    def _timeline(self, fault: Fault) -> Timeline:
        there = frozenset(name for name in fault.minutes if (self._folder / "trace" / f"{name}.csv").exists())
        if not there:
            raise EvaluationError(f"{self._folder / 'trace'}: no {fault.minutes[0]}.csv for the fault injected then.")
        inputs = self._inputs - {"metrics"}
        return load(self._folder, Options(normal="exclude", minutes=there, inputs=inputs))  # type: ignore[arg-type]

    def _samples_of(self, timeline: Timeline) -> Iterator[Event]:
        """Yield the metric rows of a case and of the time before it, none later than its last event."""
        first_us, last_us = timeline.summary.first_unix_us - METRICS_BEFORE_US, timeline.summary.last_unix_us
        return (event for event in self._samples if first_us <= event.time_unix_us <= last_us)


def _rank(found: list[Finding], fault: Fault) -> float | None:
    return mid_rank({finding.component: finding.score for finding in found}, fault.service)


def _ranks(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    groups: dict[str, list[float | None]] = {"all": []}
    for row in rows:
        groups["all"].append(row[key])
        groups.setdefault(row["type"], []).append(row[key])
    return {name: {"cases": len(ranks), **{f"as_{k}": hits(ranks, k) for k in KS}} for name, ranks in groups.items()}


def _unaided(rows: list[dict[str, Any]], normal: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the watch, and the incidents of the impact stage, told without being asked."""
    found: dict[str, Any] = {}
    minutes = sum(row["minutes_before"] for row in rows) + sum(day["minutes"] for day in normal)
    for kind in ("alerts", "incidents"):
        delays = [min(after) for row in rows if (after := [at for at in row[kind] if at >= 0])]
        early = sum(at < 0 for row in rows for at in row[kind]) + sum(day[kind] for day in normal)
        found[kind] = {
            "detected": len(delays),
            "median_delay_s": median(delays) if delays else None,
            "false": early,
            "false_per_minute": early / minutes if minutes else None,
        }
    return found | {"fault_free_minutes": minutes}
