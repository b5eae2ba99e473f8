"""A run of chaos on engines of its own: load, actions, drain, verification."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from connectors.settings import Settings
from infra import devstack
from infra.chaos.fleet import Fleet
from infra.chaos.load import Load
from infra.chaos.plan import Plan
from infra.chaos.report import Outcome
from infra.chaos.retention import overrun
from infra.demo import alone
from infra.local import addresses
from infra.preparing import prepare
from infra.registering import put_in_force
from infra.simulator import definitions
from infra.supervisor import WORKERS, Supervisor
from infra.verification.progress import NotCaughtUp, Snapshot, snapshot
from infra.verification.run import Verification

Tell = Callable[[str], None]
SETTINGS: dict[str, Any] = {
    "security_protocol": "PLAINTEXT",
    "source_partitions": 6,  # so that three workers have as much to do as two
    "window_s": 5.0,
    "lateness_s": 2.0,
    "grace_s": 60.0,
    "idle_s": 20.0,
    "anomaly_warmup_windows": 8,
    "incident_quiet_s": 8.0,
    "session_timeout_s": 6.0,
    "sink_interval_s": 0.5,
}
HEAP = "1g"
CATCH_UP_S = 600.0
"""How long the workers may take to finish what is before them when everything runs again."""


@contextmanager
def running(home: Path, tell: Tell) -> Iterator[tuple[Settings, Fleet, Supervisor]]:
    """Run engines and one worker of each kind under `home`, begun anew, until the block ends."""
    with alone(home):
        shutil.rmtree(home, ignore_errors=True)
        tell("starting Kafka, PostgreSQL and ClickHouse")
        with devstack.running(home, kafka_heap=HEAP) as stack:
            settings = Settings(**{**addresses(stack), **SETTINGS})
            prepare(settings)
            put_in_force(settings, definitions(), "chaos")
            supervisor = Supervisor(home, settings.environment(*addresses(stack), *SETTINGS), WORKERS)
            try:
                supervisor.start()
                yield settings, Fleet(home, supervisor, tell), supervisor
            finally:
                supervisor.stop()


def run(home: Path, plan: Plan, tell: Tell) -> Outcome:
    """Carry out a plan and verify what it leaves. Raises NotCaughtUp when the workers do not come to an end."""
    began = time.monotonic()

    def timed(what: str) -> None:
        tell(f"{time.monotonic() - began:6.1f} s  {what}")

    with running(home, timed) as (settings, fleet, supervisor):
        load = Load(settings, plan)
        carry_out(plan, fleet, load, timed)
        timed(f"all {load.sent:,} records are sent; everything runs again, the workers catch up")
        fleet.make_whole()
        at = settle(settings, fleet, supervisor)
        timed("verifying: computing from the log what truly happened")
        verified = Verification(settings, at, timed).run()
        gap = overrun(settings, home, timed)
        timed(f"retention: {gap.deleted_unread:,} of {gap.sent:,} records were deleted unread, {gap.reported:,} reported as lost")
    return Outcome(
        plan, fleet.done, fleet.killed, fleet.restarts, load.sent, load.disturber.counts, load.rates, verified, gap, load.failed
    )


def carry_out(plan: Plan, fleet: Fleet, load: Load, tell: Tell) -> None:
    """Send the load and do the actions at their time, or as soon as the ones before are done."""
    load.start()
    began = time.monotonic()
    for action in plan.actions:
        fleet.wait(began + action.at_s)
        while action.kind == "kill" and load.is_alive() and not load.bursting:
            fleet.wait(time.monotonic() + 0.1)
        fleet.do(action)
    fleet.wait(began + plan.seconds)
    load.stop()
    while load.is_alive():
        fleet.wait(time.monotonic() + 1.0)
    if load.error is not None:
        raise load.error


def settle(settings: Settings, fleet: Fleet, supervisor: Supervisor) -> Snapshot:
    """Let the workers end every execution and window by the passing of time, finish what is before them, and end."""
    fleet.wait(time.monotonic() + settings.idle_s + settings.lateness_s + 2 * settings.window_s)
    caught_up(settings, fleet)
    supervisor.retire("ingest")  # it would put clock ticks on the log without end
    at = caught_up(settings, fleet)
    supervisor.stop()
    return at


def caught_up(settings: Settings, fleet: Fleet) -> Snapshot:
    """Wait until nothing is before the workers any more; raises NotCaughtUp."""
    deadline = time.monotonic() + CATCH_UP_S
    while True:
        try:
            return snapshot(settings, 1.0)
        except NotCaughtUp:
            if time.monotonic() > deadline:
                raise
        fleet.wait(time.monotonic() + 1.0)
