"""Runs workers as child processes and restarts those that end. For one machine; a cluster has its own supervisor.

Children end with this process however it ends (the kernel sees to it on Linux; elsewhere they are told on a regular
end). Restarts are spaced out exponentially, so that a worker that cannot start does not spin.
"""

import json
import os
import signal
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
import psutil

from agents.ingest import TooManyDeadLetters
from infra.devstack import _launch

WORKERS = ("ingest", "analysis", "sinks-clickhouse", "sinks-postgres")
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 15.0
REFUSED_DELAY_S = 60.0
"""After an end that a restart does not mend: more dead letters than allowed."""
STEADY_S = 30.0
"""A worker that ran so long begins again with the first delay."""
STOP_S = 15.0
STATE = "workers.json"


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

    def start(self) -> None:
        """Start every worker."""
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(self.names):
            again = sum(other == name for other in self.names[:number])
            label = f"{name}-{again + 1}" if again else name
            self.children.append(Child(name, free_port(), logs / f"worker-{label}.log"))
        for child in self.children:
            self._spawn(child)
        self._write_state()

    def poll(self) -> None:
        """Restart what has ended and waited long enough."""
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
                self._spawn(child)
                changed = True
        if changed:
            self._write_state()

    def stop(self) -> None:
        """Ask every worker to end, and make those end that do not."""
        _end(self.children)
        (self.home / STATE).unlink(missing_ok=True)

    def retire(self, name: str) -> None:
        """End the workers of a name for good."""
        going = [child for child in self.children if child.name == name]
        self.children = [child for child in self.children if child.name != name]
        _end(going)

    def _spawn(self, child: Child) -> None:
        argv = [sys.executable, "-m", "infra.cli", "worker", child.name]
        if sys.platform == "linux":
            argv = [sys.executable, _launch.__file__, str(int(signal.SIGTERM)), str(os.getpid()), *argv]
        environment = {
            **os.environ, **self.environment, "FLOWCHAIN_HTTP_PORT": str(child.port), "FLOWCHAIN_WORKER_ID": child.log.stem,
        }  # fmt: skip
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        child.started = time.monotonic()

    def _write_state(self) -> None:
        rows = [
            {"name": c.name, "port": c.port, "log": str(c.log), "pid": c.process.pid if c.process else None,
             "restarts": c.restarts}
            for c in self.children
        ]  # fmt: skip
        path = self.home / STATE
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"supervisor": os.getpid(), "workers": rows}))
        temporary.replace(path)


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
        while not done.wait(0.2):
            supervisor.poll()

    # The kernel ties children to the thread that started them, so they are started above, by the caller's thread,
    # and restarted by one that lives as long as the block.
    watcher = threading.Thread(target=watch, name="supervisor", daemon=True)
    watcher.start()
    try:
        yield supervisor
    finally:
        done.set()
        watcher.join()
        supervisor.stop()


def wait_until_ready(supervisor: Supervisor, timeout_s: float = 60.0) -> list[str]:
    """Wait until all workers are ready; return the names of those that are not in time."""
    waiting = {child.port: child.name for child in supervisor.children}
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        for port in list(waiting):
            if probe(port, "/readyz") == 200:
                del waiting[port]
        time.sleep(0.1)
    return sorted(waiting.values())


def probe(port: int, path: str) -> int:
    """Return the status code of a worker's probe; 0 when it does not answer."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=2.0).status_code
    except httpx.HTTPError:
        return 0


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def read_state(home: Path) -> dict[str, object] | None:
    """Return what runs under a home: None when its supervisor does not run any more."""
    try:
        state: dict[str, object] = json.loads((home / STATE).read_text())
    except FileNotFoundError:
        return None
    return state if psutil.pid_exists(int(str(state["supervisor"]))) else None


def main(home: str) -> None:
    """Supervise in the foreground until SIGTERM or SIGINT; used detached by `flowchain up`."""
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    supervisor = Supervisor(Path(home), {})
    supervisor.start()
    while not done.wait(0.2):
        supervisor.poll()
    supervisor.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
