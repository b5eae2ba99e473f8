"""What PostgreSQL holds of a run, in the terms of the oracle."""

from collections.abc import Iterable, Iterator
from operator import attrgetter, itemgetter
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from infra.verification.compare import Record, Tally, compare_one, pack
from infra.verification.published import Ends
from infra.verification.truth import Executions
from infra.verification.windows import Series, Truth
from schemas.analysis import Alert, Incident
from schemas.internal import COMPLETED, FAILED, Execution
from streams.ids import derived_id

EXECUTION = {
    "chain": "chain", "chain_version": "chain_version", "user": "user_id", "tier": "tier", "component": "component",
    "status": "status", "start_us": "started_at", "last_us": "last_event_at", "ended_us": "ended_at",
    "duration_us": "duration_us", "error_type": "error_type", "error_message": "error_message", "steps": "steps",
    "steps_completed": "steps_completed", "steps_failed": "steps_failed", "pending": "steps_pending",
    "missing": "missing_steps", "violations": "violations", "revision": "revision",
}  # fmt: skip
"""Field of an execution -> column."""
WINDOW = (
    "kind", "tenant", "chain", "step", "component", "events", "started", "completed", "failed", "error_ratio",
    "throughput_per_s", "mean_us", "p50_us", "p95_us", "p99_us", "max_us", "violations", "affected_executions", "cpu_us",
    "io_wait_us", "memory_max_bytes", "broker_mean_us", "resources",
)  # fmt: skip
DEPENDENCY = ("events", "failed", "latency_mean_us", "first_seen_at", "last_seen_at")
TIMES = ("started_at", "last_event_at", "ended_at", "window_start", "window_end", "first_seen_at", "last_seen_at")


def compare_executions(
    connection: psycopg.Connection, schema: str, topic: str, partition: int, end: int, truth: Executions, tally: Tally
) -> None:
    """Hold the rows of one source partition against the executions that truly finished in it."""
    seen = set()
    names = {_text(tenant, execution): (tenant, execution) for tenant, execution in truth.keys_of_runs}
    columns = ("tenant", "execution", *EXECUTION.values(), "source_offset")
    own = sql.SQL("source_topic = {} AND source_partition = {}").format(sql.Literal(topic), sql.Literal(partition))
    _note_superseded(connection, schema, own, tally)
    where = sql.SQL(_NEWEST).format(own=own, table=sql.Identifier(schema, "flow_executions"))
    for row in _rows(connection, schema, "flow_executions", columns, where):
        stored = (row["tenant"], row["execution"])
        name = names.get(stored, stored)
        seen.add(name)
        if row["source_offset"] >= end or not truth.is_settled(*name):
            tally.open += 1
            continue
        runs = truth.runs(*name)
        wanted = pack(execution_row(runs[-1])) if runs else None
        compare_one(tally, name, wanted, pack({field: row[column] for field, column in EXECUTION.items()}))
    for name in truth.keys_of_runs:
        if name not in seen and truth.is_settled(*name):
            compare_one(tally, name, pack(execution_row(truth.runs(*name)[-1])), None)


_NEWEST = """{own} AND NOT EXISTS (
    SELECT FROM {table} AS newer
    WHERE newer.tenant = flow_executions.tenant AND newer.execution = flow_executions.execution
    AND (newer.revision, newer.source_offset) > (flow_executions.revision, flow_executions.source_offset))"""
"""An execution id that was used again more than a day later has a row for each time."""


def _note_superseded(connection: psycopg.Connection, schema: str, own: sql.Composable, tally: Tally) -> None:
    """Count what a later revision on the next day should have replaced."""
    table = sql.Identifier(schema, "flow_executions")
    query = sql.SQL(
        "SELECT tenant, execution, later.started_on::text FROM (SELECT * FROM {table} WHERE {own}) AS later JOIN {table} AS earlier "
        "USING (tenant, execution) WHERE later.started_on = earlier.started_on + 1"
    )
    for tenant, execution, day in connection.execute(query.format(table=table, own=own)):
        tally.note("duplicated", f"{tenant} {execution}", "started_on", "one day", day)


def execution_row(x: Execution) -> Record:
    """Return the row of an execution; PostgreSQL takes no character NUL."""
    statuses = [step.status for step in x.steps.values()]
    counts = {
        "steps": len(statuses), "steps_completed": statuses.count(COMPLETED), "steps_failed": statuses.count(FAILED),
    }  # fmt: skip
    row = {field: getattr(x, field, None) for field in EXECUTION} | counts
    return {field: _without_nul(value) for field, value in row.items()}


