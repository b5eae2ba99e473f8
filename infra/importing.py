"""Imported traces through the whole pipeline: under a topic prefix of their own, on workers of their own."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from confluent_kafka import Producer

from agents.ingest_output import publish_tick
from connectors.alerts import newest_alerts
from connectors.log import partitions_held
from connectors.settings import Settings
from connectors.spans import Summary, Timeline, publish_timeline
from connectors.spans.producer import KafkaSender
from infra.counting import clickhouse_counts, counted_events
from schemas.analysis import Alert
from schemas.topics import EVENTS

POLL_S = 2.0
PATIENCE_S = 20.0
"""Beyond the time that a window takes to close: nothing new for so long means that nothing more will come."""


class ImportRefused(Exception):
    """The import cannot be done, in one sentence."""


@dataclass(frozen=True)
class Imported:
    """What was read, and what became of it."""

    summary: Summary
    events_counted: int
    executions_clickhouse: int
    steps_clickhouse: int
    alerts: list[Alert]

    @property
    def complete(self) -> bool:
        """Whether every event is counted, and every span and trace has its row."""
        read = self.summary
        return (
            self.events_counted == read.events
            and self.executions_clickhouse == read.executions
            and self.steps_clickhouse == read.steps
        )

    def document(self) -> dict[str, Any]:
        """Return what a program would want to know."""
        return {
            **asdict(self.summary),
            "events_counted": self.events_counted,
            "executions_clickhouse": self.executions_clickhouse,
            "steps_clickhouse": self.steps_clickhouse,
            "complete": self.complete,
            "alerts": [a.model_dump(mode="json", exclude_none=True) for a in self.alerts],
        }


def refuse_used_topic(settings: Settings) -> None:
    """Raise ImportRefused when the prefix was used: events older than what a topic holds would be late there."""
    topic = settings.topic(EVENTS.name)
    if any(low < high for low, high in partitions_held(settings, topic).values()):
        raise ImportRefused(f"{topic} holds records already: old events would be late there; give another --prefix")


def publish(settings: Settings, timeline: Timeline, *, speed: float | None, progress: bool) -> Summary:
    """Publish traces, logs and samples that were read to the events topic of the settings' prefix."""
    topic = settings.topic(EVENTS.name)
    config = {name: value for name, value in settings.kafka().items() if name != "bootstrap.servers"}
    sender = KafkaSender(settings.bootstrap_servers, topic, config)
    summary = publish_timeline(timeline, sender, speed=speed, progress=progress)
    _tick_all(settings, topic, summary.last_unix_us)
    return summary


def _tick_all(settings: Settings, topic: str, time_us: int) -> None:
    """Bring every partition's clock to the end: one whose last record is hours older would hold the windows back."""
    producer = Producer(settings.kafka())
    for partition in producer.list_topics(topic, timeout=30).topics[topic].partitions:
        publish_tick(producer, topic, partition, time_us)
    producer.flush(30)


def follow(settings: Settings, summary: Summary, tell: Callable[[str], None]) -> Imported:
    """Wait until the pipeline has nothing left to do with what was published; return what came of it."""
    expected = (summary.events, summary.executions, summary.steps)
    patience_s = settings.window_s + settings.lateness_s + PATIENCE_S
    now, changed = (0, 0, 0), time.monotonic()
    while now != expected and time.monotonic() - changed < patience_s:
        time.sleep(POLL_S)
        before, now = now, (counted_events(settings), *clickhouse_counts(settings))
        if now != before:
            changed = time.monotonic()
            tell(f"{now[0]:,} of {summary.events:,} events counted, {now[1]:,} executions in ClickHouse")
    return Imported(summary, *now, newest_alerts(settings))
