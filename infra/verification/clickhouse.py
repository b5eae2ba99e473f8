"""What ClickHouse holds of a run, in the terms of the oracle."""

from collections.abc import Iterator, Mapping
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from typing import Any

from clickhouse_driver import Client  # type: ignore[import-untyped]

from infra.verification.compare import Found, Tally, compare_one, pack
from infra.verification.published import Ends
from infra.verification.truth import Executions
from schemas.internal import FAILED, Execution

OF_EXECUTION = {
    "start_us": "toUnixTimestamp64Micro(start_time)", "ended_us": "toUnixTimestamp64Micro(end_time)",
    "first_offset": "event_first_offset", "last_offset": "event_last_offset", "pending": "steps_pending",
    **{name: name for name in ("component", "status", "duration_us", "error_type", "error_message", "missing", "violations")},
}  # fmt: skip
"""Field of an execution -> what it is in its row."""
COUNTED = {"steps": "steps", "steps_failed": "steps_failed"}
OF_STEP = {
    "start_us": "toUnixTimestamp64Micro(start_time)", "end_us": "toUnixTimestamp64Micro(end_time)",
    "offset": "event_first_offset", "topic": "consumed_topic", "topic_partition": "consumed_partition",
    "topic_offset": "consumed_offset",
    **{name: name for name in ("component", "status", "duration_us", "error_type", "error_message", "step", "attempt", "cpu_us",
                               "memory_bytes", "io_wait_us", "parents", "broker_us", "logs")},
}  # fmt: skip
"""Field of a step -> what it is in its row."""
IN_BOTH = {
    "finished_us": "toUnixTimestamp64Micro(finished_watermark)",
    **{name: name for name in ("chain_version", "user", "tier", "revision")},
}
"""Field of an execution -> what it is in its row and those of its steps."""
KINDS = {"execution": {**OF_EXECUTION, **COUNTED, **IN_BOTH}, "step": {**OF_STEP, **IN_BOTH}}
of_execution, of_step, in_both = (attrgetter(*fields) for fields in (OF_EXECUTION, OF_STEP, IN_BOTH))
WINDOW = (
    "kind", "tenant", "chain", "step", "component", "events", "started", "completed", "failed", "error_ratio",
    "throughput_per_s", "mean_us", "p50_us", "p95_us", "p99_us", "max_us", "durations_zero", "violations",
    "affected_executions", "affected_sample", "cpu_us", "io_wait_us", "memory_max_bytes", "broker_mean_us", "broker_max_us",
)  # fmt: skip
DEPENDENCY = ("tenant", "chain", "kind", "source", "target", "topic", "count", "failed", "latency_mean_us", "latency_max_us")
ANOMALY = ("id", "revision", "tenant", "chain", "step", "component", "score", "threshold", "direction", "learned_windows", "detectors_version")
REASON = ("feature", "detector", "value", "expected", "contribution")
KEY = ("tenant", "execution", "chain", "record_kind", "span")
Row = tuple[Any, ...]
"""In the order of the fields of its kind."""
Rows = dict[tuple[str, str, str], Row]
"""Rows of one execution by (chain, record kind, span)."""


def compare_executions(
    server: Client, topic: str, partition: int, end: int, truth: Executions, executions: Tally, steps: Tally
) -> None:
    """Hold the rows of one source partition against the executions that truly finished in it."""
    tallies = {"execution": executions, "step": steps}
    seen = set()
    for (tenant, execution), found, moved_on in _rows_by_execution(server, topic, partition, end):
        seen.add((tenant, execution))
        if moved_on or not truth.is_settled(tenant, execution):
            executions.open += 1
            continue
        wanted = expected_rows(truth.runs(tenant, execution))
        for key in wanted.keys() | found.keys():
            _compare_row(tallies[key[1]], (tenant, execution, *key), wanted.get(key), found.get(key))
    for name in truth.keys_of_runs:
        if name not in seen and truth.is_settled(*name):
            for key, row in expected_rows(truth.runs(*name)).items():
                _compare_row(tallies[key[1]], (*name, *key), row, None)


def _compare_row(tally: Tally, key: tuple[str, ...], wanted: Row | None, found: Row | None) -> None:
    if wanted is not None and wanted == found:  # nearly always: packing them would cost more than all the rest
        tally.expected += 1
        tally.found += 1
    else:
        compare_one(tally, key, _packed(key[3], wanted), _packed(key[3], found))


def _packed(kind: str, row: Row | None) -> bytes | None:
    return None if row is None else pack(dict(zip(KINDS[kind], row, strict=True)))


def expected_rows(runs: list[Execution]) -> Rows:
    """Return the rows that stay of runs of one name by (chain, record kind, span): a later run replaces an earlier one's."""
    rows: Rows = {}
    for x in runs:
        failed = sum(step.status == FAILED for step in x.steps.values())
        shared = in_both(x)
        rows[x.chain, "execution", ""] = (*of_execution(x), len(x.steps), failed, *shared)
        for span, step in x.steps.items():
            rows[x.chain, "step", span] = (*of_step(step), *shared)
    return rows


