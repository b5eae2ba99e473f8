"""`flowchain executions`: how far an execution is, asked of the ingest workers that run here."""

from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.markup import escape

from infra import background
from infra.cli.common import HOME, CommandError, Json, console, print_json

commands = typer.Typer(help="Executions that are open, or ended lately.", no_args_is_help=True)
TIMEOUT_S = 10.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="executions")


@commands.command()
def show(
    tenant: Annotated[str, typer.Argument(help="whose execution it is")],
    execution: Annotated[str, typer.Argument(help="its id")],
    as_json: Json = False,
) -> None:
    """Show how far one execution is: current and done steps, the share that is done, the time that is left.

    Example: `flowchain executions show acme order-4711`
    """
    found = ask(ports_of_ingest(), tenant, execution)
    if as_json:
        print_json(found)
        return
    for name, value in _facts(found).items():
        console.print(f"{name:10} {escape(value)}")


def ports_of_ingest() -> list[int]:
    """Return the ports of the ingest workers under the local supervisor; raises CommandError when none runs."""
    state = background.read_state(HOME)
    ports = [worker.port for worker in state.workers if worker.name == "ingest"] if state else []
    if not ports:
        raise CommandError("no ingest worker runs here; `flowchain up` starts one")
    return ports


def ask(ports: list[int], tenant: str, execution: str) -> dict[str, Any]:
    """Return what the worker that follows the execution says; raises CommandError when none of them does."""
    silent = 0
    for port in ports:
        url = f"http://127.0.0.1:{port}/executions/{quote(tenant, safe='')}/{quote(execution, safe='')}"
        try:
            answer = httpx.get(url, timeout=TIMEOUT_S)
        except httpx.HTTPError:
            silent += 1
            continue
        if answer.status_code == httpx.codes.OK:
            found: dict[str, Any] = answer.json()
            return found
        silent += answer.status_code != httpx.codes.NOT_FOUND
    if silent:
        raise CommandError(f"{silent} of {len(ports)} ingest workers did not answer; `flowchain status` shows more")
    raise CommandError(f"execution {execution} of {tenant} is neither open nor has it ended lately")


def _facts(found: dict[str, Any]) -> dict[str, str]:
    ratio, remaining_us = found["ratio"], found["remaining_us"]
    return {
        "execution": f"{found['execution']} of {found['chain']}, tenant {found['tenant']}",
        "status": found["status"],
        "running": f"{(found['now_unix_us'] - found['start_unix_us']) / 1e6:.3f} s of event time",
        "current": ", ".join(found["current_steps"]) or "none",
        "done": ", ".join(found["done_steps"]) or "none",
        "missing": ", ".join(found["missing_steps"]) or "none",
        "progress": "unknown" if ratio is None else f"{ratio:.0%}",
        "remaining": "unknown" if remaining_us is None else f"{remaining_us / 1e6:.3f} s",
        "by": found["basis"],
    }
