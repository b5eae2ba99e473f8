"""`flowchain retention`: what PostgreSQL need not keep any longer."""

import typer

from connectors.retention import apply_retention
from infra.cli.common import Json, console, load_settings, print_json
from infra.preparing import reaching_postgres


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(retention)


def retention(as_json: Json = False) -> None:
    """Remove from PostgreSQL what its tenant's tier keeps no longer; the sinks do so every hour.

    Example: `flowchain retention --json`
    """
    with reaching_postgres():
        removed = apply_retention(load_settings())
    if as_json:
        print_json(removed)
        return
    for table, rows in removed.items():
        console.print(f"{rows:>10,} {table}")
    if not removed:
        console.print("nothing to remove")
