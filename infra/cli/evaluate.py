"""`flowchain evaluate`: what the product's detectors and root-cause readers reach on data with known truth."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from infra.cli.common import Json, console, print_json
from infra.evaluation import nab as nab_set

commands = typer.Typer(help="Measure detection and root cause on data with known truth.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(help="directory of the unpacked data set")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="evaluate")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what takes (what, done, total): a bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


@commands.command()
def nab(folder: Folder, as_json: Json = False) -> None:
    """Score the detector of plain series on a directory in the layout of the Numenta Anomaly Benchmark.

    One pass per file, fresh state, one set of parameters for all, no look-ahead; the first 15 % of a file, 750 rows at
    most, are not scored.

    Example: `flowchain evaluate nab data/nab`
    """
    with _progress() as advance:
        report = nab_set.evaluate(folder, advance)
    if as_json:
        print_json(report)
        return
    console.print(
        f"{report['files']} files, {report['rows']:,} rows, {report['windows']} windows; {report['rows_per_s']:,} rows/s on one core"
    )
    header = ("threshold optimised on these files", f"frozen at {report['frozen_threshold']}", "from the other categories")
    table = Table(Column("profile", no_wrap=True), *(Column(text, justify="right") for text in header), box=None)
    for name, row in report["profiles"].items():
        table.add_row(name, *(_score(row[kind]) for kind in ("optimised", "frozen", "nested")))
    console.print(table)


def _score(value: Any) -> str:
    return "–" if value is None else f"{value:.1f}"
