"""How fast the API answers over many trace rows, each question beside the bare query over the same connection settings."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg import sql

from connectors.clickhouse import client
from connectors.http.clickhouse import text_of
from connectors.settings import Settings
from infra.bench.figures import spread
from infra.bench.loading import Tell
from infra.bench.machine import machine
from infra.bench.processes import BenchError
from infra.bench.serving import served

TENANT, CHAINS, STEPS_PER_EXECUTION = "acme", 40, 9
SPAN_S = 7 * 86_400
"""The rows lie in the week before now."""
DAY_US = 86_400_000_000
CHUNK = 250_000
COUNTED_WITHIN_S = 600
STORED = 200_000
"""Executions in PostgreSQL: what status look-ups find."""
BARE_PARAMETERS: dict[str, Any] = {
    "tenant": TENANT, "chain": "", "step": "", "component": "", "kind": "", "tier": "", "limit": 101, "score": 0.0, "after_us": -1, "after_id": "",
    "after_kind": "", "after_chain": "", "after_step": "", "after_component": "",
}  # fmt: skip


def fill(settings: Settings, rows: int, tell: Tell) -> tuple[int, int]:
    """Write so many trace rows of `TENANT`, and windows and edges of the same week; return (start, end) in µs."""
    end_us = time.time_ns() // 1000
    start_us = end_us - SPAN_S * 1_000_000
    executions = rows // (STEPS_PER_EXECUTION + 1)
    with client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database) as server:
        for first in range(0, executions, CHUNK):
            count = min(CHUNK, executions - first)
            values = {"first": first, "count": count, "all": executions, "start": start_us, "span": SPAN_S * 1_000_000, "chains": CHAINS, "tenant": TENANT}
            server.execute(_EXECUTIONS, values)
            server.execute(_STEPS, {**values, "steps": STEPS_PER_EXECUTION})
            tell("trace rows", (first + count) * (STEPS_PER_EXECUTION + 1), rows)
        for query in (_HEALTH, _EDGES):
            server.execute(query, {"start": start_us, "chains": CHAINS, "steps": STEPS_PER_EXECUTION, "minutes": SPAN_S // 60, "tenant": TENANT})
    with psycopg.connect(settings.postgres_dsn.get_secret_value(), autocommit=True) as connection:
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(settings.postgres_schema)))
        weeks = "SELECT ensure_flow_executions(array_agg(day::date)) FROM generate_series(now() - interval '8 days', now(), interval '1 day') AS day"
        connection.execute(weeks)
        connection.execute(_STORED, {"start": start_us, "span": SPAN_S * 1_000_000, "count": STORED, "chains": CHAINS, "tenant": TENANT})
        connection.execute("ANALYZE flow_executions")
    return start_us, end_us


def measure(settings: Settings, home: Path, rows: int, requests: int, tell: Tell) -> dict[str, Any]:
    """Return quantiles of the times of analysis and of status look-ups, in ms, and the bare queries' beside them."""
    start_us, end_us = fill(settings, rows, tell)
    _counted(settings, tell)
    with (
        served(settings, home, TENANT) as (port, key),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=60) as http,
    ):
        analysis = {name: _asked(http, path, requests, tell, name) for name, path in _analysis(start_us, end_us).items()}
        status = {name: _asked(http, path, requests, tell, name) for name, path in STATUS.items()}
    bare = {name: _bare(settings, name, start_us, end_us, max(5, requests // 5), tell) for name in QUERIES}
    for name, found in bare.items():
        analysis[name] |= {"bare_p50_ms": found["p50"], "ratio_p50": round(analysis[name]["p50"] / max(found["p50"], 0.001), 2)}
    return {
        "trace_rows": rows, "stored_executions": STORED, "requests": requests, "analysis_ms": analysis, "status_ms": status,
        "analysis_p99_ms": max(x["p99"] for x in analysis.values()), "status_p99_ms": max(x["p99"] for x in status.values()), "machine": machine(),
    }  # fmt: skip


QUERIES = ("trace", "health_history", "edges", "most_used_chains", "chain_trends", "failing_steps", "resource_use", "slow_steps")
STATUS = {
    "execution": "/v1/executions/e1000", "health": "/v1/health", "newest metrics": "/v1/metrics/newest", "alerts": "/v1/alerts",
    "executions of a chain": "/v1/executions?chain=chain-7&limit=20", "me": "/v1/me",
}  # fmt: skip
_EXECUTION = "e1000"


def _analysis(start_us: int, end_us: int) -> dict[str, str]:
    """Return the questions by name: over the whole week, the last day of single windows and runs, and one execution."""
    last_day, week = _moment(end_us - DAY_US), _moment(start_us)
    return {
        "trace": f"/v1/executions/{_EXECUTION}/trace", "diagram": f"/v1/executions/{_EXECUTION}/diagram?format=svg",
        "health_history": f"/v1/health/history?kind=chain&step_s=3600&since={last_day}", "edges": f"/v1/dependencies?since={week}",
        "impact": f"/v1/components/component-3/impact?since={week}", "anomalies": f"/v1/anomalies?since={week}",
        "most_used_chains": f"/v1/business/most-used-chains?since={week}", "chain_trends": f"/v1/business/chain-trends?bucket_s=3600&since={week}",
        "failing_steps": f"/v1/business/failing-steps?since={week}", "resource_use": f"/v1/business/resource-use?since={week}",
        "slow_steps": f"/v1/business/slowest-runs?chain=chain-7&since={last_day}",
    }  # fmt: skip


def _counted(settings: Settings, tell: Tell) -> None:
    """Wait until ClickHouse has counted what was written; it does so every minute, once a quarter has been quiet for one."""
    with client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database) as server:
        for waited in range(COUNTED_WITHIN_S):
            ((left,),) = server.execute(_UNCOUNTED)
            tell("seconds until all is counted", waited, COUNTED_WITHIN_S)
            if not left:
                return
            time.sleep(1)
    raise BenchError(f"ClickHouse has not counted {left} hours and quarters within {COUNTED_WITHIN_S} s")


def _moment(unix_us: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_us / 1e6))


def _asked(http: httpx.Client, path: str, requests: int, tell: Tell, name: str) -> dict[str, Any]:
    def ask() -> None:
        answer = http.get(path)
        if answer.status_code != httpx.codes.OK:
            raise BenchError(f"{path} was answered with {answer.status_code}: {answer.text[:300]}")

    return _timed(ask, requests, tell, name)


def _bare(settings: Settings, name: str, start_us: int, end_us: int, times: int, tell: Tell) -> dict[str, Any]:
    since = end_us - DAY_US if name in ("health_history", "slow_steps") else start_us
    values = BARE_PARAMETERS | {"since_us": since, "until_us": end_us, "execution": _EXECUTION, "step_us": 3_600_000_000}
    values |= {"kind": "chain"} if name == "health_history" else {"chain": "chain-7"} if name == "slow_steps" else {}
    with client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database) as server:
        return _timed(lambda: server.execute(text_of(name), values), times, tell, f"{name}, bare")


