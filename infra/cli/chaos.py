"""`flowchain chaos`: is nothing lost and nothing counted twice, whatever happens?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from infra.chaos.plan import draw
from infra.chaos.report import Outcome
from infra.chaos.run import run
from infra.cli.common import HOME, CommandError, console, print_json
from infra.cli.verify import show
from infra.verification.progress import NotCaughtUp


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(chaos)


def chaos(
    minutes: Annotated[float, typer.Option(min=0.5, help="how long it goes on; catching up and verifying come on top")] = 10.0,
    seed: Annotated[int, typer.Option(help="of what happens and of the load")] = 1,
    rate: Annotated[int, typer.Option(min=100, help="events per second in a burst")] = 24_000,
    home: Annotated[Path, typer.Option(help="folder of its engines, begun anew")] = HOME / "chaos",
) -> None:
    """Kill, pause, restart and disturb everything under load, then verify that nothing is lost, twice or different.

    Always on engines of its own, begun anew. What is done is told as it is done; the last line is JSON. Exit code 1 when
    anything is not as it must be.

    Example: `flowchain chaos --minutes 2 --seed 7`
    """
    plan = draw(seed, minutes * 60, rate)
    try:
        outcome = run(home, plan, lambda what: console.print(escape(what), soft_wrap=True))
    except NotCaughtUp as error:
        raise CommandError(f"the workers did not come to an end: {error}") from error
    _show(outcome)
    raise typer.Exit(1 if outcome.failures() else 0)


def _show(outcome: Outcome) -> None:
    show(outcome.verified)
    for failure in outcome.failures():
        console.print(f"[red]wrong:[/red] {escape(failure)}")
    print_json(outcome.document())
