"""`flowchain simulate`: the fourteen services as a load generator, with faults on purpose and the truth about them."""

import signal
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from connectors.settings import Settings
from connectors.topics import partition_counts
from infra.cli.common import CommandError, Json, Prefix, console, print_json, reach_kafka
from infra.registering import put_in_force_anywhere
from infra.simulator import FAULT_KINDS, SERVICES, Config, Fault, Simulation, Truth, definitions
from infra.simulator import simulate as run
from schemas.topics import DEFINITIONS, EVENTS

FAULT_HELP = f"kind:service:start:length[:tenant], times in seconds; may be repeated. Kinds: {', '.join(FAULT_KINDS)}"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)


def simulate(
    rate: Annotated[float, typer.Option(help="executions per second, about 11 events each")] = 100.0,
    seconds: Annotated[float, typer.Option(help="how long new executions begin")] = 30.0,
    seed: Annotated[int, typer.Option(help="the same seed makes the same executions")] = 1,
    fault: Annotated[list[str] | None, typer.Option(help=FAULT_HELP)] = None,
    truth: Annotated[Path | None, typer.Option(help="file that gets what really happened, as JSON")] = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Let fourteen simulated services report to the configured brokers, and break some of them.

    Ctrl-C ends the run early, with its truth. Exit code 1 when an event could not be delivered.

    Example: `flowchain simulate --rate 200 --seconds 60 --fault slow:trading-engine:20:15:acme --truth truth.json`
    """
    config = checked_config(rate, seconds, seed, fault or [])
    _check_folder(truth)
    settings = _reach_topics(prefix)
    put_in_force_anywhere(settings, definitions(), "simulate")
    what_was = _run(settings, config)
    if truth is not None:
        what_was.write(truth)
    _tell(what_was, as_json)
    if what_was.events_dropped:
        raise CommandError(f"{sum(what_was.events_dropped.values())} events were not delivered: {what_was.events_dropped}")


def checked_config(rate: float, seconds: float, seed: int, faults: list[str]) -> Config:
    """Return the run; raises CommandError for a fault that there is not and for senseless numbers."""
    try:
        return Config(rate, seconds, seed, tuple(Fault.parse(fault) for fault in faults))
    except ValueError as error:
        raise CommandError(str(error)) from error


def _check_folder(truth: Path | None) -> None:
    if truth is not None and not truth.resolve().parent.is_dir():
        raise CommandError(f"--truth: there is no folder {truth.parent}")


def _reach_topics(prefix: str | None) -> Settings:
    settings = reach_kafka(topic_prefix=prefix)
    for topic in (EVENTS, DEFINITIONS):
        if settings.topic(topic.name) not in partition_counts(settings):
            raise CommandError(f"there is no topic {settings.topic(topic.name)}; `flowchain topics apply` creates it")
    return settings


def _run(settings: Settings, config: Config) -> Truth:
    """Run in this thread, with the progress told by another; SIGINT and SIGTERM end the run early."""
    done = threading.Event()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as progress:
        task = progress.add_task(f"{len(SERVICES)} services", total=config.seconds)

        def watch(simulation: Simulation) -> None:
            began_s = time.monotonic()
            while not done.wait(0.2):
                told = f"{simulation.truth.events_produced:,} events, {simulation.truth.executions_failed:,} executions failed"
                progress.update(task, completed=time.monotonic() - began_s, description=told)

        def started(simulation: Simulation) -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: simulation.stop())
            threading.Thread(target=watch, args=[simulation], daemon=True).start()

        try:
            return run(settings.kafka(), settings.topic(EVENTS.name), config, started)
        finally:
            done.set()


def _tell(truth: Truth, as_json: bool) -> None:
    if as_json:
        print_json(_summary(truth))
        return
    console.print(
        f"{truth.events_produced:,} events of {truth.executions_started:,} executions produced, "
        f"{truth.executions_failed:,} of them failed"
    )
    for fault in truth.faults:
        console.print(f"  {fault.kind} of {fault.service}: {len(fault.executions):,} executions hurt")


def _summary(truth: Truth) -> dict[str, Any]:
    """Return the truth without the ids of every execution that was hurt: those are in the file."""
    numbers = {name: value for name, value in vars(truth).items() if name != "faults"}
    faults = [
        {**vars(fault), "executions": len(fault.executions),
         **{name: sorted(getattr(fault, name)) for name in ("affected_services", "affected_chains", "affected_tenants")}}
        for fault in truth.faults
    ]  # fmt: skip
    return {**numbers, "faults": faults}
