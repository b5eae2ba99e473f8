"""Starting engines as processes, tying them to their owner, and ending them without hitting anybody else."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.devstack._watch import alive

HERE = Path(__file__).parent
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Proc:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> "Proc":
        """The process that has that pid now."""
        return cls(pid, psutil.Process(pid).create_time())

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return alive(self.pid, self.created)


@dataclass(frozen=True)
class Command:
    """How an engine is run, and by which signals it is ended."""

    argv: tuple[str, ...]
    prefix: tuple[str, ...] = ()  # a program that runs the rest, e.g. as another user
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL  # what it gets when its owner dies


def tied(argv: Iterable[str], death_signal: int = signal.SIGKILL) -> list[str]:
    """The command line of a child that the kernel ends with the thread that starts it (Linux; elsewhere as given).

    Not SIGTERM for what needs other processes to stop in good order: they have died with the same owner.
    """
    if sys.platform != "linux":
        return list(argv)
    launcher = (sys.executable, "-I", "-S", str(HERE / "_launch.py"), str(int(death_signal)), str(os.getpid()))
    return [*launcher, *argv]


def spawn(command: Command, log: Path, owner: Proc | None) -> Proc:
    """Starts the engine: for as long as the owner lives, or on its own where there is none."""
    by_kernel = owner is not None and _kernel_can_tie(owner)
    argv = tied(command.argv, command.death_signal) if by_kernel else command.argv
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*command.prefix, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,  # a terminal's Ctrl-C is for the owner, who then stops the engine
        )
    engine = Proc.of(child.pid)
    _reap_when_ended(child)
    if owner is not None and not by_kernel:
        _watch(owner, engine, command.death_signal)
    return engine


def _kernel_can_tie(owner: Proc) -> bool:
    """Linux signals a child when the thread that started it ends: has that thread the owner's life?"""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and owner.pid == os.getpid() and in_main_thread


def _watch(owner: Proc, engine: Proc, death_signal: int) -> None:
    numbers = [owner.pid, owner.created, engine.pid, engine.created, int(death_signal)]
    child = subprocess.Popen(
        [sys.executable, "-P", str(HERE / "_watch.py"), *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _reap_when_ended(child)


def _reap_when_ended(child: "subprocess.Popen[bytes]") -> None:
    """An engine that has ended would else stay as a zombie, which to others looks like a running one."""
    threading.Thread(target=child.wait, name=f"reap-{child.pid}", daemon=True).start()


def end(targets: Iterable[tuple[Proc, int]], patience: float = STOP_SECONDS) -> None:
    """Sends each process its signal, waits for all of them and their children, kills those that stay."""
    families: list[psutil.Process] = []
    for proc, by in targets:
        families += _signal(proc, by)
    _, stayed = psutil.wait_procs(families, timeout=patience)
    for process in stayed:
        _ignoring_the_dead(process, signal.SIGKILL)
    psutil.wait_procs(stayed, timeout=patience)


def _signal(proc: Proc, by: int) -> list[psutil.Process]:
    """The process that was signalled with its children, or nothing where it no longer runs."""
    if not proc.alive:
        return []
    process = psutil.Process(proc.pid)
    family = [process, *process.children(recursive=True)]
    _ignoring_the_dead(process, by)
    return family


def _ignoring_the_dead(process: psutil.Process, by: int) -> None:
    with suppress(psutil.NoSuchProcess):  # it ended by itself in the meantime, which is what was wanted
        process.send_signal(by)
