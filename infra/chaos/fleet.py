"""What the actions of a plan do: to workers by their supervisor, to engines by the local stack."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from infra import devstack
from infra.chaos.plan import Action, Kind
from infra.supervisor import POLL_S, Child, Supervisor, is_ready

READY_S = 20.0
SIGNALS: Mapping[Kind, int] = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "pause": signal.SIGSTOP, "resume": signal.SIGCONT}


class Fleet:
    """The workers and engines of one run. One thread: the kernel ties their life to it."""

    def __init__(self, home: Path, supervisor: Supervisor, tell: Callable[[str], None]) -> None:
        self.done: Counter[Kind] = Counter()
        self.killed: Counter[str] = Counter()
        """kill -9 by what it hit."""
        self._home, self._supervisor, self._tell = home, supervisor, tell
        self._paused: list[Child] = []
        self._away: set[str] = set()
        """Engines."""
        self._ways: Mapping[Kind, Callable[[Action], None]] = {
            "kill": self._signal, "term": self._signal, "pause": self._pause, "resume": self._resume, "roll": self._roll,
            "scale": self._scale, "engine_kill": self._engine, "engine_stop": self._engine, "engine_start": self._engine,
        }  # fmt: skip

    @property
    def restarts(self) -> int:
        """How often a worker was started again."""
        return self._supervisor.restarts

    def do(self, action: Action) -> None:
        """Do it."""
        self._ways[action.kind](action)
        self.done[action.kind] += 1

    def wait(self, until: float) -> None:
        """Start again what ends, until a moment (monotonic seconds)."""
        while True:
            self._supervisor.poll()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, POLL_S))

    def make_whole(self) -> None:
        """Have everything run that should."""
        for child in self._paused:
            self._send(child, signal.SIGCONT)
        for engine in devstack.ALL:
            devstack.start(self._home, engine)

    def _worker(self, action: Action) -> Child:
        running = self._supervisor.of(action.target)
        return running[action.number % len(running)]

    def _signal(self, action: Action) -> None:
        """One that is just starting is waited for: it has to be hit while it works."""
        child = self._worker(action)
        self._await(child)
        self._tell(f"{'kill -9' if action.kind == 'kill' else 'SIGTERM'} {child.log.stem}")
        self._send(child, SIGNALS[action.kind])
        if action.kind == "kill":
            self.killed[action.target] += 1

    def _pause(self, action: Action) -> None:
        child = self._worker(action)
        self._await(child)
        self._tell(f"SIGSTOP {child.log.stem}")
        self._send(child, signal.SIGSTOP)
        self._paused.append(child)

    def _resume(self, action: Action) -> None:
        for child in [child for child in self._paused if child.name == action.target]:
            self._tell(f"SIGCONT {child.log.stem}: it does not know that it has lost its partitions")
            self._send(child, signal.SIGCONT)
            self._paused.remove(child)

    def _roll(self, action: Action) -> None:
        for child in self._supervisor.of(action.target):
            self._tell(f"rolling restart: SIGTERM {child.log.stem}")
            self._await(child)
            self._send(child, signal.SIGTERM)
            self._await(child, restarts=child.restarts + 1)

    def _scale(self, action: Action) -> None:
        before = len(self._supervisor.of(action.target))
        self._tell(f"{action.target}: {before} -> {action.number} workers")
        self._supervisor.scale(action.target, action.number)

    def _engine(self, action: Action) -> None:
        words = {"engine_kill": "kill -9", "engine_stop": "stop", "engine_start": "start again"}
        self._tell(f"{words[action.kind]} {action.target}")
        {"engine_kill": devstack.kill, "engine_stop": devstack.stop, "engine_start": devstack.start}[action.kind](
            self._home, action.target
        )
        if action.kind == "engine_start":
            self._away.discard(action.target)
        else:
            self._away.add(action.target)
        if action.kind == "engine_kill":
            self.killed[action.target] += 1

    def _await(self, child: Child, restarts: int = 0) -> None:
        """Wait until a worker runs and is ready, or has had its time; without a broker none will be."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and "kafka" not in self._away:
            self._supervisor.poll()
            if child in self._paused or (child.process and child.restarts >= restarts and is_ready(child.port)):
                return
            time.sleep(POLL_S)

    def _send(self, child: Child, number: int) -> None:
        if child.process is not None and child.process.poll() is None:
            child.process.send_signal(number)
