"""The supervisor of `flowchain up`: a process of its own, of which a folder has at most one.

usage: python -m infra.background HOME

Whoever starts or stops it holds the folder's lock meanwhile. What runs stands in `workers.json`, with the moment at
which the supervisor was made, so that a later process with the same pid is not taken for it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock

from infra.devstack import DevstackError, processes
from infra.devstack.processes import Proc
from infra.supervisor import API, INTAKE, POLL_S, READY_S, STOP_S, WORKERS, NotReady, Supervisor

STATE = "workers.json"


@dataclass(frozen=True)
class Running:
    """What the state file says of one worker; `pid` None while it waits for its restart."""

    name: str
    port: int
    log: str
    pid: int | None
    restarts: int

    def report(self) -> dict[str, Any]:
        """Return what is known of it and what it says of itself; not live when it does not answer."""
        known = {"worker": self.name, "pid": self.pid, "restarts": self.restarts, "log": self.log}
        try:
            answer: dict[str, Any] = httpx.get(f"http://127.0.0.1:{self.port}/status", timeout=2.0).json()
        except httpx.HTTPError:
            answer = {"live": False, "ready": False}
        return known | answer


@dataclass(frozen=True)
class State:
    """A supervisor and its workers."""

    supervisor: Proc
    workers: list[Running]


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Only one process at a time looks for, starts or stops the supervisor of a folder."""
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "workers.lock"):
        yield


def read_state(home: Path) -> State | None:
    """Return what runs under a home; None when its supervisor does not run (any more)."""
    try:
        raw = json.loads((home / STATE).read_text())
        state = State(Proc(**raw["supervisor"]), [Running(**worker) for worker in raw["workers"]])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DevstackError(f"{home / STATE} cannot be read ({error!r}): delete it.") from error
    return state if state.supervisor.alive else None


def reports(home: Path) -> list[dict[str, Any]]:
    """Return what every worker of the folder's supervisor says of itself."""
    state = read_state(home)
    return [worker.report() for worker in state.workers] if state else []


def start(home: Path, environment: Mapping[str, str]) -> None:
    """Start the supervisor unless it runs; return when all workers are ready. Raises NotReady."""
    with locked(home):
        if read_state(home) is None:
            _spawn(home, environment)
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and read_state(home) is not None:
            found = reports(home)
            if found and all(report["ready"] for report in found):
                return
            time.sleep(POLL_S)
    raise NotReady(f"the workers were not ready within {READY_S:.0f} s; their logs are in {home / 'logs'}")


def stop(home: Path) -> bool:
    """Stop the supervisor with its workers; return whether one ran."""
    with locked(home):
        state = read_state(home)
        if state is not None:
            processes.end([(state.supervisor, signal.SIGTERM)], STOP_S + 5)
        (home / STATE).unlink(missing_ok=True)
    return state is not None


def _spawn(home: Path, environment: Mapping[str, str]) -> None:
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.background", str(home)], env={**os.environ, **environment},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    _write(home, State(Proc.of(process.pid), []))  # at once: should we be killed now, the next start knows


def _state(supervisor: Supervisor) -> State:
    running = [
        Running(c.name, c.port, str(c.log), c.process.pid if c.process else None, c.restarts)
        for c in supervisor.children
    ]
    return State(Proc.of(os.getpid()), running)


def _write(home: Path, state: State) -> None:
    fresh = home / f"{STATE}.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(state)))
    fresh.replace(home / STATE)


def main(home: str) -> None:
    """Supervise in the foreground until SIGTERM or SIGINT."""
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    supervisor = Supervisor(Path(home), {}, (*WORKERS, INTAKE, API))
    supervisor.start()
    _write(supervisor.home, _state(supervisor))
    while not done.wait(POLL_S):
        if supervisor.poll():
            _write(supervisor.home, _state(supervisor))
    supervisor.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
