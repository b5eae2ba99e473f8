"""How long a killed ingest worker is missed: from kill -9 to its first new commit, and until nothing waits any more.

What counts for the first is the end of the dead worker's transaction, the supervisor's pause before a restart (0.5 s), the
start of the process, the group's assignment, and reading the state back; so it is measured with many executions open as
well. What counts for the second is how much was sent meanwhile, and how much faster than that the worker is.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from connectors.log import offsets_committed, offsets_held
from connectors.settings import Settings
from infra.bench.commits import watcher_of
from infra.bench.loading import Tell, pack, preload
from infra.bench.processes import until
from infra.bench.soak import feeding
from infra.supervisor import Supervisor
from schemas.topics import EVENTS

CAUGHT_UP_S = 0.3
"""Nothing waits any more when what waits was sent within so long: a transaction of ingest takes 0.1 s."""


@dataclass(frozen=True)
class Case:
    """One kill: under which load, and how it went."""

    rate: int
    open_executions: int
    first_commit_s: float
    no_lag_s: float
    waiting: int
    """Most records that waited."""

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "rate": self.rate, "open_executions": self.open_executions, "first_commit_s": round(self.first_commit_s, 2),
            "no_lag_s": round(self.no_lag_s, 2), "waiting": self.waiting,
        }  # fmt: skip


class Watcher:
    """Sees how far the group has committed and how far the log goes."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic(EVENTS.name)
        self._consumer = watcher_of(settings, settings.group("ingest"))
        self._partitions = list(self._consumer.list_topics(self._topic, timeout=30).topics[self._topic].partitions)

    def committed(self) -> int:
        """Return the sum of the committed offsets."""
        return sum(max(0, offset) for offset in offsets_committed(self._consumer, self._topic, self._partitions).values())

    def lag(self) -> int:
        """Return how many offsets are not committed."""
        return sum(offsets_held(self._consumer, self._topic, p)[1] for p in self._partitions) - self.committed()

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


def measure(settings: Settings, supervisor: Supervisor, rates: Sequence[int], opened: Sequence[int], tell: Tell) -> list[Case]:
    """Kill the worker once per number of open executions and rate; it runs, alone, and is started again by `supervisor`."""
    watcher, cases, held = Watcher(settings), [], 0
    try:
        for number in sorted(opened):
            preload(settings, pack(_opening(held, number), 1, settings.source_partitions), max(1, number - held), lambda *_: None)
            held = max(held, number)
            for rate in rates:
                cases.append(_kill(settings, supervisor, watcher, rate, held))
                tell("recovery", len(cases), len(opened) * len(rates))
    finally:
        watcher.close()
    return cases


def _opening(first: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the beginnings of executions that stay open."""
    for number in range(first, end):
        name, at_us = f"open-{number}", time.time_ns() // 1000
        event = {"type": "execution.started", "chain": "waits", "execution": name, "time_unix_us": at_us, "user": "u" * 20}
        yield name.encode(), orjson.dumps(event)


def _kill(settings: Settings, supervisor: Supervisor, watcher: Watcher, rate: int, held: int) -> Case:
    few = max(1_000, int(rate * CAUGHT_UP_S))
    with feeding(settings, rate) as feeder:
        until(lambda: feeder.sent > 3 * rate and watcher.lag() < few, "the worker did not keep up before it was killed")
        (child,) = supervisor.of("ingest")
        assert child.process is not None  # it has just worked
        child.process.kill()
        killed_s, before = time.monotonic(), watcher.committed()
        # What the dead worker had under way may still be committed; its successor comes no sooner than its pause allows.
        time.sleep(0.3)
        before = max(before, watcher.committed())
        first_s = until(lambda: watcher.committed() > before, "the worker did not come back") - killed_s
        lags: list[int] = []
        no_lag_s = until(lambda: _noted(lags, watcher.lag()) < few, "the worker did not catch up") - killed_s
        feeder.check()
    return Case(rate, held, first_s, no_lag_s, max(lags))


def _noted(lags: list[int], lag: int) -> int:
    lags.append(lag)
    return lag


def document(cases: Iterable[Case]) -> dict[str, Any]:
    """Return all for programs."""
    return {"cases": [case.document() for case in cases]}
