"""`flowchain keys`: keys of the API. The first one is made here; whoever has it can make others over the API."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from connectors.database import EVERY_TENANT
from connectors.keys import Role, create_key, revoke_key
from infra.cli.common import CommandError, Json, console, print_json
from infra.cli.database import actor, session_of

commands = typer.Typer(help="Keys of the API.", no_args_is_help=True)
Tenant = Annotated[str, typer.Option("--tenant", help="whose key; * is for every tenant")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="keys")


@commands.command()
def create(
    name: Annotated[str, typer.Argument(help="what it is for")],
    tenant: Tenant = EVERY_TENANT,
    role: Annotated[Role, typer.Option(help="viewer: see; operator: also act on alerts; admin: also keys and tenants; service: see, and register flows")] = "viewer",
    days: Annotated[int | None, typer.Option(min=1, help="it is refused after so many days; never where left out")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once.

    Example: `flowchain keys create ops --role admin`
    """
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    with session_of(EVERY_TENANT) as connection:
        key, row = create_key(connection, tenant, name, role, actor(), expires)
    if as_json:
        print_json({"id": row["id"], "key": key, "tenant": tenant, "role": role})
        return
    console.print(key, soft_wrap=True)
    console.print(f"key {row['id']}, {role} of {escape(tenant) if tenant != EVERY_TENANT else 'every tenant'}; it is not shown again")


@commands.command("list")
def list_(as_json: Json = False) -> None:
    """List keys, without themselves.

    Example: `flowchain keys list --json`
    """
    with session_of(EVERY_TENANT) as connection:
        rows = connection.execute(_LIST).fetchall()
    if as_json:
        print_json(rows)
        return
    table = Table("key", "tenant", "role", "name", "last used", "state", box=None)
    for row in rows:
        used = row["last_used_at"]
        table.add_row(row["id"], escape(row["tenant"]), row["role"], escape(row["name"]), f"{used:%Y-%m-%d %H:%M}" if used else "never", row["state"])
    console.print(table)


@commands.command()
def revoke(ident: Annotated[str, typer.Argument(help="the key's id, as `flowchain keys list` shows it")]) -> None:
    """Make a key invalid from now on.

    Example: `flowchain keys revoke 1f0c5a3e9b7d2468`
    """
    with session_of(EVERY_TENANT) as connection:
        if not revoke_key(connection, EVERY_TENANT, ident):
            raise CommandError(f"there is no valid key {ident}; `flowchain keys list` shows them")
    console.print(f"revoked {escape(ident)}")


_LIST = """
SELECT id, tenant, role, name, created_by, created_at, expires_at, last_used_at,
    CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'valid' END AS state
FROM api_keys ORDER BY created_at, id"""
