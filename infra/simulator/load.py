"""Events for throughput measurements, without the SDK: recorded once from the simulator, then renumbered.

A few thousand executions are simulated; after that only the execution ids and the times in their encoded events change.
So every event is valid and every execution is like a simulated one, at the cost of a few byte operations per event.
"""

import re
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

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


@lru_cache(maxsize=2)
def _recording(seed: int, rate: float) -> tuple[tuple[_Event, ...], int]:
    """Return the events in the order of their times (microseconds since the first), and how long a round takes."""
    recorder = Recorder()
    Simulation(Config(rate, RECORDED_EXECUTIONS / rate, seed, speed=0.0, start_unix_us=0), recorder).run()
    events = [_cut(key, value) for key, value in recorder.events]
    return tuple(events), events[-1].time_us + 1000


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
    events, round_us = _recording(seed, rate)
    if start_unix_us is None:
        start_unix_us = time.time_ns() // 1000 - round_us * n_events // len(events)
    for number in range(-(-n_events // len(events))):
        round_id = b"%08x" % number
        origin_us = start_unix_us + number * round_us
        for key, head, time_us, tail in events[: n_events - number * len(events)]:
            yield (
                key.replace(_MARK, round_id),
                b"%b%d%b"
                % (head.replace(_MARK, round_id), origin_us + time_us, tail.replace(_MARK, round_id)),
            )
