"""`flowchain evaluate petshop` on a small shop of our own making, and the reporting gate."""

from pathlib import Path
from random import Random

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.evaluation import petshop
from infra.evaluation.errors import EvaluationError
from streams.rootcause.gate import Gate

CALLS = {"site": ["list", "pay"], "list": ["store"], "pay": ["store"], "store": []}
ISSUE_WINDOWS = 5


def metrics(folder: Path, rows: int, random: Random, metric: str = "", culprit: str = "") -> None:
    """Write windows: with an issue from the 2nd one on, which everybody above the culprit feels."""
    hurt = {name for name in CALLS if culprit in (name, *CALLS[name], *(n for c in CALLS[name] for n in CALLS[c]))}
    columns = [(name, *kind) for name in CALLS for kind in (("latency", "Average"), ("requests", "Sum"), ("availability", "Average"))]
    lines = [",".join([title, *cells]) for title, cells in zip(("microservice", "metric", "statistic"), zip(*columns, strict=True), strict=True)]
    lines.append("unix_timestamp" + "," * len(columns))
    for row in range(rows):
        level = (0.0, 0.0, 0.5, 0.4, 0.45)[row % ISSUE_WINDOWS] if culprit else 0.0
        cells = [str(1_700_000_000 + 300 * row)]
        for name in CALLS:
            more = level if name in hurt else 0.0
            latency = random.uniform(0.1, 0.11) + (more if metric == "latency" else 0.0)
            availability = 100.0 - (20 * more if metric == "availability" else 0.0)
            cells += [str(latency), "100", str(availability) if name != "list" or row else ""]
        lines.append(",".join(cells))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def write_set(folder: Path) -> Path:
    names = list(CALLS)
    part = folder / "quiet"
    metrics(part / "noissue", 120, Random(1))
    rows = [",".join(["", *names]), *(",".join([a, *("1.0" if b in CALLS[a] else "0.0" for b in names)]) for a in names)]
    (part / "graph.csv").write_text("\n".join(rows) + "\n")
    for number, (metric, culprit) in enumerate([("latency", "pay"), ("availability", "store"), ("latency", "store")]):
        issue = part / "issues" / f"issue_{number}"
        metrics(issue, ISSUE_WINDOWS, Random(number), metric, culprit)
        target = {"node": "site", "metric": metric, "agg": "Average", "timestamp": 0}
        label = {"target": target, "root_cause": {"node": culprit, "metric": None}, "metadata": {}}
        (issue / "target.json").write_bytes(orjson.dumps(label))
    return folder


def quietly(*_: object) -> None:
    return None


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shop"))


def test_the_cause_is_first_whatever_the_nodes_are_called(shop: Path) -> None:
    report = petshop.evaluate(shop, quietly)
    assert [row["rank_5"] for row in report["issues"]] == [1, 1, 1]
    assert report["after"]["5"]["quiet latency"] == {"cases": 2, "top_1": 2, "top_3": 2}
    assert report["unchanged_under_permuted_names"] == report["cases"] == 3


def test_issues_are_reported_and_normal_stretches_mostly_not(shop: Path) -> None:
    report = petshop.evaluate(shop, quietly)
    assert report["reported"] == 3
    assert report["normal"]["silent"] >= 0.9 * report["normal"]["stretches"] > 0


def test_a_cause_of_another_metric_is_a_miss(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    path = folder / "quiet" / "issues" / "issue_0" / "target.json"
    label = orjson.loads(path.read_bytes())
    label["root_cause"]["metric"] = "availability"
    path.write_bytes(orjson.dumps(label))
    assert petshop.evaluate(folder, quietly)["issues"][0]["rank_5"] is None


def test_a_component_without_a_normal_past_opens_no_gate() -> None:
    rising = np.array([0.0, 0.0, 9.0, 9.0, 9.0])
    assert not Gate({}).opens("site", {"site": 1.0}, {"site": rising})
    assert not Gate({"site": np.full(10, np.nan)}).opens("site", {"site": 1.0}, {"site": rising})
    assert Gate({"site": np.zeros(100)}).opens("site", {"site": 1.0}, {"site": rising})


def test_nothing_is_reported_where_nobody_can_be_ranked() -> None:
    assert not Gate({"site": np.zeros(100)}).opens("site", {}, {"site": np.array([0.0, 0.0, 9.0])})


@pytest.mark.parametrize("broken", ["nothing", "graph.csv", "noissue/metrics.csv", "issues/issue_0/target.json"])
def test_a_wrong_directory_is_one_sentence(tmp_path: Path, broken: str) -> None:
    if broken != "nothing":
        (write_set(tmp_path) / "quiet" / broken).write_text("{}")
    with pytest.raises(EvaluationError, match=str(tmp_path)):
        petshop.evaluate(tmp_path, quietly)


def test_the_command_prints_a_table_and_json(shop: Path) -> None:
    shown = CliRunner().invoke(app, ["evaluate", "petshop", str(shop)])
    assert shown.exit_code == 0
    assert "quiet availability" in shown.output
    printed = CliRunner().invoke(app, ["evaluate", "petshop", str(shop), "--json"])
    assert orjson.loads(printed.stdout)["set"] == "petshop"
