"""Child processes of a measurement: they end with the block, and with this process however it ends."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.devstack.processes import tied

STOP_S = 15.0
POLL_S = 0.02
PATIENCE_S = 120.0
TOLD = 800
"""Characters of a log that an error quotes."""


class BenchError(Exception):
    """Why there is no measurement, in one sentence."""


@contextmanager
def python(
    module: str, *arguments: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m module arguments…` with its output in `log`."""
    with run([sys.executable, "-m", module, *arguments], log=log, environment=environment) as process:
        yield process


@contextmanager
def run(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with its output in `log`."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            tied(list(command)), env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()


def tail(log: Path) -> str:
    """Return the end of a log, for an error."""
    return log.read_text(errors="replace")[-TOLD:].strip() or "its log is empty"


def until(true: Callable[[], bool], otherwise: str) -> float:
    """Wait until something is true and return when (monotonic seconds); raises BenchError after PATIENCE_S."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        if true():
            return time.monotonic()
        time.sleep(POLL_S)
    raise BenchError(f"{otherwise} within {PATIENCE_S:.0f} s")
