"""An API on real engines with something to tell: two tenants whose things bear their name, so that a leak is seen."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.testclient import TestClient

from connectors.database import EVERY_TENANT, Database
from connectors.http.app import create_app
from connectors.keys import ROLES, create_key
from connectors.migrate import migrate_clickhouse, migrate_postgres
from connectors.registry.tenants import put_tenant
from connectors.rows.position import Position
from connectors.settings import Settings
from connectors.stores import CLICKHOUSE, POSTGRES
from connectors.topics import apply_topics
from infra.devstack import Stack
from infra.local import addresses
from schemas.analysis import Alert, Anomaly, Cause, Incident
from schemas.health import DependencyWindow, HealthWindow, Histogram
from schemas.internal import Execution, Step, TraceBatch

START_US = 1_790_000_000_000_000
"""When everything here happened: 2026-09-21."""
SECOND = 1_000_000
WINDOW: Mapping[str, Any] = {"since": "2026-09-01T00:00:00Z", "until": "2026-10-01T00:00:00Z"}
TENANTS = ("acme", "globex")


@dataclass
class Api:
    """A running API, a key per (tenant, role), and the application behind it."""

    client: TestClient
    settings: Settings
    keys: dict[tuple[str, str], str]

    def headers(self, tenant: str = "acme", role: str = "admin") -> dict[str, str]:
        """Return what a request of a tenant and role carries."""
        return {"Authorization": f"Bearer {self.keys[tenant, role]}"}

    def get(self, path: str, *, tenant: str = "acme", role: str = "admin", status: int = 200, **query: Any) -> Any:
        """Return the JSON of a GET that must be answered with `status`."""
        answer = self.client.get(path, params=query, headers=self.headers(tenant, role))
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def send(self, method: str, path: str, body: Any = None, *, tenant: str = "acme", role: str = "admin", status: int = 200, **headers: str) -> Any:
        """Return the JSON of a write that must be answered with `status`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.client.request(method, path, json=body, headers=self.headers(tenant, role) | named)
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None


@contextmanager
def running_api(stack: Stack, **more: Any) -> Iterator[Api]:
    """Run an API of its own on the stack; what it tells is stored by the pipeline's own stores."""
    name = f"api{uuid4().hex[:8]}"
    given = {
        **addresses(stack), "topic_prefix": f"{name}.", "postgres_schema": name, "clickhouse_database": name, "source_partitions": 2,
        "analysis_partitions": 2, **more,
    }  # fmt: skip
    settings = Settings(**given)
    apply_topics(settings)
    migrate_postgres(stack.postgres_dsn, name)
    migrate_clickhouse(stack.clickhouse_dsn, name)
    for number, tenant in enumerate(TENANTS):
        store(settings, tenant, number)
    database = Database(settings)
    with database.session(EVERY_TENANT, "test") as connection:
        for tenant in TENANTS:
            put_tenant(connection, tenant, tenant.title(), "enterprise")
        keys = {(tenant, role): create_key(connection, tenant, role, role, "test")[0] for tenant in (*TENANTS, EVERY_TENANT) for role in ROLES}
    database.close()
    with TestClient(create_app(settings)) as client:
        yield Api(client, settings, keys)


def store(settings: Settings, tenant: str, number: int) -> None:
    """Store one of everything for a tenant, under names that hold its own."""
    records: dict[str, list[Any]] = {
        "flowchain.traces.v1": [batch(tenant)], "flowchain.health.v1": windows(tenant), "flowchain.dependencies.v1": [edge(tenant)],
        "flowchain.anomalies.v1": [anomaly(tenant)], "flowchain.alerts.v1": [alert(tenant)], "flowchain.incidents.v1": [incident(tenant)],
    }  # fmt: skip
    for name, told in records.items():
        sink(settings, name, number, told)


def sink(settings: Settings, name: str, partition: int, records: list[Any]) -> None:
    """Store the records of a topic as the sinks do, as the first of a partition."""
    topic = settings.topic(name)
    place = [(Position(topic, partition, offset), record) for offset, record in enumerate(records)]
    for binding in (*CLICKHOUSE, *POSTGRES):
        if binding.topic.name == name:
            opened = binding.open(settings, threading.Event())
            opened.resume(topic, partition)
            opened.write(topic, partition, 0, len(records) - 1, place)
            opened.settle(topic, partition)
            opened.close()


def batch(tenant: str) -> TraceBatch:
    """Return a completed and a failed execution of two steps each."""
    return TraceBatch("flowchain.events.v1", 0, START_US, [execution(tenant, "good"), execution(tenant, "bad")])


