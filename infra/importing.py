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
from connectors.lag import group_lag
from connectors.log import offsets_held, read_range, reader
from connectors.settings import Settings
from connectors.spans import Options, Summary, import_spans
from infra.demo import counted_events
from infra.supervisor import Supervisor, wait_until_ready, workers
from schemas.analysis import Alert
from schemas.topics import ALERTS, EVENTS, TRACES

SETTLED_POLLS = 3
"""So many times in a row nothing may have changed before the pipeline is taken to be done."""


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


def publish(
    settings: Settings, path: Path, options: Options, *, shift: bool, speed: float | None, progress: bool
) -> Summary:
    """Publish a path's traces, logs and samples to the events topic of the settings' prefix."""
    topic = settings.topic(EVENTS.name)
    if _records(settings, topic):
        raise ImportRefused(f"{topic} holds records already: old events would be late there; give another --prefix")
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
    before = (0, 0, 0)
    calm = 0
    while calm < SETTLED_POLLS:
        time.sleep(3.0)
        lag = sum(row["lag"] for row in group_lag(settings) if "ingest" in row["group"] or "analysis" in row["group"])
        executions, steps = clickhouse_counts(settings)
        counted = counted_events(settings)
        now = (counted, executions, steps)
        tell(f"{counted:,} of {summary.events:,} events counted, {executions:,} executions in ClickHouse")
        done = counted == summary.events and executions == summary.executions and steps == summary.steps
        # Ticks keep the topics moving, so the lag never stays at nothing: it is small once all is read.
        calm = calm + 1 if done or (now == before and lag < 1_000) else 0
        before = now
        if done:
            break
    return Imported(summary, *before, newest_alerts(settings))


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
    topic = settings.topic(ALERTS.name)
    newest: dict[str, Alert] = {}
    for partition, low in _lows(settings, topic).items():
        for message in read_range(settings, topic, partition, low):
            alert = Alert.decode(message.value() or b"")
            newest[alert.id] = alert
    return sorted(newest.values(), key=lambda alert: (alert.first_fault_unix_us, alert.id))


def _lows(settings: Settings, topic: str) -> dict[int, int]:
    consumer = reader(settings)
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    lows = {p: offsets_held(consumer, topic, p)[0] for p in partitions}
    consumer.close()
    return lows


def _records(settings: Settings, topic: str) -> int:
    consumer = reader(settings)
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    held = [offsets_held(consumer, topic, p) for p in partitions]
    consumer.close()
    return sum(high - low for low, high in held)

