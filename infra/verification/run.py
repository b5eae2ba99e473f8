"""Holds everything that a run has published and stored against what its log truly says."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from clickhouse_driver import Client  # type: ignore[import-untyped]

from connectors.clickhouse import client
from connectors.definitions import read_definitions
from connectors.log import read_range
from connectors.settings import Settings
from infra.verification import clickhouse, conclusions, postgres, published
from infra.verification.compare import Found, Tally, compare, compare_all, pack
from infra.verification.edges import EdgeWindows, conclude_edges
from infra.verification.oracle import Oracle
from infra.verification.progress import Snapshot
from infra.verification.truth import Executions
from infra.verification.windows import Book, Truth, conclude
from schemas import topics
from schemas.analysis import Alert, Anomaly, Incident
from streams.events import decode_chunk
from streams.ids import derived_id
from streams.rules import RuleBook

CHUNK = 10_000
KINDS = (
    "executions", "windows", "dependencies", "violations", "dead letters", "anomalies", "incidents", "alerts", "clickhouse executions",
    "clickhouse steps", "clickhouse windows", "clickhouse dependencies", *clickhouse.REPEATED, "postgres executions", "postgres newest windows",
)  # fmt: skip
"""What is compared, in the order in which it is shown; a table's name stands for its rows, each of which may be there once."""


@dataclass
class Report:
    """How a run came out."""

    tallies: dict[str, Tally] = field(default_factory=lambda: {kind: Tally(kind) for kind in KINDS})
    counts: Counter[str] = field(default_factory=Counter)
    """Of the log: records, events, ticks, duplicates, open executions, open windows."""

    @property
    def right(self) -> bool:
        """Whether everything is as it must be."""
        return all(tally.right for tally in self.tallies.values())

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        tallies = self.tallies.values()
        return {
            "lost": sum(t.missing for t in tallies), "duplicated": sum(t.duplicated for t in tallies),
            "different": sum(t.different + t.extra for t in tallies), **self.counts,
            "kinds": {t.kind: t.document() for t in tallies},
        }  # fmt: skip


