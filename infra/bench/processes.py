"""Child processes of a measurement: they end with the block, and with this process however it ends."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.devstack.processes import tied

STOP_S = 15.0
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
