"""`flowchain evaluate nab` on directories of our own making."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import orjson
import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.evaluation import nab
from infra.evaluation.errors import EvaluationError

START = datetime(2025, 1, 1, tzinfo=UTC)


def write_set(folder: Path, names: tuple[str, ...], rows: int = 700, odd: int = 500) -> Path:
    """Write series of noise with one wild row each, labelled around it."""
    windows = {}
    for name in names:
        random = Random(name)
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        stamps = [(START + timedelta(minutes=5 * row)).strftime("%Y-%m-%d %H:%M:%S") for row in range(rows)]
        values = [random.gauss(100, 5) if row != odd else 400.0 for row in range(rows)]
        lines = [f"{stamp},{value}" for stamp, value in zip(stamps, values, strict=True)]
        path.write_text("\n".join(["timestamp,value", *lines]) + "\n")
        windows[name] = [[f"{stamps[odd - 20]}.000000", f"{stamps[odd + 20]}.000000"]]
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "combined_windows.json").write_bytes(orjson.dumps(windows))
    return folder


def quietly(*_: object) -> None:
    return None


def test_a_wild_row_is_found_in_every_file(tmp_path: Path) -> None:
    report = nab.evaluate(write_set(tmp_path, ("a/one.csv", "b/two.csv", "b/three.csv")), quietly)
    assert (report["files"], report["rows"], report["windows"]) == (3, 2100, 3)
    assert report["profiles"]["standard"]["optimised"] > 70
    assert report["profiles"]["standard"]["nested"] <= report["profiles"]["standard"]["optimised"]


def test_one_category_leaves_nothing_to_choose_from(tmp_path: Path) -> None:
    assert nab.evaluate(write_set(tmp_path, ("a/one.csv",)), quietly)["profiles"]["standard"]["nested"] is None


def test_scores_look_at_the_past_only(tmp_path: Path) -> None:
    series = nab.read_set(write_set(tmp_path, ("a/one.csv",)))[0]
    part = series._replace(times_us=series.times_us[:510], values=series.values[:510])
    assert nab.detect(part) == nab.detect(series)[:510]


def test_a_repeated_timestamp_bounds_at_its_first_row(tmp_path: Path) -> None:
    folder = write_set(tmp_path, ("a/one.csv",))
    path = folder / "data" / "a" / "one.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:482], lines[481], *lines[482:]]) + "\n")
    assert nab.read_set(folder)[0].labels.windows == ((480, 521),)


@pytest.mark.parametrize("kind", ["absent", "no file", "no window"])
def test_a_wrong_directory_is_one_sentence(tmp_path: Path, kind: str) -> None:
    if kind != "absent":
        write_set(tmp_path, ("a/one.csv",))
    if kind == "no file":
        (tmp_path / "data" / "a" / "one.csv").unlink()
    if kind == "no window":
        (tmp_path / "labels" / "combined_windows.json").write_text('{"a/one.csv": []}')
    with pytest.raises(EvaluationError, match=str(tmp_path)):
        nab.read_set(tmp_path)


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    folder = str(write_set(tmp_path, ("a/one.csv", "b/two.csv")))
    shown = CliRunner().invoke(app, ["evaluate", "nab", folder])
    assert shown.exit_code == 0
    assert "reward_low_FN_rate" in shown.output
    printed = CliRunner().invoke(app, ["evaluate", "nab", folder, "--json"])
    assert orjson.loads(printed.stdout)["set"] == "nab"
