"""`flowchain demo`: the whole way, on real engines, in about a minute and a half."""

import threading
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from connectors.settings import Settings
from infra import demo as demonstration
from infra.cli.alerts import print_alert
from infra.cli.common import HOME, CommandError, console, print_json
from infra.demo import Heard, Plan
from infra.simulator import FAULT_KINDS, SERVICES, Simulation, Truth


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    fault: Annotated[str, typer.Option(help=f"kind of the fault: {', '.join(FAULT_KINDS)}")] = "error_burst",
    service: Annotated[str, typer.Option(help="the service that breaks")] = "database-service",
    rate: Annotated[float, typer.Option(help="executions per second")] = 60.0,
    seed: Annotated[int, typer.Option(help="of the simulation")] = 1,
) -> None:
    """Run fourteen services on real engines, break one, and show what FlowChain says. The last line is JSON.

    Always on engines of its own, begun anew in `.flowchain/demo`. Exit code 1 when a count is not equal, or the wrong cause is named.

    Example: `flowchain demo --fault slow --service trading-engine`
    """
    plan = _checked(Plan(rate=rate, seed=seed, kind=fault, service=service))
    console.print("starting Kafka, PostgreSQL, ClickHouse and the workers …")
    with demonstration.running(HOME / "demo", console) as (settings, _):
        outcome = _show(settings, plan)
    failures = outcome.failures()
    for failure in failures:
        console.print(f"[red]wrong:[/red] {escape(failure)}")
    print_json(outcome.document())
    raise typer.Exit(1 if failures else 0)


def _checked(plan: Plan) -> Plan:
    try:
        _ = plan.config
    except ValueError as error:
        raise CommandError(str(error)) from error
    return plan


def _show(settings: Settings, plan: Plan) -> demonstration.Outcome:
    heard, done = Heard(), threading.Event()
    console.print(
        f"{len(SERVICES)} services, {plan.rate:.0f} executions a second for {plan.seconds:.0f} s; after "
        f"{plan.healthy_s:.0f} s: [bold]{plan.kind}[/bold] of [bold]{plan.service}[/bold] for {plan.fault_s:.0f} s"
    )
    listener = threading.Thread(
        target=demonstration.listen, args=(settings, heard, done, print_alert), daemon=True
    )
    listener.start()
    try:
        truth = _produce(settings, plan, heard)
        console.print("all events are produced; counting what arrived …")
        outcome = demonstration.gather(settings, truth, heard)
    finally:
        done.set()
        listener.join()
    _summary(outcome)
    return outcome


def _produce(settings: Settings, plan: Plan, heard: Heard) -> Truth:
    box: list[Simulation] = []
    result: list[Truth] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            result.append(demonstration.produce(settings, plan, box.append))
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while thread.is_alive():
                live.update(_progress(box, heard))
                thread.join(0.25)
    thread.join()
    if failed:
        raise CommandError(f"the simulation failed: {failed[0]}")
    return result[0]


def _progress(box: list[Simulation], heard: Heard) -> Table:
    truth = box[0].truth if box else None
    table = Table("events", "executions", "failed", "alerts", box=None)
    if truth is not None:
        table.add_row(
            f"{truth.events_produced:,}", f"{truth.executions_started:,}", f"{truth.executions_failed:,}",
            str(len(heard.newest())),
        )  # fmt: skip
    return table


def _summary(outcome: demonstration.Outcome) -> None:
    truth, fault = outcome.truth, outcome.truth.faults[0]
    table = Table("", "really", "FlowChain", box=None)
    table.add_row("events", f"{truth.events_produced:,}", f"{outcome.counted:,} counted in health windows")
    table.add_row("executions", f"{truth.executions_started:,}", f"{outcome.executions_clickhouse:,} in ClickHouse, "
                  f"{outcome.postgres['flow_executions']:,} in PostgreSQL")  # fmt: skip
    table.add_row("cause", fault.service, ", ".join(outcome.causes()) or "none named")
    hurt = sum(alert.affected_executions for alert in outcome.heard.newest().values())
    table.add_row("executions hurt", f"{len(fault.executions):,}", f"{hurt:,}")
    after = outcome.alert_after_s()
    table.add_row("first alert with the cause", "", f"{after} s after the first faulty event" if after else "never")
    console.print(table)
