"""Records as rows: every value in its column, the same rows every time, nothing that a database refuses."""

from datetime import UTC, datetime

import msgspec
import pytest

from connectors.merging import Upsert
from connectors.rows import clickhouse as ch
from connectors.rows import postgres as pg
from connectors.rows.position import Position, optional_timestamp, timestamp
from connectors.rows.traces import TRACE_COLUMNS, trace_columns
from schemas.analysis import Anomaly, FeatureContribution
from schemas.health import (
    DependencyWindow,
    HealthWindow,
    Histogram,
    OffsetRange,
    ResourceSummary,
)
from schemas.internal import Execution, Step, TraceBatch
from schemas.operations import RecoveryAction

AT = Position("flowchain.traces.v1", 3, 42)
START_US = 1_700_000_000_000_001
WINDOW = HealthWindow(
    id="w1", kind="step", tenant="t", chain="c", step="s", component="k", window_start_unix_us=START_US,
    window_end_unix_us=START_US + 10, revision=2, watermark_unix_us=START_US + 20, events=9, started=4,
    completed=3,
    failed=1, error_ratio=0.25, throughput_per_s=0.4, mean_us=5.0, p50_us=4.0, p95_us=8.0, p99_us=9.0,
    max_us=10,
    durations=Histogram(scale=3, zero_count=1, buckets={"-2": 1, "7": 2}), violations={"step.slow": 1},
    affected_executions=1, affected_sample=["e1"], cpu_us=11, io_wait_us=12, memory_max_bytes=13,
    broker_mean_us=1.5,
    broker_max_us=14, resources={"cpu_ratio": ResourceSummary(count=2, mean=0.5, max=0.7)},
    sources=[OffsetRange(topic="e", partition=0, first_offset=5, last_offset=6)],
)  # fmt: skip
EDGE = DependencyWindow(
    id="d1", tenant="t", chain="c", kind="call", source="a", target="b", window_start_unix_us=START_US,
    window_end_unix_us=START_US + 10, revision=0, count=2, failed=1, latency_mean_us=1.5, latency_max_us=2,
)  # fmt: skip
ANOMALY = Anomaly(
    id="a1", tenant="t", chain="c", step="s", component="k", window_start_unix_us=START_US,
    window_end_unix_us=START_US + 10, score=0.9, threshold=0.5, direction="higher", learned_windows=100,
    features=[FeatureContribution(feature="p99_us", detector="novelty", value=9.0, contribution=1.0)],
    detectors_version="1",
)  # fmt: skip
ACTION = RecoveryAction(
    id="r1", command="m", incident="i", tenant="t", component="k", strategy="restart", status="running",
    revision=1,
    time_unix_us=START_US,
)  # fmt: skip
STEP = Step(
    "span1", "s", "k", 7, attempt=2, parents=[("span0", "", "j")], status="failed", start_us=START_US,
    end_us=START_US + 9,
    duration_us=9, error_type="Timeout", error_message="no\x00answer", topic="orders", topic_offset=8,
    broker_us=3,
)  # fmt: skip
EXECUTION = Execution(
    "t", "c", "e1", 5, 9, user="u", tier="pro", status="failed", start_us=START_US, last_us=START_US + 9,
    duration_us=9,
    error_type="Timeout", error_message="no\x00answer", steps={"span1": STEP}, missing=["x\x00"],
    violations=2, revision=1,
)  # fmt: skip
BATCH = TraceBatch("flowchain.events.v1", 3, START_US, [EXECUTION, EXECUTION])


def rows(names: tuple[str, ...], columns: list[tuple[object, ...]]) -> list[dict[str, object]]:
    assert len(names) == len(columns) == len(set(names))
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def upserted(upsert: Upsert, found: pg.Rows) -> list[dict[str, object]]:
    assert set(upsert.key) | set(upsert.revision) <= set(upsert.columns)
    return [dict(zip(upsert.columns, row, strict=True)) for row in found[upsert.table]]


def test_health_window() -> None:
    row = rows(ch.HEALTH_COLUMNS, ch.health_columns([(AT, WINDOW)]))[0]
    assert row["window_start"] == START_US
    assert row["watermark"] == START_US + 20
    assert (row["durations_scale"], row["durations_zero"], row["durations_buckets"]) == (3, 1, {-2: 1, 7: 2})
    assert row["resources"] == [("cpu_ratio", 2, 0.5, 0.7)]
    assert row["sources"] == [("e", 0, 5, 6)]
    assert (row["source_topic"], row["source_partition"], row["source_offset"]) == AT
    plain = {"id", "kind", "tenant", "chain", "step", "component", "revision", "events", "started",
    "completed", "failed",
             "error_ratio", "throughput_per_s", "mean_us", "p50_us", "p95_us", "p99_us", "max_us",
             "violations",
             "affected_executions", "affected_sample", "cpu_us", "io_wait_us", "memory_max_bytes",
             "broker_mean_us",
             "broker_max_us"}  # fmt: skip
    assert {name: row[name] for name in plain} == {name: getattr(WINDOW, name) for name in plain}


