"""The NAB score: the seven rules by hand, and the vectors of the original scorer where the data set is present."""

import csv
from math import exp

import orjson
import pytest

from streams.scoring.nab import PROFILES, Labels, curve, normalised, row_counts, row_values
from tests.public_data import unpacked

STANDARD = PROFILES["standard"]
LABELS = Labels(100, ((40, 49), (80, 89)))
"""15 rows of probation."""


def sigmoid(y: float) -> float:
    return 2 / (1 + exp(5 * y)) - 1


def scores(*rows: int, rows_total: int = 100) -> list[float]:
    return [0.9 if row in rows else 0.0 for row in range(rows_total)]


def raw(*rows: int) -> float:
    return curve([LABELS], [scores(*rows)], STANDARD).at(0.5)


def test_nothing_detected_misses_every_window() -> None:
    assert raw() == -2


def test_the_first_row_of_a_window_earns_all_and_later_ones_less() -> None:
    assert raw(40, 80) == pytest.approx(2)
    assert raw(49, 80) == pytest.approx(1 + sigmoid(-1 / 10) / sigmoid(-1))


def test_only_the_first_detection_of_a_window_counts() -> None:
    assert raw(42, 45, 49, 80) == raw(42, 80)


def test_a_false_detection_costs_less_right_after_a_window() -> None:
    assert raw(20) == pytest.approx(-2 - 0.11)
    assert raw(50) == pytest.approx(-2 + 0.11 * sigmoid(1 / 9))
    assert raw(79) == pytest.approx(-2 - 0.11)


def test_probation_is_left_out() -> None:
    assert raw(0, 14) == -2
    assert raw(15) < -2
    assert Labels(100_000).probation == 750


def test_a_window_wholly_in_probation_is_no_miss() -> None:
    assert curve([Labels(100, ((3, 9),))], [scores()], STANDARD).at(0.5) == 0


def test_of_equal_thresholds_the_highest_is_best() -> None:
    found = curve([Labels(100, ((3, 9),))], [scores()], STANDARD)
    assert found.best() == (1.1, 0.0)


def test_a_threshold_below_all_scores_detects_every_row() -> None:
    found = curve([LABELS], [scores()], STANDARD)
    assert found.at(-1.0) == found.at(0.0)


def test_silence_is_0_and_perfection_100_in_every_profile() -> None:
    for profile in PROFILES.values():
        assert normalised(curve([LABELS], [scores()], profile).at(0.5), 2, profile) == pytest.approx(0)
        assert normalised(curve([LABELS], [scores(40, 80)], profile).at(0.5), 2, profile) == pytest.approx(100)


def test_rows_are_counted_after_probation() -> None:
    assert row_counts([LABELS], [scores(3, 20, 40)], 0.5) == (1, 1, 19, 64)


def test_a_window_of_one_row_has_values() -> None:
    values, inside = row_values(Labels(10, ((4, 4),)))
    assert inside.tolist().count(0) == 1
    assert values[4] == pytest.approx(1)


def test_the_original_scorer_agrees(tmp_path_factory: pytest.TempPathFactory) -> None:
    reference = unpacked("nab", tmp_path_factory.mktemp("nab")) / "reference"
    expected = orjson.loads((reference / "expected.json").read_bytes())
    truth, found = [], []
    for name, one in expected["files"].items():
        with (reference / expected["detector"] / name).open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        found.append([float(row["anomaly_score"]) for row in rows])
        truth.append(Labels(len(rows), windows_of([row["label"] == "1" for row in rows])))
        assert truth[-1].probation == one["probation_rows"]
        for vector in one["scores"]:
            at = vector["threshold"]
            whole = curve(truth[-1:], found[-1:], PROFILES[vector["profile"]])
            assert whole.at(at) == pytest.approx(vector["raw_score"], abs=1e-9)
            counts = row_counts(truth[-1:], found[-1:], at)
            assert counts == (vector["tp"], vector["fp"], vector["fn"], vector["tn"])
    for name, together in expected["three_files_together"].items():
        profile = PROFILES[name]
        at, best = curve(truth, found, profile).best()
        assert (at, best) == (pytest.approx(together["best_threshold"]), pytest.approx(together["raw_score"]))
        windows = sum(len(labels.windows) for labels in truth)
        assert normalised(best, windows, profile) == pytest.approx(together["normalised"])


def windows_of(flags: list[bool]) -> tuple[tuple[int, int], ...]:
    """Return runs of labelled rows: windows never touch."""
    edges = [at for at in range(len(flags) + 1) if (at < len(flags) and flags[at]) != (at > 0 and flags[at - 1])]
    return tuple((left, right - 1) for left, right in zip(edges[::2], edges[1::2], strict=True))
