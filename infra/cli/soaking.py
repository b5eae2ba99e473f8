"""`flowchain bench soak` and `recovery`: what stays the same over time, and what a kill costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from infra.bench import recovery as kills
from infra.bench import soak as memory
from infra.cli.bench import commands
from infra.cli.benching import measuring, numbers, pipeline, progress
from infra.cli.common import Json, console, print_json
from infra.devstack.model import ALL
from infra.supervisor import WORKERS

Out = Annotated[Path | None, typer.Option(help="write the JSON document to this file, too")]


def register(app: typer.Typer) -> None:
    """Add the commands to those of `flowchain bench`."""
    for command in (soak, recovery):
        commands.command()(command)


def soak(
    minutes: Annotated[float, typer.Option(min=0.5, help="how long")] = 30.0,
    rate: Annotated[int, typer.Option(min=100, help="events per second, one per message")] = 20_000,
    every: Annotated[float, typer.Option(min=1, help="seconds between two readings")] = 5.0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Watch the memory of every worker under a steady load; exit code 1 when one grows.

    Always on engines of its own, begun anew and removed afterwards. The first third is warm-up and is not judged.

    Example: `flowchain bench soak --minutes 10 --rate 5000`
    """
    with measuring() as (home, told), pipeline(home, told, WORKERS, ALL) as (settings, supervisor), progress(told) as tell:
        outcome = memory.measure(settings, supervisor, rate, minutes, every, tell)
    _give(outcome.document(), out, as_json, lambda: _print_soak(outcome))
    raise typer.Exit(0 if outcome.flat else 1)


def recovery(
    rates: Annotated[str, typer.Option(help="events per second, separated by commas")] = "2000,5000,10000",
    opened: Annotated[str, typer.Option(help="executions that are open, separated by commas")] = "0,50000,200000",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Kill the ingest worker under load: how long until its first new commit, and until nothing waits any more.

    Always on a Kafka of its own, begun anew and removed afterwards; the supervisor of `flowchain up` restarts the worker.

    Example: `flowchain bench recovery --rates 5000 --opened 0,100000`
    """
    loads, sizes = numbers(rates), numbers(opened, least=0)
    with (
        measuring() as (home, told),
        pipeline(home, told, ("ingest",), ["kafka"], idle_s=86_400.0) as (settings, supervisor),
        progress(told) as tell,
    ):
        cases = kills.measure(settings, supervisor, loads, sizes, tell)
    _give(kills.document(cases), out, as_json, lambda: _print_recovery(cases))


def _give(document: dict[str, Any], out: Path | None, as_json: bool, show: Any) -> None:
    if out is not None:
        out.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    if as_json:
        print_json(document)
    else:
        show()


def _print_soak(outcome: memory.Outcome) -> None:
    table = Table("resident memory, MB", "first", "median", "largest", "per hour", "", box=None)
    for v in outcome.verdicts:
        figures = (f"{value / memory.MB:,.0f}" for value in (v.first, v.median, v.largest))
        table.add_row(v.worker, *figures, f"{v.slope_per_h / memory.MB:+.1f}", "flat" if v.flat else "[red]grows[/red]")
    console.print(table)
    seconds = outcome.minutes * 60
    console.print(f"{outcome.sent:,} events in {seconds:.0f} s, {outcome.sent / seconds:,.0f}/s; {outcome.lag:,} records waited at the end")


def _print_recovery(cases: Sequence[kills.Case]) -> None:
    table = Table("events/s", "open executions", "first commit after", "nothing waits after", "most that waited", box=None)
    for case in cases:
        table.add_row(f"{case.rate:,}", f"{case.open_executions:,}", f"{case.first_commit_s:.1f} s", f"{case.no_lag_s:.1f} s", f"{case.waiting:,}")
    console.print(table)
