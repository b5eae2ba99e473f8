"""Recorded traces, with times years ago, through the whole pipeline."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from infra.devstack import Stack

FIXTURES = Path(__file__).parents[1] / "fixtures" / "spans"
DATA = Path(os.environ.get("FLOWCHAIN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def run_import(stack: Stack, home: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `flowchain import spans … --json` against the session's stack."""
    environment = os.environ | {
        "FLOWCHAIN_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "FLOWCHAIN_POSTGRES_DSN": stack.postgres_dsn,
        "FLOWCHAIN_CLICKHOUSE_DSN": stack.clickhouse_dsn,
    }
    argv = [sys.executable, "-m", "infra.cli", "import", "spans", *arguments, "--json"]
    return subprocess.run(argv, cwd=home, env=environment, capture_output=True, timeout=280, check=False)


def complete(done: subprocess.CompletedProcess[bytes]) -> dict[str, object]:
    """Return the command's document once it says that nothing is missing."""
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    document: dict[str, object] = orjson.loads(done.stdout.splitlines()[-1])
    assert document["complete"] is True
    assert document["events_counted"] == document["events"]
    assert document["executions_clickhouse"] == document["executions"]
    assert document["steps_clickhouse"] == document["steps"]
    return document


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


@pytest.mark.timeout(300)
def test_a_normal_minute_of_the_trainticket_set(stack: Stack, tmp_path: Path) -> None:
    archive = DATA / "nezha-trainticket.tar.xz"
    if not archive.exists():
        pytest.skip(f"the public data set {archive.name} is not there: an import of real traces was left out")
    arguments = ("--day", "2023-01-30", "--inputs", "traces,logs", "--prefix", "e2e-trainticket.")
    document = complete(run_import(stack, tmp_path, str(archive), *arguments))
    assert document["logs"]
