"""Imports traces: reads them, orders everything by event time, publishes it at a chosen time and speed.

Everything is held in memory, because a trace is known only when its last span is read and files overlap in
time: about 0.6 kB per item, `Options.max_items` at most.
"""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from connectors.spans.events import Encoder, Event, in_order, time_us
from connectors.spans.model import DEFAULT_OPTIONS, Audit, Options, SpanImportError
from connectors.spans.producer import KafkaSender
from connectors.spans.sources import read_items, unpacked
from connectors.spans.traces import Collected, collect
from schemas.base import YEAR_2100_UNIX_US

DISORDER_US = 10_000_000
"""What is older than this is delivered before an event is sent: left alone, partitions drift hours of event
time apart where events are sparse (measured: 15,419 s with a queue of 20,000 messages)."""
_LONGEST_SLEEP_S = 0.5
_SHORTEST_SLEEP_S = 0.002


@dataclass
class Summary:
    """What an import holds. Times are unix microseconds, as published."""

    events: int = 0
    steps: int = 0
    failed_steps: int = 0
    executions: int = 0
    failed_executions: int = 0
    logs: int = 0
    samples: int = 0
    chains: int = 0
    components: int = 0
    first_unix_us: int = 0
    last_unix_us: int = 0
    files: int = 0
    rows: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Reason -> rows that became no event."""
    repaired: dict[str, int] = field(default_factory=dict)
    """What was mended -> how often."""
    first_seen: dict[str, str] = field(default_factory=dict)
    """Reason -> file and row of its first case."""


class Sender(Protocol):
    """Where events go."""

    def send(self, key: str, value: bytes) -> None:
        """Take one record; may block; raises when an earlier one was not delivered."""

    def flush(self) -> None:
        """Return when everything sent is delivered; raises when something was not."""


class Timeline:
    """An import in memory, in event-time order. `summary` is complete from the start."""

    def __init__(self, collected: Collected, audit: Audit) -> None:
        self._collected = collected
        self._entries = in_order(collected)
        self._shift_us = 0
        self.summary = _summary(collected, audit)
        self.shift(0)

    def shift(self, by_us: int) -> None:
        """Move all times, from where they were read, by microseconds; ValueError outside 1970 to 2100."""
        first, last = time_us(self._entries[0]) + by_us, time_us(self._entries[-1]) + by_us
        if first < 0 or last > YEAR_2100_UNIX_US:
            raise ValueError("shifted events would lie outside 1970 to 2100")
        self._shift_us, self.summary.first_unix_us, self.summary.last_unix_us = by_us, first, last

    def __len__(self) -> int:
        return len(self._entries)

    def events(self) -> Iterator[Event]:
        """Yield (key, time_unix_us, value) in event-time order; may be called again."""
        return Encoder(self._collected.traces, self._collected.options.tenant, self._shift_us).events(self._entries)


def _summary(collected: Collected, audit: Audit) -> Summary:
    spans = [span for trace in collected.traces.values() for span in trace.spans.values()]
    return Summary(
        events=collected.items + 2 * len(collected.traces),
        steps=len(spans),
        failed_steps=sum(span.failed for span in spans),
        executions=len(collected.traces),
        failed_executions=sum(trace.failure is not None for trace in collected.traces.values()),
        logs=len(collected.logs),
        samples=len(collected.samples),
        chains=len({(trace.tenant, trace.chain) for trace in collected.traces.values()}),
        components=len({span.service for span in spans}),
        files=audit.files,
        rows=audit.rows,
        skipped=audit.skipped,
        repaired=audit.repaired,
        first_seen=audit.first_seen,
    )


def load(
    path: str | Path,
    options: Options = DEFAULT_OPTIONS,
    *,
    shift_to_us: int | None = None,
    end_at_us: int | None = None,
) -> Timeline:
    """Read a file, folder or archive whole.

    `shift_to_us` moves all times so that the first event is at that moment, `end_at_us` so that the last one
    is (what is published at once must not lie in the future). Raises SpanImportError.
    """
    if shift_to_us is not None and end_at_us is not None:
        raise SpanImportError(f"{path}: the import can be shifted to begin or to end at a time, not both.")
    audit = Audit(strict=options.strict)
    with unpacked(Path(path)) as folder, _no_garbage_collection():
        try:
            collected = collect(read_items(folder, options, audit), options, audit)
        except OSError as error:
            raise SpanImportError(f"{path}: cannot be read ({error}).") from error
    if not collected.items:
        reasons = ", ".join(f"{count} times {reason}" for reason, count in audit.skipped.items())
        raise SpanImportError(f"{path}: nothing to import{f' ({reasons})' if reasons else ''}.")
    timeline = Timeline(collected, audit)
    try:
        if shift_to_us is not None:
            timeline.shift(shift_to_us - timeline.summary.first_unix_us)
        if end_at_us is not None:
            timeline.shift(end_at_us - timeline.summary.last_unix_us)
    except ValueError as error:
        raise SpanImportError(f"{path}: {error}.") from error
    return timeline


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Nothing that is read is garbage, so looking for it among millions of objects only costs time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_events(
    path: str | Path, options: Options = DEFAULT_OPTIONS, *, shift_to_us: int | None = None
) -> Iterator[Event]:
    """Yield (key, time_unix_us, value) of everything at a path, in event-time order."""
    return load(path, options, shift_to_us=shift_to_us).events()


def paced(
    events: Iterable[Event],
    speed: float | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Yield events when they are due: at `speed` 1.0 as they happened, 2.0 twice as fast, None at once."""
    if speed is None:
        yield from events
        return
    if not speed > 0:
        raise SpanImportError(f"speed {speed} is not above 0.")
    begun_s = first_us = None
    for event in events:
        if begun_s is None or first_us is None:
            begun_s, first_us = clock(), event.time_unix_us
        due_s = begun_s + (event.time_unix_us - first_us) / 1e6 / speed
        while (wait_s := due_s - clock()) > _SHORTEST_SLEEP_S:
            sleep(min(wait_s, _LONGEST_SLEEP_S))
        yield event


def publish_timeline(
    timeline: Timeline, sender: Sender, *, speed: float | None = None, progress: bool = False
) -> Summary:
    """Send all events in time order and wait for their delivery.

    Within a partition the order is exact; between partitions it is off by less than `DISORDER_US`.
    """
    columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("events", total=len(timeline))
        drain_us = timeline.summary.first_unix_us + DISORDER_US
        for number, event in enumerate(paced(timeline.events(), speed), 1):
            if event.time_unix_us >= drain_us:
                sender.flush()
                drain_us = event.time_unix_us + DISORDER_US
            sender.send(event.key, event.value)
            if number % 1000 == 0:
                bar.update(task, completed=number)
        sender.flush()
        bar.update(task, completed=len(timeline))
    return timeline.summary


def import_spans(
    path: str | Path,
    bootstrap_servers: str,
    topic: str,
    options: Options = DEFAULT_OPTIONS,
    *,
    shift_to_us: int | None = None,
    end_at_us: int | None = None,
    speed: float | None = None,
    progress: bool = False,
    producer_config: Mapping[str, Any] | None = None,
) -> Summary:
    """Read a path and publish it to a topic; returns when the broker has everything.

    `producer_config` adds librdkafka settings (security). Raises SpanImportError.
    """
    timeline = load(path, options, shift_to_us=shift_to_us, end_at_us=end_at_us)
    return publish_timeline(
        timeline, KafkaSender(bootstrap_servers, topic, producer_config), speed=speed, progress=progress
    )
