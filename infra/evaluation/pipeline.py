"""The product's stages in memory: chain events in, what the impact stage remembers out. No Kafka, no database, no clock."""

from collections.abc import Callable, Iterable
from itertools import groupby

from connectors.spans import Event
from schemas.internal import Partial
from streams.analysis import Analysis, AnalysisSettings
from streams.events import ClockTick, decode_chunk
from streams.rootcause.base import Scene
from streams.rules import RuleBook
from streams.tracker import Tracker

TOPIC = "flowchain.events.v1"
TENANT = "default"
TRANSACTION_US = 1_000_000
"""Event time per transaction of ingest; the analysis sees the same however that is chosen."""
FLUSH_US = 1_000_000
"""Silence after the last event, so that its slice of event time is over."""
Saved = dict[str, bytes]


class Pipeline:
    """Ingest and analysis of one source partition. Raises ValueError for an event that ingest refuses."""

    def __init__(self, settings: AnalysisSettings | None = None, saved: Saved | None = None) -> None:
        """`saved`: the analysis of another pipeline, as a restarted worker finds it."""
        settings = settings or AnalysisSettings()
        self._tracker = Tracker(TOPIC, 0, RuleBook(), settings.limits)
        self.analysis = Analysis(settings)
        self.alerts: list[int] = []
        """Event time at which each incident was first alerted."""
        self._offset = 0
        for key, value in (saved or {}).items():
            self.analysis.restore(key, value)

    def run(self, events: Iterable[Event], each: Callable[[int], None] = lambda _: None) -> None:
        """Take events in order of time; `each` is told every event time (µs) that was reached, about once a second."""
        at_us = 0
        for _, group in groupby(events, lambda event: event.time_unix_us // TRANSACTION_US):
            batch = list(group)
            at_us = batch[-1].time_unix_us
            decoded = decode_chunk([event.value for event in batch])
            offsets = list(range(self._offset, self._offset + len(batch)))
            refused = self._tracker.apply(decoded.events, offsets, [event.time_unix_us for event in batch])
            if refused:
                raise ValueError(f"ingest refused an event: {refused[0][1]}")
            self._offset += len(batch)
            self._commit()
            each(at_us)
        self._tracker.apply([ClockTick(at_us + FLUSH_US)], [self._offset], [at_us + FLUSH_US])
        self._offset += 1
        self._commit()

    def _commit(self) -> None:
        slices = self._tracker.take().slices
        partial = Partial(TOPIC, 0, self._tracker.watermark_us, self._offset, slices)
        for findings in self.analysis.apply(partial):
            self.alerts += [findings.watermark_us for alert in findings.alerts if alert.revision == 0]

    @property
    def scene(self) -> Scene:
        """What the root-cause readers may look at now."""
        return self.analysis.impact.scene(TENANT)

    def save(self) -> Saved:
        """Return the state of the analysis."""
        return {key: value for key, value in self.analysis.changes() if value is not None}
