"""The demonstration: fourteen services, one of them breaks, and the pipeline says so. Every claim is counted afterwards."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psycopg
from clickhouse_driver import Client  # type: ignore[import-untyped]
from pydantic import SecretStr

from connectors.clickhouse import client
from connectors.deadletters import read_dead_letters
from connectors.definitions import publish_definitions
from connectors.log import read_topic
from connectors.settings import Settings
from infra import devstack
from infra.simulator import Fault, Simulation, Truth, definitions, simulate
from infra.supervisor import Supervisor, wait_until_ready, workers
from infra.verification.progress import NotCaughtUp, snapshot
from schemas.analysis import Alert
from schemas.topics import HEALTH

SETTINGS = {
    # Short windows, so that a demonstration of a minute has a past to compare with.
    "window_s": 2.0,
    "lateness_s": 1.0,
    "anomaly_warmup_windows": 8,
    "incident_quiet_s": 8.0,
    "sink_interval_s": 0.5,
    "session_timeout_s": 6.0,
}
COUNT_S = 45.0
"""How long the counts may take to arrive after the last event."""
SETTLE_S = 20.0
"""How long the workers may take to finish what is before them when a demonstration ends."""


@dataclass(frozen=True)
class Plan:
    """What happens in a demonstration, in seconds from its start."""

    rate: float = 60.0
    healthy_s: float = 22.0
    fault_s: float = 12.0
    after_s: float = 6.0
    seed: int = 1
    kind: str = "error_burst"
    service: str = "database-service"

    @property
    def seconds(self) -> float:
        """How long events are produced."""
        return self.healthy_s + self.fault_s + self.after_s

    @property
    def fault(self) -> Fault:
        """The fault that is injected."""
        return Fault(self.kind, self.service, self.healthy_s, self.fault_s)  # type: ignore[arg-type]


@dataclass
class Heard:
    """The alerts as a consumer hears them: (seconds since 1970, alert)."""

    alerts: list[tuple[float, Alert]] = field(default_factory=list)

    def newest(self) -> dict[str, Alert]:
        """Return the newest revision of every alert."""
        return {alert.id: alert for _, alert in self.alerts}


@contextmanager
def running(home: Path) -> Iterator[tuple[Settings, Supervisor]]:
    """Run the engines and the workers under `home`, begun anew, until the block ends."""
    shutil.rmtree(home, ignore_errors=True)
    with devstack.running(home) as stack:
        settings = settings_of(stack)
        environment = {
            f"FLOWCHAIN_{name.upper()}": str(value)
            for name, value in {
                **SETTINGS, "bootstrap_servers": stack.bootstrap_servers, "postgres_dsn": stack.postgres_dsn,
                "clickhouse_dsn": stack.clickhouse_dsn,
            }.items()
        }  # fmt: skip
        from infra.cli.stack import prepare

        prepare(settings)
        publish_definitions(settings, definitions())
        with workers(home, environment) as supervisor:
            late = wait_until_ready(supervisor)
            if late:
                raise devstack.DevstackError(f"not ready: {', '.join(late)}; their logs are in {home / 'logs'}")
            yield settings, supervisor
            _settle(settings, supervisor)


def settings_of(stack: devstack.Stack) -> Settings:
    """Return the settings of a demonstration on a stack."""
    return Settings(
        bootstrap_servers=stack.bootstrap_servers, postgres_dsn=SecretStr(stack.postgres_dsn),
        clickhouse_dsn=SecretStr(stack.clickhouse_dsn), **SETTINGS,  # type: ignore[arg-type]
    )  # fmt: skip


def _settle(settings: Settings, supervisor: Supervisor) -> None:
    """Let the workers finish what is before them, so that what is left can be verified afterwards."""
    supervisor.retire("ingest")  # it would put clock ticks on the log without end
    with suppress(NotCaughtUp):
        snapshot(settings, SETTLE_S)


def listen(settings: Settings, heard: Heard, done: threading.Event, on_alert: Callable[[Alert], None]) -> None:
    """Consume the alert topic as anybody would, until `done`."""
    from infra.cli.alerts import alert_consumer

    consumer = alert_consumer(settings, from_start=True)
    while not done.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            alert = Alert.decode(message.value() or b"")
            heard.alerts.append((time.time(), alert))
            on_alert(alert)
    consumer.close()


def produce(settings: Settings, plan: Plan, started: Callable[[Simulation], None]) -> Truth:
    """Let the fourteen services run; returns what really happened."""
    return simulate(
        settings.bootstrap_servers, rate=plan.rate, seconds=plan.seconds, seed=plan.seed, faults=[plan.fault],
        topic_prefix=settings.topic_prefix, started=started,
    )  # fmt: skip


def counted_events(settings: Settings) -> int:
    """Return the sum of the events over the newest revision of every health window."""
    newest: dict[str, tuple[int, int]] = {}
    for message in read_topic(settings, settings.topic(HEALTH.name)):
        window = orjson.loads(message.value() or b"")
        newest[window["id"]] = max(newest.get(window["id"], (-1, 0)), (window["revision"], window["events"]))
    return sum(events for _, events in newest.values())


def clickhouse_rows(settings: Settings) -> dict[str, int]:
    """Return the rows per table."""
    server: Client = client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database)
    tables = ("chain_health_metrics", "chain_execution_traces", "chain_dependency_events", "chain_anomalies")
    rows = {table: server.execute(f"SELECT count() FROM {table} FINAL")[0][0] for table in tables}
    server.disconnect()
    return rows


def clickhouse_executions(settings: Settings) -> int:
    """Return how many executions have a row in ClickHouse."""
    server: Client = client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database)
    query = "SELECT uniqExact(tenant, execution) FROM chain_execution_traces WHERE record_kind = 'execution'"
    count: int = server.execute(query)[0][0]
    server.disconnect()
    return count


def postgres_rows(settings: Settings) -> dict[str, int]:
    """Return the rows per table."""
    tables = ("flow_executions", "flow_metrics", "flow_definitions", "flow_chains")
    with psycopg.connect(settings.postgres_dsn.get_secret_value()) as connection:
        schema = settings.postgres_schema
        return {
            table: connection.execute(
                psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(schema, table))
            ).fetchone()[0]  # type: ignore[index]
            for table in tables
        }


@dataclass
class Outcome:
    """What a demonstration has shown, and whether it is right."""

    truth: Truth
    heard: Heard
    counted: int
    clickhouse: dict[str, int]
    executions_clickhouse: int
    postgres: dict[str, int]
    dead_letters: int

    def failures(self) -> list[str]:
        """Return what is not as it must be, in words; nothing when all is right."""
        fault = self.truth.faults[0]
        executions = self.truth.executions_started
        checks = {
            f"{self.truth.events_produced} events were produced and {self.counted} counted":
                self.counted == self.truth.events_produced,
            f"{executions} executions began and {self.executions_clickhouse} are in ClickHouse":
                self.executions_clickhouse == executions,
            f"{executions} executions began and {self.postgres['flow_executions']} are in PostgreSQL":
                self.postgres["flow_executions"] == executions,
            f"{self.dead_letters} dead letters for {self.truth.poison_records} poison records":
                self.dead_letters == self.truth.poison_records,
            "no alert was raised": bool(self.heard.alerts),
            f"the cause was {fault.service}, the alerts named {self.causes() or 'none'}":
                self.causes() == [fault.service],
        }  # fmt: skip
        return [what for what, right in checks.items() if not right]

    def causes(self) -> list[str]:
        """Return the components that the newest alerts name as causes."""
        return sorted({a.cause.component for a in self.heard.newest().values() if a.cause is not None})

    def alert_after_s(self) -> float | None:
        """Return the seconds from the first faulty event to the first alert that names the right cause."""
        fault = self.truth.faults[0]
        first = fault.first_event_unix_us
        times = [at for at, a in self.heard.alerts if a.cause is not None and a.cause.component == fault.service]
        return round(min(times) - first / 1e6, 3) if times and first else None

    def document(self) -> dict[str, Any]:
        """Return the last line of the demonstration."""
        fault = self.truth.faults[0]
        alerts = self.heard.newest().values()
        return {
            "events_produced": self.truth.events_produced,
            "events_counted": self.counted,
            "rows_clickhouse": sum(self.clickhouse.values()),
            "rows_postgres": sum(self.postgres.values()),
            "dead_letters": self.dead_letters,
            "fault": f"{fault.kind} of {fault.service}",
            "cause_named": ", ".join(self.causes()),
            "affected": {
                "services": sorted({h.name for a in alerts for h in a.affected if h.kind == "component"}),
                "chains": sorted({c for a in alerts for c in a.affected_chains}),
                "tenants": sorted({a.tenant for a in alerts}),
                "executions": sum(a.affected_executions for a in alerts),
                "executions_truly": len(fault.executions),
            },
            "alert_after_s": self.alert_after_s(),
        }


def gather(settings: Settings, truth: Truth, heard: Heard) -> Outcome:
    """Wait until everything that was produced is counted, or until it has had its time; return what there is."""
    deadline = time.monotonic() + COUNT_S
    while True:
        outcome = Outcome(
            truth, heard, counted_events(settings), clickhouse_rows(settings), clickhouse_executions(settings),
            postgres_rows(settings), sum(1 for _ in read_dead_letters(settings)),
        )  # fmt: skip
        if not outcome.failures() or time.monotonic() > deadline:
            return outcome
        time.sleep(1.0)
