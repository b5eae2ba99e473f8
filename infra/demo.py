"""The demonstration: fourteen services, one of them breaks, and the pipeline says so. Every claim is counted afterwards."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from connectors.alerts import alert_consumer
from connectors.deadletters import read_dead_letters
from connectors.settings import Settings
from infra import devstack
from infra.counting import clickhouse_counts, clickhouse_rows, counted_events, postgres_rows
from infra.local import addresses
from infra.preparing import prepare
from infra.registering import put_in_force
from infra.simulator import Config, Fault, Simulation, Truth, definitions, simulate
from infra.supervisor import Supervisor, ready_workers
from infra.verification.progress import NotCaughtUp, snapshot
from schemas.analysis import Alert
from schemas.topics import EVENTS

SETTINGS = {
    "security_protocol": "PLAINTEXT",
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
    def config(self) -> Config:
        """The simulation; raises ValueError for a fault or a service that there is not, and for senseless numbers."""
        fault = Fault(self.kind, self.service, self.healthy_s, self.fault_s)  # type: ignore[arg-type]
        return Config(self.rate, self.seconds, self.seed, (fault,))


@dataclass
class Heard:
    """The alerts as a consumer hears them: (seconds since 1970, alert)."""

    alerts: list[tuple[float, Alert]] = field(default_factory=list)

    def newest(self) -> dict[str, Alert]:
        """Return the newest revision of every alert."""
        return {alert.id: alert for _, alert in self.alerts}


class DemoRefused(Exception):
    """The demonstration cannot be begun, in one sentence."""


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Keep every other demonstration out of the folder for the block; raises DemoRefused where one runs."""
    home.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.with_name(f"{home.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise DemoRefused(f"a demonstration runs in {home} already: wait for its end, or use another folder") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def running(home: Path, console: Console | None = None) -> Iterator[tuple[Settings, Supervisor]]:
    """Run engines and workers of its own under `home`, begun anew, until the block ends; raises DemoRefused."""
    with alone(home):
        shutil.rmtree(home, ignore_errors=True)
        with devstack.running(home, console=console) as stack:
            settings = settings_of(stack)
            prepare(settings)
            put_in_force(settings, definitions(), "demo")
            with ready_workers(home, settings.environment(*addresses(stack), *SETTINGS)) as supervisor:
                yield settings, supervisor
                _settle(settings, supervisor)


def settings_of(stack: devstack.Stack) -> Settings:
    """Return the settings of a demonstration on a stack."""
    own: dict[str, Any] = addresses(stack) | SETTINGS
    return Settings(**own)


def _settle(settings: Settings, supervisor: Supervisor) -> None:
    """Let the workers finish what is before them, so that what is left can be verified afterwards."""
    supervisor.retire("ingest")  # it would put clock ticks on the log without end
    with suppress(NotCaughtUp):
        snapshot(settings, SETTLE_S)


def listen(settings: Settings, heard: Heard, done: threading.Event, on_alert: Callable[[Alert], None]) -> None:
    """Consume the alert topic as anybody would, until `done`."""
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
    return simulate(settings.kafka(), settings.topic(EVENTS.name), plan.config, started)


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
            truth, heard, counted_events(settings), clickhouse_rows(settings), clickhouse_counts(settings)[0],
            postgres_rows(settings), sum(1 for _ in read_dead_letters(settings)),
        )  # fmt: skip
        if not outcome.failures() or time.monotonic() > deadline:
            return outcome
        time.sleep(1.0)
