"""`flowchain bench`: throughput on this machine, beside a baseline in the same run."""

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from connectors.settings import Settings
from infra import devstack
from infra.bench import ingest as measurement
from infra.bench.ingest import Outcome, Tell
from infra.bench.processes import BenchError
from infra.cli.common import HOME, CommandError, Json, console, print_json

commands = typer.Typer(help="Throughput on this machine, beside a baseline in the same run.", no_args_is_help=True)
STAGES = {"load": "loading the topic", "ingest": "ingest worker, committed", "faust": "stock Faust, seconds"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="bench")


@commands.callback()
def _group() -> None:
    """Keep `ingest` a command of its own while it is the only one."""


@commands.command()
def ingest(
    events: Annotated[int, typer.Option(min=10_000, help="how many, one per message")] = 1_000_000,
    faust_seconds: Annotated[float, typer.Option(min=1, help="how long stock Faust is measured")] = 15.0,
    as_json: Json = False,
) -> None:
    """Measure the real ingest worker (everything included) and a stock Faust agent that only counts.

    Runs on a Kafka of its own, begun anew and removed afterwards, unless brokers are configured explicitly; there it
    uses topics of its own and deletes them. Worker: events committed per second, from the first commit to the last.

    Example: `flowchain bench ingest --events 2000000`
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    told = Console(stderr=True, highlight=False)
    try:
        with _work_folder() as home, _cluster(home, told) as settings, _progress(told) as tell:
            outcome = measurement.measure(settings, events, faust_seconds, home, tell)
    except (BenchError, devstack.DevstackError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        print_json(outcome.document())
    else:
        _print(outcome)


@contextmanager
def _work_folder() -> Iterator[Path]:
    parent = HOME / "bench"
    parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(dir=parent)).resolve()
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _cluster(home: Path, told: Console) -> Iterator[Settings]:
    """Give settings with a fresh prefix: on the configured brokers, else on a Kafka that lives as long as the block."""
    prefix = measurement.fresh_prefix()
    if "bootstrap_servers" in Settings.explicit():
        settings = Settings(topic_prefix=prefix)
        try:
            yield settings
        finally:
            measurement.remove_topics(settings)
        return
    told.print("starting Kafka …")
    with devstack.running(home, engines=["kafka"], console=told) as stack:
        yield Settings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=prefix)


@contextmanager
def _progress(told: Console) -> Iterator[Tell]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=told) as progress:
        bars: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(STAGES[stage])
            progress.update(bars[stage], completed=min(done, total), total=total)

        yield tell


def _print(outcome: Outcome) -> None:
    facts = outcome.document()
    table = Table("", "events/s", "", box=None)
    table.add_row("ingest worker", f"{outcome.events_per_s:,.0f}", f"{outcome.events:,} events, first commit to last")
    table.add_row("stock Faust", f"{outcome.stock_faust_events_per_s:,.0f}", "an agent that only counts")
    table.add_row("[bold]ratio[/bold]", f"[bold]{outcome.ratio:.1f}[/bold]", "")
    console.print(table)
    console.print(f"{facts['machine']['cores']} cores, Python {facts['machine']['python']}")