def _timed(act: Callable[[], object], times: int, tell: Tell, name: str) -> dict[str, Any]:
    act()  # connections and caches
    took: list[float] = []
    for number in range(times):
        began = time.perf_counter()
        act()
        took.append((time.perf_counter() - began) * 1000)
        tell(name, number + 1, times)
    return spread(took)




_UNCOUNTED = """
SELECT (SELECT count() FROM (SELECT tenant, quarter FROM trace_quarters EXCEPT DISTINCT SELECT tenant, quarter FROM trace_use_counted WHERE record_kind = ''))
    + (SELECT count() FROM (SELECT tenant, hour FROM dependency_hours EXCEPT DISTINCT SELECT tenant, hour FROM dependency_use_counted WHERE kind = ''))"""
_EXECUTIONS = """
INSERT INTO chain_execution_traces (record_kind, tenant, chain, chain_version, execution, user, tier, status, start_time, end_time, duration_us, steps, revision,
    source_offset, inserted_at)
SELECT 'execution', %(tenant)s, concat('chain-', toString(n %% %(chains)s)), '1', concat('e', toString(n)), concat('u', toString(n %% 1000)), 'pro',
    if(n %% 50 = 0, 'failed', 'completed'), fromUnixTimestamp64Micro(toInt64(%(start)s + intDiv(n * %(span)s, %(all)s)), 'UTC') AS start, start,
    50000 + n %% 1000, 9, 1, n, now()
FROM (SELECT number + %(first)s AS n FROM numbers(%(count)s))"""
_STEPS = """
INSERT INTO chain_execution_traces (record_kind, tenant, chain, chain_version, execution, span, step, component, user, tier, status, attempt, start_time, end_time,
    duration_us, cpu_us, revision, source_offset, inserted_at)
SELECT 'step', %(tenant)s, concat('chain-', toString(n %% %(chains)s)), '1', concat('e', toString(n)), concat('s', toString(k)), concat('step-', toString(k)),
    concat('component-', toString((n + k) %% 20)), concat('u', toString(n %% 1000)), 'pro', if(n %% 50 = 0 AND k = 8, 'failed', 'completed'), 1,
    fromUnixTimestamp64Micro(toInt64(%(start)s + intDiv(n * %(span)s, %(all)s) + k * 5000), 'UTC') AS start, start, 5000 + n %% 700, 900 + n %% 300, 1, n, now()
FROM (SELECT number + %(first)s AS n FROM numbers(%(count)s)) ARRAY JOIN range(%(steps)s) AS k"""
_HEALTH = """
INSERT INTO chain_health_metrics (id, kind, tenant, chain, step, component, window_start, window_end, revision, events, completed, failed, mean_us, p95_us, p99_us,
    source_offset, inserted_at)
SELECT concat(toString(c), '-', toString(m)), 'chain', %(tenant)s, concat('chain-', toString(c)), '', '',
    fromUnixTimestamp64Micro(toInt64(%(start)s + m * 60000000), 'UTC') AS start, start + INTERVAL 10 SECOND, 0, 100, 50, 1, 50000, 51000, 52000, m, now()
FROM (SELECT number AS m FROM numbers(%(minutes)s)) ARRAY JOIN range(%(chains)s) AS c"""
_EDGES = """
INSERT INTO chain_dependency_events (id, tenant, chain, kind, source, target, topic, window_start, window_end, revision, count, failed, latency_mean_us,
    latency_max_us, source_offset, inserted_at)
SELECT concat(toString(k), '-', toString(m)), %(tenant)s, concat('chain-', toString(k)), 'flow', concat('component-', toString(k %% 20)),
    concat('component-', toString((k + 1 + intDiv(k, 20)) %% 20)), '', fromUnixTimestamp64Micro(toInt64(%(start)s + m * 600000000), 'UTC') AS start,
    start + INTERVAL 10 SECOND, 0, 100, 1, 5000, 9000, m, now()
FROM (SELECT number AS m FROM numbers(intDiv(%(minutes)s, 10))) ARRAY JOIN range(%(chains)s) AS k"""
_STORED = """
INSERT INTO flow_executions (tenant, execution, chain, chain_version, user_id, tier, component, status, started_at, last_event_at, ended_at, duration_us, error_type,
    error_message, steps, steps_completed, steps_failed, steps_pending, missing_steps, violations, revision, source_topic, source_partition, source_offset, started_on)
SELECT %(tenant)s, 'e' || n, 'chain-' || n %% %(chains)s, '1', 'u' || n %% 1000, 'pro', 'component-1', 'completed', moment, moment, moment, 50000, '', '', 9, 9, 0, 0,
    '{}', 0, 1, 'bench', 0, n, (moment AT TIME ZONE 'UTC')::date
FROM (SELECT n, to_timestamp((%(start)s + n::numeric * %(span)s / %(count)s) / 1000000) AS moment FROM generate_series(0, %(count)s - 1) AS n) AS made"""