def test_dependency_window() -> None:
    row = rows(ch.DEPENDENCY_COLUMNS, ch.dependency_columns([(AT, EDGE)]))[0]
    same = set(row) & set(type(EDGE).model_fields)
    assert {name: row[name] for name in same} == {name: getattr(EDGE, name) for name in same}
    assert len(
        same
    ) == 12
    assert row["window_end"] == START_US + 10


def test_anomaly() -> None:
    row = rows(ch.ANOMALY_COLUMNS, ch.anomaly_columns([(AT, ANOMALY)]))[0]
    assert row["features"] == [("p99_us", "novelty", 9.0, None, 1.0)]
    assert (row["id"], row["score"], row["direction"], row["window_start"]) == ("a1", 0.9, "higher", START_US)


def test_recovery_action() -> None:
    row = rows(ch.RECOVERY_COLUMNS, ch.recovery_columns([(AT, ACTION)]))[0]
    assert (row["id"], row["status"], row["revision"], row["time"]) == ("r1", "running", 1, START_US)


def test_a_trace_batch_gives_each_execution_followed_by_its_steps() -> None:
    found = rows(TRACE_COLUMNS, trace_columns([(AT, BATCH), (AT._replace(offset=43), BATCH)]))
    assert [row["record_kind"] for row in found] == ["execution", "step"] * 4
    assert [(row["source_offset"], row["source_row"]) for row in found] == [
        (o, r) for o in (42, 43) for r in range(4)
    ]
    execution, step = found[:2]
    assert (execution["steps"], execution["steps_failed"], execution["span"], execution["revision"]) == (
        1,
        1,
        "",
        1,
    )
    assert (execution["event_first_offset"], execution["event_last_offset"]) == (5, 9)
    assert (step["span"], step["attempt"], step["user"], step["tier"], step["revision"]) == (
        "span1",
        2,
        "u",
        "pro",
        1,
    )
    assert (step["event_topic"], step["event_partition"], step["event_first_offset"]) == (
        "flowchain.events.v1",
        3,
        7,
    )
    assert (step["consumed_topic"], step["consumed_offset"], step["parents"]) == (
        "orders",
        8,
        [("span0", "", "j")],
    )


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (ch.health_columns([]), ch.HEALTH_COLUMNS),
        (trace_columns([]), TRACE_COLUMNS),
        (trace_columns([(AT, TraceBatch("e", 0, 1, []))]), TRACE_COLUMNS),
    ],
)
def test_no_records_give_empty_columns(columns: list[tuple[object, ...]], names: tuple[str, ...]) -> None:
    assert columns == [()] * len(names)


def test_the_same_bytes_give_the_same_rows() -> None:
    copy = msgspec.json.decode(msgspec.json.encode(BATCH), type=TraceBatch)
    assert trace_columns([(AT, copy)]) == trace_columns([(AT, BATCH)])
    assert pg.execution_rows([(AT, copy)]) == pg.execution_rows([(AT, BATCH)])


def test_execution_row_holds_nothing_that_postgresql_refuses() -> None:
    row = upserted(pg.EXECUTIONS, pg.execution_rows([(AT, BATCH)]))[0]
    assert (row["error_message"], row["missing_steps"]) == ("no\ufffdanswer", ["x\ufffd"])
    assert (row["steps"], row["steps_completed"], row["steps_failed"]) == (1, 0, 1)
    assert row["started_at"] == datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=UTC)
    assert row["ended_at"] is None


def test_metric_row() -> None:
    row = upserted(pg.METRICS, pg.metric_rows([(AT, WINDOW)]))[0]
    assert (row["window_start"], row["revision"], row["p99_us"]) == (timestamp(START_US), 2, 9.0)
    assert (row["violations"], row["resources"]) == (
        '{"step.slow":1}',
        '{"cpu_ratio":{"count":2,"mean":0.5,"max":0.7}}',
    )


def test_execution_belongs_to_the_day_it_began_on_or_was_last_heard_of() -> None:
    def day(start_us: int, last_us: int) -> str:
        execution = Execution("t", "c", "e", 0, 0, start_us=start_us, last_us=last_us)
        return str(upserted(pg.EXECUTIONS, pg.execution_rows([(AT, TraceBatch("e", 0, 1, [execution]))]))[0]["started_on"])

    evening = 86_400_000_000 - 1
    assert (day(evening, evening + 1), day(0, evening + 1), day(0, 0)) == ("1970-01-01", "1970-01-02", "1970-01-01")


def test_times_are_exact_to_the_microsecond() -> None:
    last = 4_102_444_799_999_999
    assert timestamp(last).microsecond == 999_999
    assert timestamp(last).year == 2099
    assert optional_timestamp(0) is None
