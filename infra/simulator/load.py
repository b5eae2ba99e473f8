"""Events for throughput measurements, without the SDK: recorded once from the simulator, then renumbered.

A few thousand executions are simulated; after that only the execution ids and the times in their encoded events change.
So every event is valid and every execution is like a simulated one, at the cost of a few byte operations per event.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from infra.simulator.faults import Fault
from infra.simulator.recorder import Recorder
from infra.simulator.simulation import Config, Simulation

RECORDED_EXECUTIONS = 4000
_MARK = b"#round##"
_EXECUTION = re.compile(rb"\b([0-9a-f]{24})[0-9a-f]{8}\b")
_TIME = re.compile(rb'"time_unix_us":(\d+)')


class _Event(NamedTuple):
    """An event cut open where it changes: `head` + time + `tail`, with marks for the number of the round."""

    key: bytes
    head: bytes
    time_us: int
    tail: bytes


class Stamped(NamedTuple):
    """An event that is to be sent, and its event time."""

    time_us: int
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Recording:
    """Executions as they were simulated, to be had as often as wanted: each round has execution ids of its own."""

    events: tuple[_Event, ...]
    """In the order in which they were emitted."""
    round_us: int
    """How long they take."""

    def round(self, number: int, origin_us: int) -> Iterator[Stamped]:
        """Yield the events of one round that begins at `origin_us`."""
        round_id = b"%08x" % number
        for key, head, time_us, tail in self.events:
            at_us = origin_us + time_us
            value = b"%b%d%b" % (head.replace(_MARK, round_id), at_us, tail.replace(_MARK, round_id))
            yield Stamped(at_us, key.replace(_MARK, round_id), value)

    def rounds(self, origin_us: int, first: int = 0) -> Iterator[Stamped]:
        """Yield the events of one round after the other, without end, from round `first` on."""
        for number in count(first):
            yield from self.round(number, origin_us + (number - first) * self.round_us)


@lru_cache(maxsize=2)
def record(seed: int, rate: float, faults: tuple[Fault, ...] = ()) -> Recording:
    """Simulate some thousand executions, `rate` per second of event time."""
    recorder = Recorder()
    Simulation(Config(rate, RECORDED_EXECUTIONS / rate, seed, faults, speed=0.0, start_unix_us=0), recorder).run()
    events = [_cut(key, value) for key, value in recorder.events]
    return Recording(tuple(events), max(event.time_us for event in events) + 1000)


def _cut(key: bytes, value: bytes) -> _Event:
    found = _TIME.search(value)
    assert found is not None  # the contract demands a time
    head, tail = value[: found.start(1)], value[found.end(1) :]
    return _Event(_marked(key), _marked(head), int(found[1]), _marked(tail))


def _marked(value: bytes) -> bytes:
    """An execution's last 8 digits make room for the round; the first 24 tell the recorded ones apart."""
    return _EXECUTION.sub(rb"\1" + _MARK, value)


def generate(
    n_events: int, seed: int = 1, *, rate: float = 1000.0, start_unix_us: int | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) of so many healthy events in event-time order, `rate` executions per second of event time.

    Without `start_unix_us` the last event is now. The same arguments give the same bytes (but for that "now").
    The last executions may be cut off.
    """
    recording = record(seed, rate)
    if start_unix_us is None:
        start_unix_us = time.time_ns() // 1000 - recording.round_us * n_events // len(recording.events)
    for _, event in zip(range(n_events), recording.rounds(start_unix_us), strict=False):
        yield event.key, event.value
