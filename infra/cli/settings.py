"""`flowchain settings` and `flowchain migrate`."""

from typing import Any

import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings
from rich.table import Column, Table

from connectors.settings import PROFILES, Settings
from infra import preparing
from infra.cli.common import Json, console, load_settings, print_json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("settings")(show)
    app.command()(migrate)


def show(as_json: Json = False) -> None:
    """Show every setting, its value, and where the value came from.

    Example: `FLOWCHAIN_WINDOW_S=5 flowchain settings`
    """
    settings = load_settings()
    rows = [_row(settings, name) for name in Settings.model_fields]
    if as_json:
        print_json(rows)
        return
    table = Table(Column("setting", no_wrap=True), Column("value", overflow="fold"), "from", "what it is", box=None)
    for row in rows:
        table.add_row(f"FLOWCHAIN_{row['name'].upper()}", str(row["value"]), row["from"], row["description"])
    console.print(table)


def migrate(as_json: Json = False) -> None:
    """Bring both databases to the newest schema; does nothing where they are.

    Example: `flowchain migrate`
    """
    applied = preparing.migrate(load_settings())
    if as_json:
        print_json(applied)
        return
    for database, names in applied.items():
        console.print(f"{database:10} {', '.join(names) or 'up to date'}")


def _row(settings: Settings, name: str) -> dict[str, Any]:
    value = getattr(settings, name)
    shown = "********" if isinstance(value, SecretStr) else value
    return {
        "name": name,
        "value": shown,
        "from": _origin(settings, name),
        "description": Settings.model_fields[name].description,
    }


def _origin(settings: BaseSettings, name: str) -> str:
    """Return where a value came from: set explicitly, the profile, or the default."""
    explicit = Settings.explicit()
    if name in explicit:
        return explicit[name]
    if name in PROFILES[settings.profile]:  # type: ignore[attr-defined]
        return f"profile {settings.profile}"  # type: ignore[attr-defined]
    return "local stack" if name in settings.model_fields_set else "default"
