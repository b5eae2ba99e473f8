"""A directory in the layout of the Numenta Anomaly Benchmark, through the detector of plain series.

    data/<category>/<file>.csv        timestamp,value
    labels/combined_windows.json      {"<category>/<file>.csv": [[first, last], …]}
"""

import csv
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from infra.evaluation.errors import EvaluationError
from streams.detectors.base import TIME
from streams.detectors.series import SeriesNovelty
from streams.scoring.nab import PROFILES, Curve, Labels, Profile, curve, normalised

FROZEN_THRESHOLD = 0.44
"""Chosen once, on 31 files of the benchmark (57 windows), all of them and for all profiles."""
_LABELS = Path("labels", "combined_windows.json")


class Series(NamedTuple):
    """One file: time in µs since 1970 as if it were UTC (the files name no zone), value, truth."""

    name: str
    times_us: list[int]
    values: list[float]
    labels: Labels

    @property
    def category(self) -> str:
        """The folder that the file is in."""
        return self.name.rpartition("/")[0]


def read_set(folder: Path) -> list[Series]:
    """Return all labelled series of a directory; raises EvaluationError where it is not such a directory."""
    try:
        windows = orjson.loads((folder / _LABELS).read_bytes())
    except FileNotFoundError as error:
        raise EvaluationError(f"{folder}: no {_LABELS} in it, so it is no NAB directory.") from error
    except orjson.JSONDecodeError as error:
        raise EvaluationError(f"{folder / _LABELS}: not JSON ({error}).") from error
    if not windows or not any(windows.values()):
        raise EvaluationError(f"{folder / _LABELS}: no window in it, so nothing can be scored.")
    return [_read(folder / "data" / name, name, found) for name, found in sorted(windows.items())]


def _read(path: Path, name: str, windows: list[tuple[str, str]]) -> Series:
    times_us: list[int] = []
    values: list[float] = []
    first: dict[str, int] = {}
    try:
        with path.open(newline="") as lines:
            for number, row in enumerate(csv.DictReader(lines)):
                stamp = row["timestamp"].partition(".")[0]
                first.setdefault(stamp, number)
                times_us.append(int(datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp()) * 1_000_000)
                values.append(float(row["value"]))
        bounds = tuple((first[left.partition(".")[0]], first[right.partition(".")[0]]) for left, right in windows)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"{path}: cannot be read as timestamp,value with its windows ({error!r}).") from error
    return Series(name, times_us, values, Labels(len(values), bounds))


def detect(series: Series) -> list[float]:
    """Return one score per row, each from the rows before it; the detector is fresh."""
    detector = SeriesNovelty()
    scores = []
    for at_us, value in zip(series.times_us, series.values, strict=True):
        x = {TIME: at_us, "value": value}
        scores.append(detector.score_one(x))
        detector.learn_one(x)
    return scores


def evaluate(folder: Path, advance: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Run the detector over a directory and score it; `advance` is told (what, done, total) rows."""
    files = read_set(folder)
    total, done, scores, took_s = sum(s.labels.rows for s in files), 0, [], 0.0
    for series in files:
        began = time.perf_counter()
        scores.append(detect(series))
        took_s += time.perf_counter() - began
        done += series.labels.rows
        advance(series.name, done, total)
    windows = sum(len(series.labels.windows) for series in files)
    return {
        "set": "nab",
        "files": len(files),
        "rows": total,
        "windows": windows,
        "rows_per_s": round(total / took_s),
        "frozen_threshold": FROZEN_THRESHOLD,
        "profiles": {name: _profile(files, scores, profile) for name, profile in PROFILES.items()},
    }


def _profile(files: list[Series], scores: list[list[float]], profile: Profile) -> dict[str, Any]:
    windows = sum(len(series.labels.windows) for series in files)
    whole = curve([series.labels for series in files], scores, profile)
    threshold, raw = whole.best()
    held_out = _held_out(files, scores, profile)
    return {
        "optimised": normalised(raw, windows, profile),
        "threshold": threshold,
        "frozen": normalised(whole.at(FROZEN_THRESHOLD), windows, profile),
        "nested": normalised(sum(held_out.values()), windows, profile) if len(held_out) > 1 else None,
    }


def _held_out(files: list[Series], scores: list[list[float]], profile: Profile) -> dict[str, float]:
    """Return raw scores by category, each at the threshold that was best on the other categories."""

    def part(wanted: Callable[[Series], bool]) -> Curve:
        chosen = [(series.labels, found) for series, found in zip(files, scores, strict=True) if wanted(series)]
        return _curve(chosen, profile)

    def left_out(category: str) -> float:
        others = part(lambda series: series.category != category)
        return part(lambda series: series.category == category).at(others.best()[0])

    return {category: left_out(category) for category in sorted({series.category for series in files})}


def _curve(chosen: Sequence[tuple[Labels, list[float]]], profile: Profile) -> Curve:
    return curve([labels for labels, _ in chosen], [found for _, found in chosen], profile)