class Verification:
    """One comparison. `run` reads the log one source partition after the other, so that memory is bound by the largest."""

    def __init__(self, settings: Settings, at: Snapshot, tell: Callable[[str], None]) -> None:
        """`tell` is told what is being done."""
        self.report = Report()
        self._settings, self._at, self._tell = settings, at, tell
        self._events = settings.topic(topics.EVENTS.name)
        self._rules = RuleBook(read_definitions(settings), settings.max_definitions)
        self._book = Book(settings.limits)
        self._edges: EdgeWindows = {}
        self._watermarks: list[int] = []
        self._violations: dict[str, Counter[bytes]] = {}
        self._unsettled: set[str] = set()
        """Violations that follow from what is not committed."""

    def run(self) -> Report:
        """Return how everything came out; raises the errors of Kafka and of the databases."""
        letters = Found(self._tally("dead letters"), once=True)
        published.dead_letters(self._settings, letters)
        with self._clickhouse() as server, psycopg.connect(self._settings.postgres_dsn.get_secret_value()) as connection:
            refused: dict[tuple[int, int], bytes] = {}
            for partition in sorted(self._at.events):
                refused |= self._partition(partition, server, connection)
            later = {key for key in refused.keys() | letters.newest.keys() if key[1] >= self._at.committed.get(key[0], 0)}
            compare(self._tally("dead letters"), refused, letters.newest, later)
            truth = conclude(self._book.windows, self._watermarks, self._settings.limits)
            self.report.counts["open_windows"] = len(truth.open)
            self._windows(truth, server, connection)
            self._dependencies(server)
            self._rows(server)
        self._said(truth)
        self._concluded()
        return self.report

    def _tally(self, kind: str) -> Tally:
        return self.report.tallies[kind]

    def _clickhouse(self) -> Any:
        server: Client = client(self._settings.clickhouse_dsn.get_secret_value(), self._settings.clickhouse_database)
        return server

    # -- one source partition -------------------------------------------------------------------------------------

    def _partition(self, partition: int, server: Client, connection: psycopg.Connection) -> dict[tuple[int, int], bytes]:
        """Compare what one source partition led to; return what had to be refused."""
        self._tell(f"reading partition {partition} of {self._events}")
        committed = self._at.committed.get(partition, 0)
        oracle = Oracle(self._events, partition, self._rules, self._settings.limits, self._book, self._edges, committed)
        self._fold(oracle, partition)
        self._tell(f"comparing the executions of partition {partition}")
        truth = Executions(oracle, committed)
        topic, ends = self._settings.topic(topics.TRACES.name), self._at.outputs[topics.TRACES.name]
        found = Found(self._tally("executions"), once=True)
        published.executions(self._settings, partition, ends, found)
        compare(self._tally("executions"), truth, found.newest, truth.unsettled)
        clickhouse.compare_executions(
            server, topic, partition, ends[partition], truth, self._tally("clickhouse executions"),
            self._tally("clickhouse steps"),
        )  # fmt: skip
        postgres.compare_executions(
            connection, self._settings.postgres_schema, topic, partition, ends[partition], truth,
            self._tally("postgres executions"),
        )  # fmt: skip
        stages = oracle.dead.items()
        return {(partition, offset): pack({"topic": self._events, "stage": stage}) for offset, stage in stages}

    def _fold(self, oracle: Oracle, partition: int) -> None:
        for chunk in _chunks(self._records(partition)):
            events = decode_chunk([value for _, _, value in chunk])
            for (offset, broker_us, _), event in zip(chunk, events, strict=True):
                oracle.apply(offset, broker_us, event)
        oracle.end()
        self.report.counts.update({**oracle.counts, "dead_letters": len(oracle.dead), "open_executions": len(oracle.open)})
        if oracle.committed_watermark_us:
            self._watermarks.append(oracle.committed_watermark_us)
        for offset, violation in oracle.violations:
            said = self._violations.setdefault(violation.id, Counter())
            said[pack(published.violation_record(violation))] += 1
            if offset >= self._at.committed.get(partition, 0):
                self._unsettled.add(violation.id)

    def _records(self, partition: int) -> Iterator[tuple[int, int, bytes | None]]:
        """Yield (offset, broker time in µs, value) of what the log holds of a partition."""
        low, end = self._at.events[partition]
        if low < end:
            for message in read_range(self._settings, self._events, partition, low, end):
                yield message.offset() or 0, message.timestamp()[1] * 1000, message.value()

    # -- over all partitions --------------------------------------------------------------------------------------

    def _windows(self, truth: Truth, server: Client, connection: psycopg.Connection) -> None:
        self._tell("comparing the health windows")
        wanted = {ident: pack(window) for ident, window in truth.closed.items()}
        ends, topic = self._at.outputs[topics.HEALTH.name], self._settings.topic(topics.HEALTH.name)

        def is_empty(window: Mapping[str, Any]) -> bool:
            series = tuple(window[name] for name in ("tenant", "chain", "step", "component"))
            return series in truth.series and not (window["events"] or window["completed"] or window["failed"])

        found = Found(self._tally("windows"), once=False)
        published.windows(self._settings, ends, found)
        compare(self._tally("windows"), wanted, found.newest, truth.open, is_empty)
        stored = Found(self._tally("clickhouse windows"), once=True)
        later = clickhouse.windows(server, topic, ends, stored)
        compare(self._tally("clickhouse windows"), wanted, stored.newest, truth.open | later, is_empty)
        postgres.compare_newest_windows(
            connection, self._settings.postgres_schema, topic, ends, truth, self._tally("postgres newest windows")
        )

    def _dependencies(self, server: Client) -> None:
        closed, still_open = conclude_edges(self._edges, self._watermarks, self._settings.limits)
        wanted = {ident: pack(edge) for ident, edge in closed.items()}
        ends, topic = self._at.outputs[topics.DEPENDENCIES.name], self._settings.topic(topics.DEPENDENCIES.name)
        found = Found(self._tally("dependencies"), once=False)
        published.dependencies(self._settings, ends, found)
        compare(self._tally("dependencies"), wanted, found.newest, still_open)
        stored = Found(self._tally("clickhouse dependencies"), once=True)
        later = clickhouse.dependencies(server, topic, ends, stored)
        compare(self._tally("clickhouse dependencies"), wanted, stored.newest, still_open | later)

    def _rows(self, server: Client) -> None:
        names = {"chain_execution_traces": topics.TRACES, "chain_health_metrics": topics.HEALTH,
                 "chain_dependency_events": topics.DEPENDENCIES, "chain_anomalies": topics.ANOMALIES}  # fmt: skip
        for table, topic in names.items():
            tally = self._tally(table)
            clickhouse.repeated_rows(server, table, self._settings.topic(topic.name), tally)

    def _said(self, truth: Truth) -> None:
        self._tell("comparing the violations")
        for violation in truth.violations:
            self._violations[violation.id] = Counter([pack(published.violation_record(violation))])
        said = published.violations(self._settings, self._at.outputs[topics.VIOLATIONS.name])
        self._unsettled |= _of_unsure_windows(said, truth)
        compare_all(
            self._tally("violations"), self._violations, said, self._unsettled,
            lambda violation: violation["type"] in published.MAY_REPEAT,
        )  # fmt: skip

    def _concluded(self) -> None:
        self._tell("checking anomalies, incidents and alerts")
        alerts, incidents, anomalies = (
            list(published.models(self._settings, topic, self._at.outputs[topic.name], model))
            for topic, model in ((topics.ALERTS, Alert), (topics.INCIDENTS, Incident), (topics.ANOMALIES, Anomaly))
        )
        conclusions.check(self._tally("anomalies"), anomalies, self._events, self._at.events)
        known = conclusions.check(self._tally("incidents"), incidents, self._events, self._at.events)
        conclusions.check(self._tally("alerts"), alerts, self._events, self._at.events)
        conclusions.check_incidents_of(self._tally("alerts"), alerts, known)


def _of_unsure_windows(said: Mapping[str, Counter[bytes]], truth: Truth) -> set[str]:
    """Return what was said of windows that are not compared, or that showed something else when they closed."""
    unsure = truth.open | truth.revised
    ids = {derived_id(kind, ident) for kind in ("error_rate.exceeded", "clock.ahead") for ident in unsure}
    return ids & said.keys()


def _chunks(records: Iterator[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    yield chunk
