"""`flowchain evaluate nezha` on a day of our own making: a gateway that calls a shop that calls a store."""

import csv
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.evaluation import nezha
from infra.evaluation.errors import EvaluationError

NINE_S = 1_709_629_200
"""2024-03-05 09:00 UTC."""
PODS = {name: f"bk-{name}-service-5f55b6cf68-{name[:5]:x<5}" for name in ("gateway", "shop", "store")}
SPANS = ("TraceID", "SpanID", "ParentID", "PodName", "OperationName", "StartTimeUnixNano", "EndTimeUnixNano", "Duration")
LOGS = ("Timestamp", "TimeUnixNano", "Node", "PodName", "Container", "TraceID", "SpanID", "Log")
METRICS = (
    "Time", "TimeStamp", "PodName", "CpuUsageRate(%)", "MemoryUsageRate(%)", "MemoryUsage(Mi)", "NetworkReceiveBytes",
    "NetworkTransmitBytes",
)  # fmt: skip


class Minute:
    """The rows of one file of traces and one of logs."""

    def __init__(self, second: int, seed: int, delay_ms: float = 0.0, error: bool = False) -> None:
        self.spans: list[tuple[Any, ...]] = []
        self.logs: list[tuple[Any, ...]] = []
        random = Random(seed)
        for number in range(40):
            self.trace(f"{seed:04x}{number:028x}", (NINE_S + second) * 1000 + number * 1400.0, random, delay_ms, error)

    def trace(self, trace: str, at_ms: float, random: Random, delay_ms: float, error: bool) -> None:
        store, shop = random.uniform(4, 6), random.uniform(3, 4)
        gap = random.uniform(1, 2) + delay_ms
        rows = [
            ("store", "/items", "c", 4.0 + gap / 2, store),
            ("shop", "HTTP GET", "b", 4.0, store + gap),
            ("shop", "/cart", "a", 2.0, shop + store + gap),
            ("gateway", "/*", "root", 0.0, shop + store + gap + 4),
        ]
        first = trace[:8] + trace[-4:]
        for span, (name, operation, parent, start, length) in zip("dcba", rows, strict=True):
            begin = round((at_ms + start) * 1e6)
            above = parent if parent == "root" else first + parent
            times = (begin, begin + round(length * 1e6), round(length * 1000))
            self.spans.append((trace, first + span, above, PODS[name], operation, *times))
        line = f"09:00:00.000 {'ERROR' if error else 'INFO'} b.s.Store#{7 if error else 5} TraceID: {trace} said"
        text = orjson.dumps({"log": line}).decode()
        at_ns = round((at_ms + 5 + gap / 2) * 1e6)
        self.logs.append(("2024-03-05T09:00:00Z", at_ns, "", PODS["store"], "", trace, first + "d", text))

    def write(self, folder: Path, name: str) -> None:
        write(folder / "trace" / name, SPANS, self.spans)
        write(folder / "log" / name, LOGS, self.logs)


def write(path: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_set(folder: Path) -> Path:
    """Write a day: an ERROR of the store at 09:10, a network delay in front of it at 09:20; from the 2nd minute on."""
    day = folder / "2024-03-05"
    Minute(1800, 1).write(day / "normal", "09_30.csv")
    faults = []
    for number, (kind, delay_ms) in enumerate((("return", 0.0), ("network_delay", 60.0)), 1):
        for minute in range(3):
            hurt = minute > 0
            part = Minute(600 * number + 60 * minute, 100 * number + minute, delay_ms * hurt, hurt and kind == "return")
            part.write(day, f"09_{10 * number + minute}.csv")
        label = {"inject_time": f"2024-03-05T09:{10 * number}:55Z", "pod": PODS["store"], "service": "bk-store-service"}
        faults.append({**label, "type": kind})
    for name, pod in PODS.items():
        rows = [("", NINE_S + 60 * at, pod, 5 + Random(name + str(at)).random(), 10, 100, 0, 0) for at in range(60)]
        write(day / "metric" / f"{pod}.csv", METRICS, rows)
        write(day / "normal" / "metric" / f"{pod}.csv", METRICS, rows[25:35])
    (day / "faults.json").write_bytes(orjson.dumps(faults))
    return folder


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("bakery"))


@pytest.fixture(scope="module")
def report(bakery: Path) -> dict[str, Any]:
    return nezha.evaluate(bakery, lambda *_: None)


def test_a_delay_is_found_from_traces_alone_and_an_error_line_needs_the_logs(report: dict[str, Any]) -> None:
    alone, everything = (report["inputs"][name]["ranks"] for name in ("traces", "all"))
    assert alone["network_delay"] == {"cases": 1, "as_1": 1, "as_3": 1, "as_5": 1}
    assert everything["all"] == {"cases": 2, "as_1": 2, "as_3": 2, "as_5": 2}


def test_every_fault_has_a_reason_and_a_rank_with_settings_chosen_on_other_services(report: dict[str, Any]) -> None:
    for row in report["inputs"]["all"]["faults"]:
        assert row["first"] == row["service"]
        assert "bk-store-service" in row["reason"]
    assert report["inputs"]["all"]["ranks_left_out"]["all"]["cases"] == 2


def test_the_watch_alerts_after_the_injection_only(report: dict[str, Any]) -> None:
    told = report["inputs"]["all"]["unaided"]
    assert told["alerts"]["detected"] == 2
    assert told["alerts"]["false"] == 0
    assert 0 < told["alerts"]["median_delay_s"] < 60
    assert told["fault_free_minutes"] > 2


def test_metric_rows_after_the_last_event_are_not_seen(bakery: Path) -> None:
    day = nezha._Day(bakery / "2024-03-05", nezha.INPUT_SETS["all"])
    timeline = day._timeline(nezha.read_faults(bakery / "2024-03-05")[0])
    last_us = max(event.time_unix_us for event in day._samples_of(timeline))
    assert timeline.summary.last_unix_us - 60_000_000 < last_us <= timeline.summary.last_unix_us


@pytest.mark.parametrize("broken", ["nothing", "faults", "normal", "minutes"])
def test_a_wrong_directory_is_one_sentence(tmp_path: Path, broken: str) -> None:
    if broken != "nothing":
        day = write_set(tmp_path) / "2024-03-05"
        if broken == "faults":
            (day / "faults.json").write_text("[{}]")
        elif broken == "normal":
            (day / "normal" / "trace").rename(day / "normal" / "other")
        else:
            for file in (day / "trace").glob("09_1*.csv"):
                file.unlink()
    with pytest.raises(EvaluationError, match=str(tmp_path)):
        nezha.evaluate(tmp_path, lambda *_: None)


def test_the_command_prints_tables_and_json(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nezha, "evaluate", lambda folder, advance: report)
    shown = CliRunner().invoke(app, ["evaluate", "nezha", "anywhere"])
    assert shown.exit_code == 0
    assert "network_delay" in shown.output
    printed = CliRunner().invoke(app, ["evaluate", "nezha", "anywhere", "--json"])
    assert orjson.loads(printed.stdout)["set"] == "nezha"
