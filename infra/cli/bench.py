"""`flowchain bench`: throughput, latency and cost on this machine, each beside a baseline in the same run."""

from typing import Annotated

import typer
from rich.table import Table

from infra.bench import ingest as ingesting
from infra.bench.baselines import BASELINES
from infra.bench.ingest import Plan
from infra.cli.benching import cluster, measuring, numbers, progress, show
from infra.cli.common import CommandError, Json

commands = typer.Typer(help="Throughput, latency and cost on this machine, beside a baseline in the same run.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="bench")


@commands.command()
def ingest(
    events: Annotated[int, typer.Option(min=10_000, help="how many")] = 1_000_000,
    baseline_seconds: Annotated[float, typer.Option("--baseline-seconds", "--faust-seconds", min=1, help="how long a baseline is measured")] = 15.0,
    against: Annotated[str, typer.Option(help=f"baselines, of {','.join(BASELINES)}; none = no baseline")] = "faust",
    per_message: Annotated[str, typer.Option(help="events per message, like 1,10,100")] = "1",
    workers: Annotated[str, typer.Option(help="numbers of workers, like 1,2")] = "1",
    as_json: Json = False,
) -> None:
    """Measure the real ingest worker (everything included) beside other ways to read the same topic.

    Runs on a Kafka of its own, begun anew and removed afterwards, unless brokers are configured explicitly; there it
    uses topics of its own and deletes them. Worker: events committed per second, from the first commit to the last.

    Example: `flowchain bench ingest --against faust,quix,streams,raw --per-message 1,10,100 --workers 1,2`
    """
    plan = Plan(events, baseline_seconds, _baselines(against), numbers(per_message), numbers(workers))
    with measuring() as (home, told), cluster(home, told) as settings, progress(told) as tell:
        outcome = ingesting.measure(settings, plan, home, tell)
    table = Table("", "per message", "workers", "events/s", "we are faster by", "", box=None)
    for run in outcome.runs:
        ratio = outcome.ratio(run)
        says = BASELINES[run.engine].says if run.engine in BASELINES else "first commit to last"
        table.add_row(
            run.engine, str(run.per_message), str(run.workers), f"{run.events_per_s:,.0f}" if run.events_per_s else "—",
            f"[bold]{ratio:.2f}[/bold]" if ratio else "", run.why or says,
        )  # fmt: skip
    show(outcome.document(), table, as_json)


def _baselines(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name and name != "none")
    for name in names:
        if name not in BASELINES:
            raise CommandError(f"{name} is no baseline; there are {', '.join(BASELINES)}")
    return names
