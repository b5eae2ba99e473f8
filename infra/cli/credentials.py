"""`flowchain credentials`: stored encrypted, never shown."""

import sys
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.table import Column, Table

from connectors.credentials import (
    Vault,
    delete_credential,
    list_credentials,
    rotate_credentials,
    store_credential,
)
from connectors.database import EVERY_TENANT
from infra.cli.common import CommandError, Json, console, load_settings, print_json
from infra.cli.database import actor, session_of

commands = typer.Typer(help="Credentials of flows: stored encrypted, never shown.", no_args_is_help=True)
Flow = Annotated[str, typer.Argument(help="flow that uses it")]
Name = Annotated[str, typer.Argument(help="name of the credential")]
Tenant = Annotated[str, typer.Option("--tenant", help="whose credential it is")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="credentials")


@commands.command("set")
def set_(
    flow: Flow, name: Name, tenant: Tenant = "default", description: Annotated[str | None, typer.Option(help="for people")] = None
) -> None:
    """Store a credential; its value is read from standard input, never from the command line.

    Example: `flowchain credentials set order_to_cash bank-api --tenant acme < token.txt`
    """
    vault = Vault(load_settings().credential_keys)
    value = SecretStr(typer.prompt("value", hide_input=True) if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n"))
    with session_of(tenant) as session:
        store_credential(session, vault, tenant, flow, name, value, actor=actor(), description=description)
    console.print(f"stored {name} of {flow}")


@commands.command("list")
def list_(tenant: Tenant = "default", as_json: Json = False) -> None:
    """List the credentials of a tenant ("*": of all), without values.

    Example: `flowchain credentials list --tenant acme`
    """
    with session_of(tenant) as session:
        found = list_credentials(session)
    if as_json:
        print_json(found)
        return
    table = Table(Column("flow", no_wrap=True), "name", "tenant", "key", "updated", "description", box=None)
    for row in found:
        table.add_row(row["flow"], row["name"], row["tenant"], row["key_id"], f"{row['updated_at']:%Y-%m-%d %H:%M}", row["description"])
    console.print(table)


@commands.command()
def delete(flow: Flow, name: Name, tenant: Tenant = "default") -> None:
    """Remove a credential.

    Example: `flowchain credentials delete order_to_cash bank-api --tenant acme`
    """
    with session_of(tenant) as session:
        if not delete_credential(session, tenant, flow, name):
            raise CommandError(f"{tenant} has no credential {name} of {flow}")
    console.print(f"deleted {name} of {flow}")


@commands.command()
def rotate(as_json: Json = False) -> None:
    """Encrypt everything anew that is not under the first of FLOWCHAIN_CREDENTIAL_KEYS; older keys can be left out afterwards.

    Example: `FLOWCHAIN_CREDENTIAL_KEYS=<new>,<old> flowchain credentials rotate`
    """
    vault = Vault(load_settings().credential_keys)
    with session_of(EVERY_TENANT) as session:
        rotated = rotate_credentials(session, vault)
    if as_json:
        print_json({"rotated": rotated, "key": vault.key_id})
        return
    console.print(f"{rotated} encrypted anew; all are under key {vault.key_id}")
