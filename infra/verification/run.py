"""Holds everything that a run has published and stored against what its log truly says."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any

import psycopg
from clickhouse_driver import Client  # type: ignore[import-untyped]

from connectors.clickhouse import client
from connectors.settings import Settings
from connectors.tenants import read_tenants
from infra.verification import clickhouse, conclusions, postgres, published
from infra.verification.compare import Found, Tally, compare, compare_all, pack
from infra.verification.edges import EdgeWindows, conclude_edges, merge_edges
from infra.verification.limits import Wanted, limit_of
from infra.verification.partition import Truth as PartitionTruth
from infra.verification.partition import check_partition
from infra.verification.progress import Snapshot
from infra.verification.windows import Book, Truth, conclude
from schemas import topics
from schemas.analysis import Alert, Anomaly, Incident
from schemas.slo import SloStatus
from schemas.tenants import LimitReached
from streams.ids import derived_id

WORTH_PROCESSES = 200_000
"""Records."""
Place = tuple[int, int, int]
"""(partition, offset, which event of that record)"""
KINDS = (
    "executions", "windows", "dependencies", "violations", "dead letters", "anomalies", "incidents", "alerts", "limits", "clickhouse executions",
    "clickhouse steps", "clickhouse windows", "clickhouse dependencies", "clickhouse anomalies", *clickhouse.REPEATED, "postgres executions",
    "postgres newest windows", "postgres dependencies", "postgres incidents", "postgres alerts",
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
    """One comparison. Source partitions are worked on one by one, as many at once as there are processors: memory is
    bound by the largest ones.
    """

    def __init__(self, settings: Settings, at: Snapshot, tell: Callable[[str], None]) -> None:
        """`tell` is told what is being done."""
        self.report = Report()
        self._settings, self._at, self._tell = settings, at, tell
        self._events = settings.topic(topics.EVENTS.name)
        self._book = Book(settings.limits)
        self._edges: EdgeWindows = {}
        self._watermarks: list[int] = []
        self._violations: dict[str, Counter[bytes]] = {}
        self._unsettled: set[str] = set()
        """Violations that follow from what is not committed."""
        self._refused: dict[Place, bytes] = {}

    def run(self) -> Report:
        """Return how everything came out; raises the errors of Kafka and of the databases."""
        self._tell(f"reading {sum(end - low for low, end in self._at.events.values()):,} records of {self._events}")
        for truth in self._partitions():
            self._add(truth)
        self._dead_letters()
        with self._clickhouse() as server, psycopg.connect(self._settings.postgres_dsn.get_secret_value()) as connection:
            truth_of_all = conclude(self._book.windows, self._watermarks, self._settings.limits)
            self.report.counts["open_windows"] = len(truth_of_all.open)
            self._windows(truth_of_all, server, connection)
            self._dependencies(server, connection)
            self._rows(server)
            self._concluded(server, connection)
        self._said(truth_of_all)
        self._limits(truth_of_all)
        return self.report

    def _tally(self, kind: str) -> Tally:
        return self.report.tallies[kind]

    def _clickhouse(self) -> Any:
        server: Client = client(self._settings.clickhouse_dsn.get_secret_value(), self._settings.clickhouse_database)
        return server

    # -- source partitions ----------------------------------------------------------------------------------------

    def _partitions(self) -> Iterator[PartitionTruth]:
        """Yield what truly happened in each; a short log is not worth further processes."""
        numbers = sorted(self._at.events, key=lambda number: -self._at.events[number][1])
        check = partial(check_partition, self._settings, self._at)
        if sum(end for _, end in self._at.events.values()) < WORTH_PROCESSES:
            yield from map(check, numbers)
            return
        workers = min(len(numbers), os.cpu_count() or 1)
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            for future in as_completed([pool.submit(check, number) for number in numbers]):
                yield future.result()

    def _add(self, truth: PartitionTruth) -> None:
        """Add what one partition led to."""
        self._tell(f"partition {truth.number}: {truth.counts['records']:,} records, {truth.tallies['executions'].expected:,} executions compared")
        self._book.add(truth.book)
        merge_edges(self._edges, truth.edges)
        self.report.counts.update(truth.counts)
        self._watermarks += [truth.watermark_us] if truth.watermark_us else []
        for ident, record, is_committed in truth.violations:
            self._violations.setdefault(ident, Counter())[record] += 1
            if not is_committed:
                self._unsettled.add(ident)
        for place, stage in truth.dead.items():
            self._refused[truth.number, *place] = pack({"topic": self._events, "stage": stage})
        for kind, tally in truth.tallies.items():
            self._tally(kind).add(tally)

    def _dead_letters(self) -> None:
        letters = Found(self._tally("dead letters"), once=True)
        published.dead_letters(self._settings, letters)
        keys = self._refused.keys() | letters.newest.keys()
        later = {key for key in keys if key[1] >= self._at.committed.get(key[0], 0)}
        compare(self._tally("dead letters"), self._refused, letters.newest, later)

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

    def _dependencies(self, server: Client, connection: psycopg.Connection) -> None:
        closed, still_open = conclude_edges(self._edges, self._watermarks, self._settings.limits)
        wanted = {ident: pack(edge) for ident, edge in closed.items()}
        ends, topic = self._at.outputs[topics.DEPENDENCIES.name], self._settings.topic(topics.DEPENDENCIES.name)
        found = Found(self._tally("dependencies"), once=False)
        published.dependencies(self._settings, ends, found)
        compare(self._tally("dependencies"), wanted, found.newest, still_open)
        stored = Found(self._tally("clickhouse dependencies"), once=True)
        later = clickhouse.dependencies(server, topic, ends, stored)
        compare(self._tally("clickhouse dependencies"), wanted, stored.newest, still_open | later)
        postgres.compare_dependencies(
            connection, self._settings.postgres_schema, topic, ends, closed.values(), self._tally("postgres dependencies")
        )

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

    def _limits(self, truth: Truth) -> None:
        tenants = read_tenants(self._settings)
        wanted = Wanted(self._book.windows, truth.open, tenants, self._settings.limits)
        found = Found(self._tally("limits"), once=False)
        for record in published.models(self._settings, topics.LIMITS, self._at.outputs[topics.LIMITS.name], LimitReached):
            found.add(record.id, (record.revision,), pack(limit_of(record)))
            if record.allowed != getattr(tenants.find(record.tenant)[1], record.limit):
                wanted.unsettled.add(record.id)  # said of another tier
        compare(self._tally("limits"), {ident: pack(one) for ident, one in wanted.records.items()}, found.newest, wanted.unsettled)

    def _concluded(self, server: Client, connection: psycopg.Connection) -> None:
        self._tell("checking anomalies, incidents and alerts")
        alerts, incidents, anomalies = (
            list(published.models(self._settings, topic, self._at.outputs[topic.name], model))
            for topic, model in ((topics.ALERTS, Alert), (topics.INCIDENTS, Incident), (topics.ANOMALIES, Anomaly))
        )
        conclusions.check(self._tally("anomalies"), anomalies, self._events, self._at.events)
        known = conclusions.check(self._tally("incidents"), incidents, self._events, self._at.events)
        conclusions.check(self._tally("alerts"), alerts, self._events, self._at.events)
        slos = {status.id for status in published.models(self._settings, topics.SLO, self._at.outputs[topics.SLO.name], SloStatus)}
        conclusions.check_incidents_of(self._tally("alerts"), alerts, known, slos)
        self._stored_anomalies(server, anomalies)
        for kind, topic, table, records in (("incidents", topics.INCIDENTS, "flow_incidents", incidents), ("alerts", topics.ALERTS, "flow_alerts", alerts)):
            postgres.compare_conclusions(
                connection, self._settings.postgres_schema, table, self._settings.topic(topic.name), self._at.outputs[topic.name],
                records, self._tally(f"postgres {kind}"),
            )  # fmt: skip

    def _stored_anomalies(self, server: Client, anomalies: list[Anomaly]) -> None:
        said, stored = Found(self._tally("clickhouse anomalies"), once=False), Found(self._tally("clickhouse anomalies"), once=True)
        for anomaly in anomalies:
            said.add(anomaly.id, (anomaly.revision,), pack(anomaly.model_dump(mode="json")))
        topic = topics.ANOMALIES.name
        later = clickhouse.anomalies(server, self._settings.topic(topic), self._at.outputs[topic], stored)
        compare(self._tally("clickhouse anomalies"), said.newest, stored.newest, later)


def _of_unsure_windows(said: Mapping[str, Counter[bytes]], truth: Truth) -> set[str]:
    """Return what was said of windows that are not compared, or that showed something else when they closed."""
    unsure = truth.open | truth.revised
    ids = {derived_id(kind, ident) for kind in ("error_rate.exceeded", "clock.ahead") for ident in unsure}
    return ids & said.keys()
