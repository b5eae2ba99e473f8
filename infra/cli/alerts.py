"""`flowchain alerts`: what the alert topic says, as it is said."""

import signal
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from connectors.alerts import alert_consumer
from infra.cli.common import Json, Prefix, console, reach_kafka
from schemas.analysis import Alert

commands = typer.Typer(help="What the alert topic says.", no_args_is_help=True)
COLOURS = {"critical": "red", "warning": "yellow", "info": "cyan"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="alerts")


@commands.command()
def tail(
    prefix: Prefix = None,
    as_json: Json = False,
    from_start: Annotated[bool, typer.Option("--from-start", help="begin with the oldest alert")] = False,
    seconds: Annotated[float | None, typer.Option(help="stop after so long")] = None,
) -> None:
    """Print alerts as they are published, until Ctrl-C.

    Example: `flowchain alerts tail --from-start --seconds 5`
    """
    consumer = alert_consumer(reach_kafka(topic_prefix=prefix), from_start)
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while time.monotonic() < end:
            message = consumer.poll(0.2)
            if message is None or message.error() is not None:
                continue
            value = message.value() or b""
            if as_json:
                print(value.decode(), flush=True)
            else:
                print_alert(Alert.decode(value))
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


def print_alert(alert: Alert) -> None:
    """Print one alert for a person."""
    when = datetime.fromtimestamp(alert.updated_unix_us / 1e6, UTC).strftime("%H:%M:%S")
    colour = COLOURS[alert.severity] if alert.status in ("opened", "updated") else "green"
    console.print(
        f"[dim]{when}[/dim] [{colour}]{alert.status:9}[/{colour}] [bold]{escape(alert.title)}[/bold] "
        f"[dim]{escape(alert.tenant)}, revision {alert.revision}[/dim]"
    )
    if alert.cause is not None and alert.status in ("opened", "updated"):
        console.print(f"         cause     {escape(alert.cause.component)} ({alert.cause.probability:.0%}): {escape(alert.cause.reason)}")
        hurt = ", ".join(f"{h.name}{'' if h.observed else ' (next)'}" for h in alert.affected[:8])
        console.print(f"         hurt      {escape(hurt) or 'nothing else yet'}; {alert.affected_executions} executions")

