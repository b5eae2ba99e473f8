"""The real TrainTicket data, where present: every row is read or counted, as an independent count says."""

import csv
import os
import tarfile
from pathlib import Path

import orjson
import pytest

from connectors.spans import Options, load
from schemas.events import CHAIN_EVENT

PROJECT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FLOWCHAIN_TEST_DATA") or PROJECT.parent / "shared" / "data")
ARCHIVE = DATA / "nezha-trainticket.tar.xz"


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not ARCHIVE.exists():
        pytest.skip(f"data set absent: {ARCHIVE} (real TrainTicket traces); set FLOWCHAIN_TEST_DATA")
    folder = tmp_path_factory.mktemp("nezha")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


def rows(day: Path, kind: str) -> list[dict[str, str]]:
    found = []
    for file in sorted([*day.glob(f"{kind}/*.csv"), *day.glob(f"normal/{kind}/*.csv")]):
        with file.open(newline="") as lines:
            found += list(csv.DictReader(lines))
    return found


def test_every_day_is_read_wholly(data_set: Path) -> None:
    days = sorted(path for path in data_set.iterdir() if path.is_dir())
    assert days
    for day in days:
        there = {kind: rows(day, kind) for kind in ("trace", "log", "metric")}
        spans = {(row["TraceID"], row["SpanID"]) for row in there["trace"]}
        logs = {(row["Timestamp"], row["PodName"], row["SpanID"], row["Log"]) for row in there["log"]}
        samples = {(row["PodName"], row["TimeStamp"]) for row in there["metric"] if "PodName" in row}
        summary = load(data_set, Options(days=frozenset([day.name]))).summary
        assert (summary.steps, summary.logs, summary.samples) == (len(spans), len(logs), len(samples)), (
            day.name
        )
        assert summary.executions == len({trace for trace, _ in spans})
        assert summary.rows == sum(map(len, there.values()))
        assert summary.rows == summary.steps + summary.logs + summary.samples + sum(summary.skipped.values())
        unexpected = [
            reason for reason in summary.skipped if "repeated" not in reason and "no PodName" not in reason
        ]
        assert not unexpected


def test_every_event_of_a_normal_part_is_valid_and_joined(data_set: Path) -> None:
    last_us = 0
    for event in load(data_set, Options(normal="only")).events():
        CHAIN_EVENT.validate_json(event.value)
        body = orjson.loads(event.value)
        assert event.time_unix_us >= last_us
        last_us = event.time_unix_us
        if body["type"] == "log.observed":
            assert "#" in body["template"] and body["step"] and body["chain"]
        elif body["type"].startswith("step."):
            assert all("component" in parent for parent in body.get("parents", ()))