def execution(tenant: str, how: str) -> Execution:
    """Return an execution of the tenant's chain that ended well or badly."""
    failed = how == "bad"
    steps = {
        f"{tenant}-s1": Step(f"{tenant}-s1", f"{tenant}-first", f"{tenant}-web", 1, status="completed", start_us=START_US, end_us=START_US + 1_000, duration_us=1_000, cpu_us=500),
        f"{tenant}-s2": Step(
            f"{tenant}-s2", f"{tenant}-second", f"{tenant}-db", 2, parents=[(f"{tenant}-s1", "", f"{tenant}-web")],
            status="failed" if failed else "completed", start_us=START_US + 1_000, end_us=START_US + 3_000, duration_us=2_000,
            error_type="Timeout" if failed else "", error_message=f"{tenant} was slow" if failed else "", logs=[f"ERROR {tenant} {{id}}"] if failed else [],
        ),
    }  # fmt: skip
    return Execution(
        tenant, f"{tenant}-chain", f"{tenant}-{how}", 1, 2, user=f"{tenant}-user", tier="enterprise", chain_version="1",
        status="failed" if failed else "completed", start_us=START_US, last_us=START_US + 3_000, ended_us=START_US + 3_000,
        duration_us=3_000, component=f"{tenant}-web", error_type="Timeout" if failed else "", steps=steps, revision=1, finished_us=START_US + SECOND,
    )  # fmt: skip


def windows(tenant: str) -> list[HealthWindow]:
    """Return a window of the chain, of a step and of a component."""
    keys = [("chain", f"{tenant}-chain", "", ""), ("step", f"{tenant}-chain", f"{tenant}-second", f"{tenant}-db"), ("component", "", "", f"{tenant}-db")]
    return [
        HealthWindow(
            id=f"{tenant}-{kind}", kind=kind, tenant=tenant, chain=chain, step=step, component=component, window_start_unix_us=START_US,  # type: ignore[arg-type]
            window_end_unix_us=START_US + 10 * SECOND, revision=0, watermark_unix_us=START_US + 12 * SECOND, events=4, started=2, completed=1, failed=1,
            error_ratio=0.5, throughput_per_s=0.2, mean_us=3000.0, p50_us=3000.0, p95_us=3000.0, p99_us=3000.0, max_us=3000,
            durations=Histogram(scale=3, buckets={"92": 2}), violations={"step.failed": 1}, affected_executions=1, affected_sample=[f"{tenant}-bad"],
            cpu_us=1000, io_wait_us=0, memory_max_bytes=0, broker_mean_us=0.0, broker_max_us=0, resources={}, sources=[],
        )
        for kind, chain, step, component in keys
    ]  # fmt: skip


def edge(tenant: str) -> DependencyWindow:
    """Return the edge between the tenant's components."""
    return DependencyWindow(
        id=f"{tenant}-edge", tenant=tenant, chain=f"{tenant}-chain", kind="flow", source=f"{tenant}-web", target=f"{tenant}-db",
        window_start_unix_us=START_US, window_end_unix_us=START_US + 10 * SECOND, revision=0, count=2, failed=1, latency_mean_us=2000.0, latency_max_us=2000,
    )  # fmt: skip


def anomaly(tenant: str) -> Anomaly:
    """Return an anomaly of the tenant's step."""
    return Anomaly(
        id=f"{tenant}-anomaly", tenant=tenant, chain=f"{tenant}-chain", step=f"{tenant}-second", component=f"{tenant}-db",
        window_start_unix_us=START_US, window_end_unix_us=START_US + 10 * SECOND, score=0.97, threshold=0.9, direction="higher",
        features=[], learned_windows=40, detectors_version="1",
    )  # fmt: skip


def incident(tenant: str) -> Incident:
    """Return an open incident of the tenant."""
    return Incident(
        id=f"{tenant}-incident", revision=1, tenant=tenant, status="open", opened_unix_us=START_US, first_fault_unix_us=START_US,
        updated_unix_us=START_US + SECOND, severity="critical", title=f"{tenant}-db fails", suspects=[], blast_radius=[], chains=[f"{tenant}-chain"],
        affected_executions=1, affected_sample=[f"{tenant}-bad"], violations={"step.failed": 1}, anomalies=[], evidence=[],
    )  # fmt: skip


def alert(tenant: str) -> Alert:
    """Return an opened alert of the tenant."""
    return Alert(
        id=f"{tenant}-alert", revision=1, status="opened", severity="critical", tenant=tenant, incident=f"{tenant}-incident",
        title=f"{tenant}-db fails", summary=f"{tenant}-db fails in {tenant}-chain", cause=Cause(component=f"{tenant}-db", probability=0.9, reason="it fails"),
        suspects=[], affected=[], affected_chains=[f"{tenant}-chain"], affected_executions=1, affected_sample=[f"{tenant}-bad"],
        violations={"step.failed": 1}, first_fault_unix_us=START_US, opened_unix_us=START_US, updated_unix_us=START_US, evidence=[],
    )  # fmt: skip


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """Serve an API at a port of loopback, as `flowchain worker api` does but on a thread; yields host:port."""
    config = uvicorn.Config(create_app(settings), log_config=None, ws_per_message_deflate=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the API ended while it began"
            time.sleep(0.02)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(15)
