"""`flowchain verify`: is everything that was published and stored what the log of events truly says?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import psycopg
import typer
from clickhouse_driver.errors import Error as ClickHouseError  # type: ignore[import-untyped]
from rich.markup import escape
from rich.table import Column, Table

from connectors.settings import Settings
from connectors.topics import partition_counts
from infra import demo, devstack
from infra.cli.common import HOME, CommandError, Json, Prefix, console, print_json, reach_kafka
from infra.verification.progress import NotCaughtUp, snapshot
from infra.verification.run import Report, Verification
from schemas.topics import EVENTS

WAIT_S = 5.0
NOT_CAUGHT_UP = 2
"""Exit code."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verify)


def verify(
    prefix: Prefix = None,
    wait: Annotated[float, typer.Option(help="seconds that the workers get to finish what is before them")] = WAIT_S,
    as_json: Json = False,
) -> None:
    """Compute from the events topic what truly happened, and compare all topics and tables with it.

    With the settings of the run. Without a running Kafka, what the last `flowchain demo` has left is verified.
    Exit code 0 when nothing is missing, too many, different or twice; 2 when the run has not caught up.

    Example: `flowchain verify --prefix tt1. --json`
    """
    with _settings(prefix) as settings:
        if settings.topic(EVENTS.name) not in partition_counts(settings):
            raise CommandError(f"there is no topic {settings.topic(EVENTS.name)} at {settings.bootstrap_servers}")
        try:
            report = Verification(settings, snapshot(settings, wait), _tell).run()
        except NotCaughtUp as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(NOT_CAUGHT_UP) from error
        except (psycopg.Error, ClickHouseError, OSError) as error:
            raise CommandError(f"a database does not answer as it must: {str(error).splitlines()[0]}") from error
    show(report)
    if as_json:
        print_json(report.document())
    raise typer.Exit(0 if report.right else 1)


@contextmanager
def _settings(prefix: str | None) -> Iterator[Settings]:
    """Yield the settings of the run: of a Kafka that answers, else of what the last demonstration left."""
    try:
        settings = reach_kafka(topic_prefix=prefix)
    except CommandError:
        home = HOME / "demo"
        if "bootstrap_servers" in Settings.explicit() or not home.exists():
            raise
        console.print(f"no Kafka runs here: verifying what the last demonstration left in {home}", soft_wrap=True)
        with devstack.running(home) as stack:
            yield demo.settings_of(stack)
        return
    yield settings


def _tell(what: str) -> None:
    if console.is_terminal:
        console.print(f"[dim]{escape(what)} …[/dim]")


def show(report: Report) -> None:
    """Print what was compared, and the first things that are wrong."""
    counts = report.counts
    console.print(
        f"{counts['records']:,} records: {counts['ticks']:,} ticks, {counts['dead_letters']:,} refused, "
        f"{counts['duplicates']:,} duplicates; {counts['open_executions']:,} executions and {counts['open_windows']:,} windows "
        "still open", soft_wrap=True,
    )  # fmt: skip
    table = Table(Column("", no_wrap=True), *("expected", "found", "missing", "extra", "different", "twice"), box=None)
    for tally in report.tallies.values():
        numbers = (tally.expected, tally.found, tally.missing, tally.extra, tally.different, tally.duplicated)
        table.add_row(tally.kind if tally.right else f"[red]{tally.kind}[/red]", *(f"{number:,}" for number in numbers))
    console.print(table)
    for tally in report.tallies.values():
        for one in tally.first:
            console.print(
                f"[red]{tally.kind}[/red] {escape(one.record)}: {escape(one.field)} must be {escape(repr(one.expected))}, "
                f"is {escape(repr(one.found))}", soft_wrap=True,
            )  # fmt: skip
