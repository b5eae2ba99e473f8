"""Runs `flowchain import` on a stack of the tests."""

import os
import subprocess
import sys
from pathlib import Path

import orjson

from infra.devstack import Stack

FIXTURES = Path(__file__).parent / "fixtures" / "spans"
DATA = Path(os.environ.get("FLOWCHAIN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


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