def _rows_by_execution(
    server: Client, topic: str, partition: int, end: int
) -> Iterator[tuple[tuple[str, str], Rows, bool]]:
    """Yield ((tenant, execution), its rows, whether one of them came later than what was compared)."""
    columns = list(dict.fromkeys([*KEY, "source_offset", *chain.from_iterable(fields.values() for fields in KINDS.values())]))
    pick = {kind: itemgetter(*map(columns.index, fields.values())) for kind, fields in KINDS.items()}
    chosen = ", ".join(f"{column} AS c{number}" for number, column in enumerate(columns))
    rows = server.execute_iter(
        f"SELECT {chosen} FROM chain_execution_traces FINAL WHERE source_topic = %(topic)s AND source_partition = %(partition)s "
        "ORDER BY tenant, execution, chain, record_kind, span",
        {"topic": topic, "partition": partition},
    )
    for name, group in groupby(rows, key=lambda row: (row[0], row[1])):
        found: Rows = {}
        moved_on = False
        for row in group:
            moved_on = moved_on or row[5] >= end
            found[row[2], row[3], row[4]] = pick[row[3]](row)
        yield name, found, moved_on


def windows(server: Client, topic: str, ends: Ends, found: Found) -> set[str]:
    """Read the newest revision of every health window; return the ids of those that came later than what is compared."""
    columns = (*WINDOW, "toUnixTimestamp64Micro(window_start)", "toUnixTimestamp64Micro(window_end)", "durations_buckets",
               "resources", "id", "revision", "source_partition", "source_offset")  # fmt: skip
    later = set()
    for row in server.execute_iter(
        f"SELECT {', '.join(columns)} FROM chain_health_metrics FINAL WHERE source_topic = %(topic)s", {"topic": topic}
    ):
        start_us, end_us, buckets, resources, ident, revision, partition, offset = row[len(WINDOW) :]
        record = dict(zip(WINDOW, row, strict=False)) | {
            "window_start_unix_us": start_us, "window_end_unix_us": end_us, "durations": {str(bucket): count for bucket, count in buckets.items()},
            "resources": {name: {"count": count, "mean": mean, "max": largest} for name, count, mean, largest in resources},
        }  # fmt: skip
        found.add(ident, (revision,), pack(record))
        if offset >= ends.get(partition, 0):
            later.add(ident)
    return later


def dependencies(server: Client, topic: str, ends: Ends, found: Found) -> set[str]:
    """Read the newest revision of every dependency window; return the ids of those that came later than what is compared."""
    columns = ("id", "revision", "source_partition", "source_offset", "toUnixTimestamp64Micro(window_start)",
               "toUnixTimestamp64Micro(window_end)", *DEPENDENCY)  # fmt: skip
    later = set()
    for row in server.execute_iter(
        f"SELECT {', '.join(columns)} FROM chain_dependency_events FINAL WHERE source_topic = %(topic)s", {"topic": topic}
    ):
        ident, revision, partition, offset, start_us, end_us, *values = row
        record = dict(zip(DEPENDENCY, values, strict=True))
        found.add(ident, (revision,), pack({**record, "window_start_unix_us": start_us, "window_end_unix_us": end_us}))
        if offset >= ends.get(partition, 0):
            later.add(ident)
    return later


def anomalies(server: Client, topic: str, ends: Ends, found: Found) -> set[str]:
    """Read the newest revision of every anomaly; return the ids of those that came later than what is compared."""
    columns = ("source_partition", "source_offset", "toUnixTimestamp64Micro(window_start)", "toUnixTimestamp64Micro(window_end)",
               "arrayMap(f -> (f.feature, f.detector, f.value, f.expected, f.contribution), features)", *ANOMALY)  # fmt: skip
    later = set()
    for row in server.execute_iter(f"SELECT {', '.join(columns)} FROM chain_anomalies FINAL WHERE source_topic = %(topic)s", {"topic": topic}):
        partition, offset, start_us, end_us, features, *values = row
        record = dict(zip(ANOMALY, values, strict=True))
        reasons = [dict(zip(REASON, feature, strict=True)) for feature in features]
        found.add(record["id"], (record["revision"],), pack({**record, "window_start_unix_us": start_us, "window_end_unix_us": end_us, "features": reasons}))
        if offset >= ends.get(partition, 0):
            later.add(record["id"])
    return later


REPEATED: Mapping[str, str] = {
    "chain_execution_traces": "source_partition, source_offset, source_row",
    "chain_health_metrics": "source_partition, source_offset",
    "chain_dependency_events": "source_partition, source_offset",
    "chain_anomalies": "source_partition, source_offset",
}
"""What a row of a table came from: one row each."""


def repeated_rows(server: Client, table: str, topic: str, tally: Tally) -> None:
    """Count the rows that are there more than once, merged or not: FINAL would hide them."""
    source = REPEATED[table]
    tally.expected, tally.found = server.execute(
        f"SELECT uniqExact({source}), count() FROM {table} WHERE source_topic = %(topic)s", {"topic": topic}
    )[0]
    rows: list[tuple[Any, ...]] = server.execute(
        f"SELECT {source}, count() AS rows FROM {table} WHERE source_topic = %(topic)s GROUP BY {source} HAVING rows > 1 "
        "ORDER BY rows DESC LIMIT 5", {"topic": topic}
    )  # fmt: skip
    for *where, count in rows:
        tally.note("duplicated", f"{table} {source} = {tuple(where)}", "rows", 1, count)
    tally.duplicated = tally.found - tally.expected