def compare_newest_windows(
    connection: psycopg.Connection, schema: str, topic: str, ends: Ends, truth: Truth, tally: Tally
) -> None:
    """Hold the newest window of every series against what it truly is."""
    newest: dict[Series, Record] = {}
    for window in truth.closed.values():
        series = (window["tenant"], window["chain"], window["step"], window["component"])
        known = newest.get(series)
        if known is None or window["window_start_unix_us"] > known["window_start_unix_us"]:
            newest[series] = window
    columns = (*WINDOW, "window_start", "window_end", "source_partition", "source_offset")
    for row in _rows(connection, schema, "flow_metrics", columns, sql.SQL("source_topic = {}").format(sql.Literal(topic))):
        series = (row["tenant"], row["chain"], row["step"], row["component"])
        wanted = newest.pop(series, None)
        start_us = wanted["window_start_unix_us"] if wanted else 0
        ident = derived_id(*series, row["window_start"])
        found = {name: row[name] for name in WINDOW} | {
            "window_start_unix_us": row["window_start"], "window_end_unix_us": row["window_end"],
        }  # fmt: skip
        newer = row["window_start"] > start_us and (ident in truth.open or (series in truth.series and not row["events"]))
        if row["source_offset"] >= ends.get(row["source_partition"], 0) or newer or (wanted is None and ident in truth.open):
            tally.open += 1
        else:
            compare_one(tally, series, _only(wanted, found), pack(found))
    for series, window in newest.items():
        compare_one(tally, series, pack(window), None)


def compare_dependencies(
    connection: psycopg.Connection, schema: str, topic: str, ends: Ends, closed: Iterable[Record], tally: Tally
) -> None:
    """Hold the observed dependencies against the closed windows of each: its newest, and since when it is known."""
    wanted: dict[tuple[str, ...], Record] = {}
    for window in sorted(closed, key=itemgetter("window_start_unix_us")):
        key = _text(*(window[name] for name in ("tenant", "kind", "chain", "source", "target", "topic")))
        first = wanted[key]["first_seen_at"] if key in wanted else window["window_start_unix_us"]
        wanted[key] = {
            "events": window["count"], "failed": window["failed"], "latency_mean_us": window["latency_mean_us"],
            "first_seen_at": first, "last_seen_at": window["window_end_unix_us"],
        }  # fmt: skip
    columns = ("tenant", "kind", "flow", "source", "target", "topic", *DEPENDENCY, "source_partition", "source_offset")
    own = sql.SQL("provenance = 'observed' AND source_topic = {}").format(sql.Literal(topic))
    for row in _rows(connection, schema, "flow_dependencies", columns, own):
        key = tuple(row[name] for name in columns[:6])
        window = wanted.pop(key, {})
        if row["source_offset"] >= ends.get(row["source_partition"], 0) or row["last_seen_at"] > window.get("last_seen_at", 0):
            tally.open += 1
        else:
            compare_one(tally, key, pack(window), pack({name: row[name] for name in DEPENDENCY}))
    for key, window in wanted.items():
        compare_one(tally, key, pack(window), None)


def compare_conclusions(
    connection: psycopg.Connection, schema: str, table: str, topic: str, ends: Ends, published: Iterable[Alert | Incident], tally: Tally
) -> None:
    """Hold the incidents or alerts of a table against the newest revision of each that was published."""
    newest = {(record.tenant, record.id): record for record in sorted(published, key=attrgetter("revision"))}
    wanted = {_text(*key): _without_nul(record.model_dump(mode="json")) for key, record in newest.items()}
    columns = ("tenant", "id", "document", "source_partition", "source_offset")
    for row in _rows(connection, schema, table, columns, sql.SQL("source_topic = {}").format(sql.Literal(topic))):
        key: tuple[str, ...] = (row["tenant"], row["id"])
        record = wanted.pop(key, None)
        if row["source_offset"] >= ends.get(row["source_partition"], 0):
            tally.open += 1
        else:
            compare_one(tally, key, None if record is None else pack(record), pack(row["document"]))
    for key, lost in wanted.items():
        compare_one(tally, key, pack(lost), None)


def _only(wanted: Record | None, found: Record) -> bytes | None:
    """Return of a window what the table holds of it."""
    return None if wanted is None else pack({name: wanted[name] for name in found})


def _rows(
    connection: psycopg.Connection, schema: str, table: str, columns: tuple[str, ...], where: sql.Composable
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, times in µs since 1970, 0 where there is none."""
    chosen = sql.SQL(", ").join(_column(name) for name in columns)
    query = sql.SQL("SELECT {} FROM {} WHERE {}").format(chosen, sql.Identifier(schema, table), where)
    with connection.cursor(name="verify", row_factory=dict_row) as cursor:
        cursor.itersize = 10_000
        yield from cursor.execute(query)


def _column(name: str) -> sql.Composable:
    if name not in TIMES:
        return sql.Identifier(name)
    return sql.SQL("coalesce((extract(epoch FROM {0}) * 1000000)::bigint, 0) AS {0}").format(sql.Identifier(name))


def _without_nul(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else value


def _text(*parts: str) -> tuple[str, ...]:
    return tuple(map(_without_nul, parts))
