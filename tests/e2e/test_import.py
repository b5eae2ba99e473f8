"""Recorded traces, with times years ago, through the whole pipeline."""

from pathlib import Path

from helpers_import import FIXTURES, complete, run_import

from infra.devstack import Stack


def test_every_otlp_span_is_counted_and_stored(stack: Stack, tmp_path: Path) -> None:
    document = complete(run_import(stack, tmp_path, str(FIXTURES / "otlp"), "--prefix", "e2e-otlp."))
    assert document["steps"]


def test_importing_into_a_used_topic_is_refused(stack: Stack, tmp_path: Path) -> None:
    again = run_import(stack, tmp_path, str(FIXTURES / "otlp"), "--prefix", "e2e-otlp.")
    assert again.returncode == 1
    assert b"holds records already" in again.stderr.replace(b"\n", b" ")


def test_a_csv_day_with_logs_and_metrics(stack: Stack, tmp_path: Path) -> None:
    document = complete(run_import(stack, tmp_path, str(FIXTURES / "bakery"), "--prefix", "e2e-bakery."))
    assert document["logs"]
    assert document["samples"]


def test_traces_moved_to_now_are_taken_too(stack: Stack, tmp_path: Path) -> None:
    complete(run_import(stack, tmp_path, str(FIXTURES / "otlp"), "--prefix", "e2e-shift.", "--shift"))
