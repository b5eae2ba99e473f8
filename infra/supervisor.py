"""Runs workers as child processes and restarts those that end. For one machine; a cluster has its own supervisor.

Children end with this process however it ends: at once when it is killed (the kernel sees to it on Linux), because
what they would need for a good end may have died with it, and they are exact without one. Restarts are spaced out
exponentially, so that a worker that cannot start does not spin.
"""

import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from agents.ingest import TooManyDeadLetters
from infra.devstack.processes import tied
from streams.ids import derived_id

WORKERS = ("ingest", "analysis", "sinks-clickhouse", "sinks-postgres")
"""The pipeline."""
INTAKE = "intake"
API = "api"
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 15.0
REFUSED_DELAY_S = 60.0
"""After an end that a restart does not mend: more dead letters than allowed."""
STEADY_S = 30.0
"""A worker that ran so long begins again with the first delay."""
STOP_S = 15.0
READY_S = 60.0
POLL_S = 0.2


class NotReady(Exception):
    """Workers did not start in time, in one sentence."""


@dataclass
class Child:
    """One worker and its process."""

    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = 0
    delay_s: float = FIRST_DELAY_S
    start_at: float = 0.0


@dataclass
class Supervisor:
    """Keeps workers running: call `poll` regularly, `stop` at the end."""

    home: Path
    environment: Mapping[str, str]
    names: Sequence[str] = WORKERS
    children: list[Child] = field(default_factory=list)
    restarts: int = 0
    """Of all workers, also those that are gone."""

    def start(self) -> None:
        """Start every worker."""
        for name in dict.fromkeys(self.names):
            self.scale(name, self.names.count(name))

    def of(self, name: str) -> list[Child]:
        """Return the workers of a name."""
        return [child for child in self.children if child.name == name]

    def scale(self, name: str, workers: int) -> None:
        """Have so many workers of a name: start those that are missing, end the newest for good."""
        running = self.of(name)
        for number in range(len(running), workers):
            self._spawn(self._add(name, number))
        going = running[workers:]
        self.children = [child for child in self.children if child not in going]
        _end(going)

    def poll(self) -> bool:
        """Restart what has ended and waited long enough; return whether a process was started."""
        changed = False
        for child in self.children:
            process = child.process
            if process is not None and process.poll() is not None:
                ran_s = time.monotonic() - child.started
                child.delay_s = FIRST_DELAY_S if ran_s > STEADY_S else min(child.delay_s * 2, LONGEST_DELAY_S)
                refused = process.returncode == TooManyDeadLetters.exit_code
                child.process, child.start_at = None, time.monotonic() + (REFUSED_DELAY_S if refused else child.delay_s)
            elif process is None and time.monotonic() >= child.start_at:
                child.restarts += 1
                self.restarts += 1
                self._spawn(child)
                changed = True
        return changed

    def stop(self) -> None:
        """Ask every worker to end, and make those end that do not."""
        _end(self.children)

    def retire(self, name: str) -> None:
        """End the workers of a name for good."""
        self.scale(name, 0)

    def _add(self, name: str, number: int) -> Child:
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        label = f"{name}-{number + 1}" if number else name
        child = Child(name, self._port(name, number), logs / f"worker-{label}.log")
        self.children.append(child)
        return child

    def _port(self, name: str, number: int) -> int:
        """Return where a worker serves: the first API where it is said, everything else anywhere."""
        said = {**os.environ, **self.environment}.get("FLOWCHAIN_API_PORT", "0") if name == API and number == 0 else "0"
        return int(said) or free_port()

    def _spawn(self, child: Child) -> None:
        argv = tied([sys.executable, "-m", "infra.cli", "worker", child.name])
        own = derived_id(platform.node(), str(self.home.resolve()))[:12]  # others may run on the same brokers
        environment = {
            **os.environ, **self.environment, f"FLOWCHAIN_{'API' if child.name == API else 'HTTP'}_PORT": str(child.port),
            "FLOWCHAIN_WORKER_ID": f"{child.log.stem}-{own}",
        }  # fmt: skip
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        child.started = time.monotonic()


def _end(children: Sequence[Child]) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + STOP_S
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def workers(home: Path, environment: Mapping[str, str], names: Sequence[str] = WORKERS) -> Iterator[Supervisor]:
    """Run workers, restarted as needed, until the block ends."""
    supervisor = Supervisor(home, environment, names)
    supervisor.start()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            supervisor.poll()
        supervisor.stop()

    # The kernel ties children to the thread that started them: the caller's thread those above, this one those that
    # it restarts. So it also stops them, before it ends itself.
    watcher = threading.Thread(target=watch, name="supervisor", daemon=True)
    watcher.start()
    try:
        yield supervisor
    finally:
        done.set()
        watcher.join()


@contextmanager
def ready_workers(home: Path, environment: Mapping[str, str]) -> Iterator[Supervisor]:
    """Run all workers until the block ends; it begins when they are ready. Raises NotReady."""
    with workers(home, environment) as supervisor:
        late = _late(supervisor)
        if late:
            raise NotReady(f"not ready within {READY_S:.0f} s: {', '.join(late)}; their logs are in {home / 'logs'}")
        yield supervisor


def _late(supervisor: Supervisor) -> list[str]:
    """Wait until all workers are ready; return the names of those that are not in time."""
    waiting = {child.port: child.name for child in supervisor.children}
    deadline = time.monotonic() + READY_S
    while waiting and time.monotonic() < deadline:
        for port in list(waiting):
            if is_ready(port):
                del waiting[port]
        time.sleep(0.1)
    return sorted(waiting.values())


def is_ready(port: int) -> bool:
    """Whether the worker that serves there says so."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of loopback."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
