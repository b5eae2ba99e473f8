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
from infra.evaluation import petshop as petshop_set

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


@commands.command()
def petshop(folder: Folder, as_json: Json = False) -> None:
    """Rank the causes of the issues of a directory in the layout of the PetShop set, by the reader of health windows.

    Strict mid-rank after the 5th and after the 3rd window; whether ranks stay the same when nodes swap their names; and
    how many issue-free stretches the reporting gate keeps silent about.

    Example: `flowchain evaluate petshop data/petshop`
    """
    with _progress() as advance:
        report = petshop_set.evaluate(folder, advance)
    if as_json:
        print_json(report)
        return
    late, early = report["after"].items()
    header = (f"{what} after {count} windows" for count, _ in (late, early) for what in ("first", "first 3"))
    table = Table(Column("", no_wrap=True), *(Column(text, justify="right") for text in header), box=None)
    for name, group in late[1].items():
        table.add_row(name, *(_of(part[k], part["cases"]) for part in (group, early[1][name]) for k in ("top_1", "top_3")))
    console.print(table)
    cases, normal = report["cases"], report["normal"]
    console.print(f"unchanged under {report['permutations']} permutations of names: {_of(report['unchanged_under_permuted_names'], cases)}")
    console.print(
        f"issues reported: {_of(report['reported'], cases)}; issue-free stretches without a report: "
        f"{_of(normal['silent'], normal['stretches'])}", soft_wrap=True,
    )  # fmt: skip
    for row in report["issues"]:
        if row[f"rank_{late[0]}"] != 1 or row[f"rank_{early[0]}"] != 1:
            console.print(f"{row['scenario']}/{row['issue']}: rank {row[f'rank_{early[0]}']}, then {row[f'rank_{late[0]}']}")


def _of(count: int, total: int) -> str:
    return f"{count}/{total} ({100 * count / total:.1f} %)" if total else "–"


def _score(value: Any) -> str:
    return "–" if value is None else f"{value:.1f}"
