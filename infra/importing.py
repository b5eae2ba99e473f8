"""Imported traces through the whole pipeline: under a topic prefix of their own, on workers of their own."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from agents.ingest_output import publish_tick
from connectors.clickhouse import client
from connectors.log import partitions_held, read_topic
from connectors.settings import Settings
from connectors.spans import Options, Summary, import_spans
from infra.demo import counted_events
from infra.supervisor import Supervisor, wait_until_ready, workers
from schemas.analysis import Alert
from schemas.topics import ALERTS, EVENTS, TRACES

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


def publish(
    settings: Settings, path: Path, options: Options, *, shift: bool, speed: float | None, progress: bool
) -> Summary:
    """Publish a path's traces, logs and samples to the events topic of the settings' prefix."""
    topic = settings.topic(EVENTS.name)
    config = {name: value for name, value in settings.kafka().items() if name != "bootstrap.servers"}
    summary = import_spans(
        path, settings.bootstrap_servers, topic, options, end_at_us=time.time_ns() // 1000 if shift else None,
        speed=speed, progress=progress, producer_config=config,
    )  # fmt: skip
    _tick_all(settings, topic, summary.last_unix_us)
    return summary


def _tick_all(settings: Settings, topic: str, time_us: int) -> None:
    """Bring every partition's clock to the end: one whose last record is hours older would hold the windows back."""
    producer = Producer(settings.kafka())
    for partition in producer.list_topics(topic, timeout=30).topics[topic].partitions:
        publish_tick(producer, topic, partition, time_us)
    producer.flush(30)


@contextmanager
def own_workers(settings: Settings, home: Path) -> Iterator[Supervisor]:
    """Run workers on the settings' prefix until the block ends."""
    environment = {
        "FLOWCHAIN_TOPIC_PREFIX": settings.topic_prefix,
        "FLOWCHAIN_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "FLOWCHAIN_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "FLOWCHAIN_CLICKHOUSE_DSN": settings.clickhouse_dsn.get_secret_value(),
    }
    with workers(home, environment) as supervisor:
        late = wait_until_ready(supervisor)
        if late:
            raise ImportRefused(f"not ready: {', '.join(late)}; their logs are in {home / 'logs'}")
        yield supervisor


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


def clickhouse_counts(settings: Settings) -> tuple[int, int]:
    """Return (executions, steps) of the settings' prefix that have a row in ClickHouse."""
    server = client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database)
    query = (
        "SELECT uniqExactIf((tenant, execution), record_kind = 'execution'), "
        "uniqExactIf((tenant, execution, span), record_kind = 'step') "
        "FROM chain_execution_traces WHERE source_topic = %(topic)s"
    )
    executions, steps = server.execute(query, {"topic": settings.topic(TRACES.name)})[0]
    server.disconnect()
    return executions, steps


def newest_alerts(settings: Settings) -> list[Alert]:
    """Return the newest revision of every alert, by the time of its first fault."""
    newest: dict[str, Alert] = {}
    for message in read_topic(settings, settings.topic(ALERTS.name)):
        alert = Alert.decode(message.value() or b"")
        newest[alert.id] = alert
    return sorted(newest.values(), key=lambda alert: (alert.first_fault_unix_us, alert.id))
