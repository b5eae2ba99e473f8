"""One source partition: what truly happened in it, held against the executions that were published and stored of it.

Partitions have nothing to do with each other up to here, so each may be worked on in a process of its own; what they
led to in windows, edges and violations goes back, to be added up.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from clickhouse_driver import Client  # type: ignore[import-untyped]

from connectors.clickhouse import client
from connectors.definitions import read_definitions
from connectors.log import read_range
from connectors.settings import Settings
from infra.verification import clickhouse, postgres, published
from infra.verification.compare import Found, Tally, compare, pack
from infra.verification.edges import EdgeWindows
from infra.verification.oracle import Oracle
from infra.verification.progress import Snapshot
from infra.verification.truth import Executions
from infra.verification.windows import Book
from schemas import topics
from streams.events import decode_chunk
from streams.rules import RuleBook

CHUNK = 500
"""A chunk with a bad record in it is decoded record by record."""
GC_ALLOCATIONS = 200_000
KINDS = ("executions", "clickhouse executions", "clickhouse steps", "postgres executions")


@dataclass
class Truth:
    """What truly happened in one source partition, as far as others add to it."""

    number: int
    book: Book
    edges: EdgeWindows = field(default_factory=dict)
    watermark_us: int = 0
    """As of the last commit; 0 without events."""
    dead: dict[tuple[int, int], str] = field(default_factory=dict)
    """Stage of refusal by offset, and by which event of that record."""
    violations: list[tuple[str, bytes, bool]] = field(default_factory=list)
    """(id, record as it is compared, whether what it follows from is committed)"""
    tallies: dict[str, Tally] = field(default_factory=lambda: {kind: Tally(kind) for kind in KINDS})
    counts: Counter[str] = field(default_factory=Counter)


def check_partition(settings: Settings, at: Snapshot, number: int) -> Truth:
    """Fold one partition and compare its executions; raises the errors of Kafka and of the databases."""
    gc.set_threshold(GC_ALLOCATIONS, 50, 100)  # what is kept are trees: there is nothing to find
    truth = Truth(number, Book(settings.limits))
    oracle = _fold(settings, at, truth)
    executions = Executions(oracle, at.committed.get(number, 0))
    ends = at.outputs[topics.TRACES.name]
    found = Found(truth.tallies["executions"], once=True)
    published.executions(settings, number, ends, found)
    compare(truth.tallies["executions"], executions, found.newest, executions.unsettled)
    _compare_stored(settings, truth, executions, ends[number])
    return truth


def _compare_stored(settings: Settings, truth: Truth, executions: Executions, end: int) -> None:
    topic, tallies = settings.topic(topics.TRACES.name), truth.tallies
    server: Client = client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database)
    with server, psycopg.connect(settings.postgres_dsn.get_secret_value()) as connection:
        clickhouse.compare_executions(
            server, topic, truth.number, end, executions, tallies["clickhouse executions"], tallies["clickhouse steps"]
        )
        postgres.compare_executions(
            connection, settings.postgres_schema, topic, truth.number, end, executions, tallies["postgres executions"]
        )


def _fold(settings: Settings, at: Snapshot, truth: Truth) -> Oracle:
    """Go through the log of a partition and keep what came of it."""
    number, name = truth.number, settings.topic(topics.EVENTS.name)
    committed, rules = at.committed.get(number, 0), RuleBook(read_definitions(settings), settings.max_definitions)
    oracle = Oracle(name, number, rules, settings.limits, truth.book, truth.edges, committed)
    for chunk in _chunks(_records(settings, name, number, *at.events[number])):
        decoded = decode_chunk([value for _, _, value in chunk])
        for (offset, broker_us, _), event in zip(decoded.spread(chunk), decoded.events, strict=True):
            oracle.apply(offset, broker_us, event)
    oracle.end()
    truth.counts.update({**oracle.counts, "dead_letters": len(oracle.dead), "open_executions": len(oracle.open)})
    truth.watermark_us, truth.dead = oracle.committed_watermark_us, oracle.dead
    for offset, violation in oracle.violations:
        record = pack(published.violation_record(violation))
        truth.violations.append((violation.id, record, offset < committed))
    return oracle


def _records(settings: Settings, topic: str, number: int, low: int, end: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield (offset, broker time in µs, value) of what the log holds of a partition."""
    if low < end:
        for message in read_range(settings, topic, number, low, end):
            yield message.offset() or 0, message.timestamp()[1] * 1000, message.value()


def _chunks(records: Iterator[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    yield chunk
