"""The whole pipeline as processes on real engines: exact counts, the right cause, although workers are killed."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from connectors.clickhouse import client
from connectors.settings import Settings
from infra import demo
from infra.demo import Heard, Outcome, Plan
from infra.supervisor import Supervisor

PLAN = Plan(rate=60.0, healthy_s=24.0, fault_s=12.0, after_s=6.0, seed=7, service="trading-engine")
KILLS = (  # seconds after the start, worker: before, while and after the service is broken
    (6.0, "ingest"), (9.0, "sinks-clickhouse"), (12.0, "analysis"), (16.0, "sinks-postgres"),
    (28.0, "analysis"), (31.0, "ingest"), (34.0, "sinks-clickhouse"), (38.0, "sinks-postgres"), (40.0, "analysis"),
)  # fmt: skip


def kill_workers(supervisor: Supervisor, done: threading.Event, killed: list[str]) -> None:
    """Kill workers with SIGKILL at their times; the supervisor starts them again."""
    start = time.monotonic()
    for at_s, name in KILLS:
        if done.wait(max(0.0, at_s - (time.monotonic() - start))):
            return
        process = next(child.process for child in supervisor.children if child.name == name)
        if process is not None and process.poll() is None:
            process.kill()
            killed.append(name)


@pytest.fixture(scope="module")
def churned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Outcome, list[str]]]:
    """A run in which every worker was killed at least once, after everything has arrived."""
    home: Path = tmp_path_factory.mktemp("e2e") / "home"
    heard, done, killed = Heard(), threading.Event(), list[str]()
    with demo.running(home) as (settings, supervisor):
        threads = [
            threading.Thread(target=demo.listen, args=(settings, heard, done, lambda _: None)),
            threading.Thread(target=kill_workers, args=(supervisor, done, killed)),
        ]
        for thread in threads:
            thread.start()
        truth = demo.produce(settings, PLAN, lambda _: None)
        outcome = demo.gather(settings, truth, heard)
        done.set()
        for thread in threads:
            thread.join()
        yield settings, outcome, killed


@pytest.mark.timeout(420)
def test_nothing_is_lost_and_nothing_counted_twice(churned: tuple[Settings, Outcome, list[str]]) -> None:
    _, outcome, killed = churned
    assert set(killed) == {"ingest", "analysis", "sinks-clickhouse", "sinks-postgres"}
    assert outcome.failures() == []


def test_every_step_has_exactly_one_row_in_clickhouse(churned: tuple[Settings, Outcome, list[str]]) -> None:
    settings, _, _ = churned
    server = client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database)
    rows, distinct = server.execute(
        "SELECT count(), uniqExact(record_kind, tenant, execution, span, revision) FROM chain_execution_traces"
    )[0]
    assert rows == distinct
    windows, ids = server.execute("SELECT count(), uniqExact(id, revision) FROM chain_health_metrics")[0]
    server.disconnect()
    assert windows == ids


def test_the_databases_agree_on_every_execution(churned: tuple[Settings, Outcome, list[str]]) -> None:
    settings, _, _ = churned
    server = client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database)
    query = "SELECT tenant, execution, status FROM chain_execution_traces FINAL WHERE record_kind = 'execution'"
    stored = set(server.execute(query))
    server.disconnect()
    with psycopg.connect(settings.postgres_dsn.get_secret_value()) as connection:
        rows = connection.execute("SELECT tenant, execution, status FROM flowchain.flow_executions").fetchall()
    assert len(rows) == len(stored)
    assert set(rows) == stored
