"""`flowchain definitions`: declared chains, which executions are held to."""

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from connectors.definitions import publish_definitions, read_definitions
from infra.cli.common import CommandError, Json, Prefix, console, print_json, reach_kafka
from schemas.definitions import ChainDefinition

commands = typer.Typer(help="Declared chains, which executions are held to.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="definitions")


@commands.command()
def apply(
    files: Annotated[list[Path], typer.Argument(help="JSON files, each a definition or an array of them")],
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Put definitions in force; running workers take them in. Nothing is published unless all of them are valid.

    Example: `flowchain definitions apply order_to_cash.json`
    """
    found = [definition for file in files for definition in load(file)]
    publish_definitions(reach_kafka(topic_prefix=prefix), found)
    if as_json:
        print_json([{"name": x.name, "tenant": x.tenant, "version": x.version, "steps": len(x.steps)} for x in found])
        return
    for definition in found:
        console.print(f"in force  {escape(_title(definition))}", soft_wrap=True)


@commands.command("list")
def list_(prefix: Prefix = None, as_json: Json = False) -> None:
    """List the definitions that are in force.

    Example: `flowchain definitions list --json`
    """
    found = read_definitions(reach_kafka(topic_prefix=prefix))
    if as_json:
        print_json([definition.model_dump(mode="json", exclude_none=True) for definition in found])
        return
    table = Table("chain", "tenant", "version", "steps", box=None)
    for definition in found:
        table.add_row(definition.name, definition.tenant or "every", definition.version, ", ".join(x.name for x in definition.steps))
    console.print(table)


def load(file: Path) -> list[ChainDefinition]:
    """Return the definitions of a file; raises CommandError naming the file, the place and the reason."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"{file} is not JSON: {error}") from error
    found = []
    for number, value in enumerate(document if isinstance(document, list) else [document]):
        try:
            found.append(ChainDefinition.model_validate_json(json.dumps(value)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "definition"
            which = f" ({number + 1}. definition)" if isinstance(document, list) else ""
            raise CommandError(f"{file}{which}: {place}: {first['msg']}") from error
    return found


def _title(definition: ChainDefinition) -> str:
    whose = f" of {definition.tenant}" if definition.tenant else ""
    return f"{definition.name}{whose}, version {definition.version}, {len(definition.steps)} steps"
