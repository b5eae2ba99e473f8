"""Which records go into which tables, and one face for both databases."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from connectors.clickhouse import ClickHouseSink, Resume
from connectors.postgres import PostgresSink
from connectors.rows import clickhouse as ch
from connectors.rows import postgres as pg
from connectors.rows import traces
from connectors.rows.position import Position
from connectors.settings import Settings
from connectors.telemetry import RETRIES
from schemas import topics
from schemas.analysis import Alert, Anomaly, Incident
from schemas.health import DependencyWindow, HealthWindow
from schemas.internal import TraceBatch
from schemas.operations import RecoveryAction

Records = Sequence[tuple[Position, Any]]
decode_batch: Callable[[bytes], TraceBatch] = msgspec.json.Decoder(TraceBatch).decode


class Store(Protocol):
    """Where the records of one topic are written, each block exactly once."""

    def resume(self, topic: str, partition: int) -> Resume:
        """Return where the partition stands; called on every assignment. Blocks while the database is away."""

    def write(self, topic: str, partition: int, first: int, last: int, records: Records) -> None:
        """Write the block of the records [first..last]; blocks while the database is away, raises when it refuses."""

    def settle(self, topic: str, partition: int) -> None:
        """Note that what was written is complete."""

    def skip(self, topic: str, partition: int, last: int) -> None:
        """Note that what is before `last`, and `last`, will not come any more."""

    def close(self) -> None:
        """Disconnect, and end any waiting."""


class ClickHouseStore:
    """A table of ClickHouse."""

    def __init__(self, sink: ClickHouseSink, columns: Callable[[Records], list[tuple[Any, ...]]]) -> None:
        self._sink = sink
        self._columns = columns
        self.resume, self.settle, self.skip, self.close = sink.resume, sink.settle, sink.skip, sink.close

    def write(self, topic: str, partition: int, first: int, last: int, records: Records) -> None:
        """Insert the rows of a block."""
        self._sink.write(topic, partition, first, last, self._columns(records))


class PostgresStore:
    """Tables of PostgreSQL that one topic fills."""

    def __init__(self, sink: PostgresSink, rows: Callable[[Records], pg.Rows]) -> None:
        self._sink = sink
        self._rows = rows
        self.close = sink.close

    def resume(self, topic: str, partition: int) -> Resume:
        """Return where the partition stands."""
        return Resume(self._sink.resume(topic, partition))

    def write(self, topic: str, partition: int, first: int, last: int, records: Records) -> None:
        """Merge the rows of a block and move the offset, in one transaction."""
        self._sink.write(topic, partition, first, last, self._rows(records))

    def settle(self, topic: str, partition: int) -> None:
        """Nothing to do: rows and offset were committed together."""

    def skip(self, topic: str, partition: int, last: int) -> None:
        """Nothing to do: nothing is ever half written."""


@dataclass(frozen=True)
class Binding:
    """What one topic's records become in one database."""

    topic: topics.Topic
    table: str
    decode: Callable[[bytes], Any]
    open: Callable[[Settings, threading.Event], Store]


def _clickhouse(table: str, names: Sequence[str], columns: Any) -> Callable[[Settings, threading.Event], Store]:
    def open_store(settings: Settings, stop: threading.Event) -> Store:
        sink = ClickHouseSink(
            settings.clickhouse_dsn.get_secret_value(), table, names, database=settings.clickhouse_database, stop=stop,
            on_retry=lambda _: RETRIES.labels(table).inc(),
        )  # fmt: skip
        return ClickHouseStore(sink, columns)

    return open_store


def _postgres(upserts: Sequence[Any], rows: Any) -> Callable[[Settings, threading.Event], Store]:
    def open_store(settings: Settings, stop: threading.Event) -> Store:
        sink = PostgresSink(
            settings.postgres_dsn.get_secret_value(), upserts[0].table, upserts, schema=settings.postgres_schema,
            stop=stop, on_retry=lambda _: RETRIES.labels(upserts[0].table).inc(),
        )  # fmt: skip
        return PostgresStore(sink, rows)

    return open_store


CLICKHOUSE: tuple[Binding, ...] = (
    Binding(topics.TRACES, traces.TRACE_TABLE, decode_batch,
            _clickhouse(traces.TRACE_TABLE, traces.TRACE_COLUMNS, traces.trace_columns)),
    Binding(topics.HEALTH, ch.HEALTH_TABLE, HealthWindow.decode,
            _clickhouse(ch.HEALTH_TABLE, ch.HEALTH_COLUMNS, ch.health_columns)),
    Binding(topics.DEPENDENCIES, ch.DEPENDENCY_TABLE, DependencyWindow.decode,
            _clickhouse(ch.DEPENDENCY_TABLE, ch.DEPENDENCY_COLUMNS, ch.dependency_columns)),
    Binding(topics.ANOMALIES, ch.ANOMALY_TABLE, Anomaly.decode,
            _clickhouse(ch.ANOMALY_TABLE, ch.ANOMALY_COLUMNS, ch.anomaly_columns)),
    Binding(topics.RECOVERY_ACTIONS, ch.RECOVERY_TABLE, RecoveryAction.decode,
            _clickhouse(ch.RECOVERY_TABLE, ch.RECOVERY_COLUMNS, ch.recovery_columns)),
)  # fmt: skip
POSTGRES: tuple[Binding, ...] = (
    Binding(topics.TRACES, pg.EXECUTIONS.table, decode_batch, _postgres((pg.EXECUTIONS,), pg.execution_rows)),
    Binding(topics.HEALTH, pg.METRICS.table, HealthWindow.decode, _postgres((pg.METRICS,), pg.metric_rows)),
    Binding(topics.DEPENDENCIES, pg.DEPENDENCIES.table, DependencyWindow.decode, _postgres((pg.DEPENDENCIES,), pg.dependency_rows)),
    Binding(topics.INCIDENTS, pg.INCIDENTS.table, Incident.decode, _postgres((pg.INCIDENTS,), pg.incident_rows)),
    Binding(topics.ALERTS, pg.ALERTS.table, Alert.decode, _postgres((pg.ALERTS,), pg.alert_rows)),
)  # fmt: skip
BINDINGS = {"clickhouse": CLICKHOUSE, "postgres": POSTGRES}
