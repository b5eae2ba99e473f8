"""A worker that ended where no restart helps is not started again at once."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.supervisor import Child, Supervisor


@pytest.mark.parametrize(("code", "waits"), [(1, False), (65, True)])
def test_end_at_the_limit_of_dead_letters_waits_longer_than_a_crash(tmp_path: Path, code: int, waits: bool) -> None:
    supervisor = Supervisor(tmp_path, {})
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait()
    child = Child("ingest", 1, tmp_path / "log", process, started=0.0)
    supervisor.children.append(child)
    before = child.started = time.monotonic()
    supervisor.poll()
    assert child.process is None
    assert (child.start_at - before > 30) is waits
