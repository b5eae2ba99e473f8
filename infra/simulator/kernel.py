"""A discrete-event kernel: processes are generators that yield how long they wait."""

import heapq
from collections.abc import Callable, Generator, Iterable
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")


class Join:
    """Wakes the process that yields it when so many branches have ended."""

    def __init__(self, branches: int) -> None:
        self.open = branches
        self.waiting: Process | None = None


Process = Generator[int | Join, None, Any]
"""Yields microseconds to wait, or a Join to wait for."""
Routine = Generator[int | Join, None, T]
"""A part of a process that gives back a T (`yield from`)."""


class Kernel:
    """Runs processes in the order of their virtual time; at the same time, in the order of their scheduling."""

    def __init__(self) -> None:
        self.now_us = 0
        self._order = count()
        self._agenda: list[tuple[int, int, Process]] = []

    def spawn(self, process: Process, after_us: int = 0) -> None:
        """Start `process` after so many microseconds."""
        heapq.heappush(self._agenda, (self.now_us + after_us, next(self._order), process))

    def run(self, until_us: int, pace: Callable[[int], bool]) -> None:
        """Run what is due until then. `pace` is told each next time and may wait; False stops the run."""
        while self._agenda:
            at_us, _, process = heapq.heappop(self._agenda)
            if at_us > until_us or not pace(at_us):
                break
            self.now_us = at_us
            self._resume(process)

    def _resume(self, process: Process) -> None:
        try:
            wait = next(process)
        except StopIteration:
            return
        if not isinstance(wait, Join):
            self.spawn(process, wait)
        elif wait.open:
            wait.waiting = process
        else:
            self.spawn(process)

    def all(self, routines: Iterable[Routine[T]]) -> Routine[list[T]]:
        """Run routines at once and return their results in their order when the last has ended."""
        branches = list(routines)
        results: dict[int, T] = {}
        join = Join(len(branches))
        for index, branch in enumerate(branches):
            self.spawn(self._branch(branch, index, results, join))
        yield join
        return [results[index] for index in range(len(branches))]

    def _branch(self, routine: Routine[T], index: int, results: dict[int, T], join: Join) -> Process:
        results[index] = yield from routine
        join.open -= 1
        if not join.open and join.waiting is not None:
            self.spawn(join.waiting)
