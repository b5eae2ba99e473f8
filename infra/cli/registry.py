"""`flowchain registry`: flows, which executions are held to: declared, compared, taken back, and where they drift."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from connectors.database import Database
from connectors.definition_files import (
    FilesRefused,
    Located,
    as_json,
    as_yaml,
    import_file,
    read_definitions_of,
    required,
)
from connectors.registry import CycleRefused, Outcome, Registry, RegistryRefused, Revision, relay_outbox
from connectors.settings import Settings
from infra.cli.common import CommandError, Json, Prefix, console, load_settings, print_json, reach_kafka
from infra.registering import RegistryAway
from infra.registering import registry as open_registry
from schemas.definitions import ChainDefinition, Kind
from streams.flows.diff import Change
from streams.flows.diff import diff as differences
from streams.flows.kinds import EXPORTERS, export_flows

commands = typer.Typer(help="Flows, which executions are held to.", no_args_is_help=True)
Files = Annotated[list[Path], typer.Argument(help="YAML or JSON files of definitions")]
Name = Annotated[str, typer.Argument(help="name of the flow")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="whose flow; every tenant's where left out")]
Author = Annotated[str | None, typer.Option("--author", help="who stands in the history; the user of this shell where left out")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="registry")


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Registry, Database]]:
    """Give the registry; what it and its files refuse is said in one sentence."""
    try:
        with open_registry(settings) as opened:
            yield opened
    except (RegistryAway, RegistryRefused) as error:
        raise CommandError(str(error)) from error


def _author(given: str | None) -> str:
    return given or os.environ.get("USER") or "flowchain"


def _read(files: list[Path]) -> list[Located]:
    """Return the definitions of files; raises CommandError with a line per problem."""
    try:
        return read_definitions_of(files)
    except FilesRefused as refused:
        raise CommandError(str(refused)) from refused


def _time_us(text: str) -> int:
    """Return µs since 1970 of "now" or of an ISO 8601 time; UTC where it does not say otherwise."""
    if text == "now":
        return round(datetime.now(UTC).timestamp() * 1_000_000)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"{text!r} is neither `now` nor a time like 2026-01-31T12:00:00+00:00") from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1_000_000)


# -- changes ----------------------------------------------------------------------------------------------------------


@commands.command()
def apply(
    files: Files, tenant: Tenant = None, author: Author = None, prefix: Prefix = None, as_json_: Json = False,
    effective: Annotated[str | None, typer.Option(help="when changes take effect: now, or a time; at once and for running executions too where left out")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would become of them")] = False,
) -> None:  # fmt: skip
    """Put definitions in force, all of them or none; running workers take them in. What is the same as before stays as it is.

    Example: `flowchain registry apply chains.yaml --tenant acme --effective now`
    """
    found = _read(files)
    settings = load_settings(topic_prefix=prefix) if dry_run else reach_kafka(topic_prefix=prefix)
    effective_us = None if effective is None else _time_us(effective)
    with _opened(settings) as (flows, database):
        try:
            outcomes = flows.apply([x.definition for x in found], tenant, _author(author), effective_us=effective_us, dry_run=dry_run)
        except CycleRefused as refused:
            raise CommandError(_cycle(found, refused)) from refused
        if not dry_run:
            relay_outbox(settings, database)
    _tell(outcomes, as_json_, "would be " if dry_run else "")


def _cycle(found: list[Located], refused: CycleRefused) -> str:
    """Return the refusal of a cycle with the place in the files that closes it."""
    closing = next((x for x in found if x.definition.name in refused.path and set(x.definition.requires) & set(refused.path)), None)
    return str(refused) if closing is None else str(required(closing, refused.path))


def _tell(outcomes: list[Outcome], as_json_: bool, verb: str = "") -> None:
    if as_json_:
        print_json([vars(outcome) for outcome in outcomes])
        return
    for x in outcomes:
        console.print(f"{verb}{x.status}  {escape(_named(x.name, x.tenant))}, revision {x.revision}, {x.id}", soft_wrap=True)


def _named(name: str, tenant: str | None) -> str:
    return f"{name} of {tenant}" if tenant else name


@commands.command()
def delete(name: Name, tenant: Tenant = None, author: Author = None, prefix: Prefix = None, as_json_: Json = False) -> None:
    """Delete a flow; its history stays. Refused while another flow requires it.

    Example: `flowchain registry delete order_to_cash --tenant acme`
    """
    settings = reach_kafka(topic_prefix=prefix)
    with _opened(settings) as (flows, database):
        outcome = flows.delete(name, tenant, _author(author))
        relay_outbox(settings, database)
    _tell([outcome], as_json_)


@commands.command()
def publish(
    prefix: Prefix = None, as_json_: Json = False,
    all_: Annotated[bool, typer.Option("--all", help="everything in force anew: for a topic that was lost")] = False,
) -> None:  # fmt: skip
    """Publish what is registered and did not reach Kafka yet; every other command that changes something does so too.

    Example: `flowchain registry publish --all`
    """
    settings = reach_kafka(topic_prefix=prefix)
    with _opened(settings) as (flows, database):
        if all_:
            flows.publish_anew()
        count = relay_outbox(settings, database)
    if as_json_:
        print_json({"published": count})
    else:
        console.print(f"{count} records published")


# -- what is there ----------------------------------------------------------------------------------------------------


@commands.command()
def get(
    name: Name, tenant: Tenant = None, as_json_: Json = False,
    revision: Annotated[int | None, typer.Option(help="this revision instead of the newest")] = None,
    at: Annotated[str | None, typer.Option(help="the revision that holds executions which began at this time")] = None,
) -> None:  # fmt: skip
    """Print a flow as YAML, in its canonical form.

    Example: `flowchain registry get order_to_cash --revision 3`
    """
    with _opened(load_settings()) as (flows, _):
        found = flows.get(name, tenant, revision=revision, at_us=None if at is None else _time_us(at))
    if as_json_:
        print_json(_revision(found) | {"definition": as_json(found.definition)})
    else:
        print(as_yaml([found.definition]), end="")


def _revision(found: Revision) -> dict[str, Any]:
    definition = found.definition
    return {
        "name": found.name, "tenant": found.tenant, "revision": found.revision, "id": found.id, "kind": definition.kind,
        "version": definition.version, "steps": len(definition.steps), "deleted": found.deleted, "author": found.author,
        "created_at": found.created_at, "effective_from_unix_us": definition.effective_from_unix_us,
    }  # fmt: skip


@commands.command("list")
def list_(tenant: Tenant = None, as_json_: Json = False) -> None:
    """List the flows that are registered: everybody's, or what one tenant sees.

    Example: `flowchain registry list --tenant acme --json`
    """
    with _opened(load_settings()) as (flows, _):
        found = flows.flows(tenant)
    _table(found, as_json_, {"flow": lambda x: x.name, "tenant": lambda x: x.tenant or "every"})


@commands.command()
def history(name: Name, tenant: Tenant = None, as_json_: Json = False) -> None:
    """List the revisions of a flow, the newest first.

    Example: `flowchain registry history order_to_cash`
    """
    with _opened(load_settings()) as (flows, _):
        found = flows.history(name, tenant)
    if not found:
        raise CommandError(f"there is no flow {name!r}")
    _table(found, as_json_, {"change": lambda x: "deleted" if x.deleted else "", "author": lambda x: x.author, "at": lambda x: f"{x.created_at:%Y-%m-%d %H:%M:%S}"})


def _table(found: list[Revision], as_json_: bool, first: dict[str, Callable[[Revision], str]]) -> None:
    if as_json_:
        print_json([_revision(x) for x in found])
        return
    table = Table(*first, "revision", "kind", "version", "steps", "effective from", "id", box=None)
    for x in found:
        time_us = x.definition.effective_from_unix_us
        since = f"{datetime.fromtimestamp(time_us / 1_000_000, UTC):%Y-%m-%d %H:%M:%S}" if time_us else "always"
        cells = (*(cell(x) for cell in first.values()), str(x.revision), x.definition.kind, x.definition.version)
        table.add_row(*map(escape, (*cells, str(len(x.definition.steps)), since, x.id)))
    console.print(table)


@commands.command()
def diff(files: Files, tenant: Tenant = None, as_json_: Json = False) -> None:
    """Say what `apply` would change, field by field; [breaking] is what an execution under way could come to violate.

    Example: `flowchain registry diff chains.yaml`
    """
    found = _read(files)
    with _opened(load_settings()) as (flows, _):
        there = {(x.name, x.tenant): x.definition for x in flows.flows(tenant)}
    changes = [_changes(x.definition, x.definition.tenant or tenant, there) for x in found]
    if as_json_:
        print_json(
            [{"name": x.name, "tenant": x.tenant, "new": not known, "changes": list(map(vars, of))} for x, known, of in changes]
        )
        return
    for definition, known, of in changes:
        what = "is new" if not known else "" if of else "is the same"
        console.print(escape(f"{_named(definition.name, definition.tenant)} {what}".rstrip()), soft_wrap=True)
        for change in of:
            console.print(f"  {escape(str(change))}", soft_wrap=True)


def _changes(
    definition: ChainDefinition, tenant: str | None, there: Mapping[tuple[str, str | None], ChainDefinition]
) -> tuple[ChainDefinition, bool, list[Change]]:
    """Return a definition as the tenant's, whether it is registered, and what would change."""
    new = definition.model_copy(update={"tenant": tenant})
    old = there.get((definition.name, tenant))
    return new, old is not None, [] if old is None else differences(old, new)


@commands.command()
def drift(
    name: Annotated[str | None, typer.Argument(help="name of the flow; all where left out")] = None, tenant: Tenant = None, as_json_: Json = False
) -> None:
    """Say where what was observed differs from what is declared: edges that nobody declared, declared ones never seen.

    Example: `flowchain registry drift order_to_cash --tenant acme`
    """
    with _opened(load_settings()) as (flows, _):
        found = flows.drift(tenant, name)
    if as_json_:
        print_json([{"name": flow.name, "tenant": flow.tenant, "revision": flow.revision, **vars(difference)} for flow, difference in found])
        return
    for flow, x in found:
        seen = f"{x.kind}, {x.events:,} times until {datetime.fromtimestamp(x.last_unix_us / 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC" if x.kind else ""
        about = ", ".join(part for part in (x.topic, seen) if part)
        line = f"{_named(flow.name, flow.tenant)}: {x.what:10}  {x.source} → {x.target}" + (f"  ({about})" if about else "")
        console.print(escape(line), soft_wrap=True)
    if not found:
        console.print("no drift")


# -- files ------------------------------------------------------------------------------------------------------------


@commands.command()
def validate(files: Files, as_json_: Json = False) -> None:
    """Check files without any server; exit code 1 with a line per problem: file, line, field and reason.

    Example: `flowchain registry validate chains.yaml`
    """
    found = [x.definition for x in _read(files)]
    if as_json_:
        print_json([{"name": x.name, "tenant": x.tenant, "steps": len(x.steps)} for x in found])
        return
    for definition in found:
        console.print(f"valid  {escape(_named(definition.name, definition.tenant))}, {len(definition.steps)} steps", soft_wrap=True)


@commands.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="files of the kind")],
    kind: Annotated[str, typer.Option(help=", ".join(EXPORTERS))],
    name: Annotated[str | None, typer.Option(help="for a flow that does not say its own; the file's name where left out")] = None,
) -> None:
    """Print flows of another format as definitions, in YAML; needs no server.

    Example: `flowchain registry import --kind langgraph graph.json > graph.yaml`
    """
    try:
        found = [flow for file in files for flow in import_file(_kind(kind), file, name)]
    except FilesRefused as refused:
        raise CommandError(str(refused)) from refused
    print(as_yaml(found), end="")


@commands.command()
def export(
    names: Annotated[list[str] | None, typer.Argument(help="names of flows; all where left out")] = None, tenant: Tenant = None,
    kind: Annotated[str | None, typer.Option(help=f"as JSON of this format instead of YAML: {', '.join(EXPORTERS)}")] = None,
) -> None:  # fmt: skip
    """Print registered flows, as they can be applied again or in another format.

    Example: `flowchain registry export order_to_cash --kind langgraph`
    """
    with _opened(load_settings()) as (flows, _):
        found = [flows.get(name, tenant).definition for name in names] if names else [x.definition for x in flows.flows(tenant)]
    print(as_yaml(found) if kind is None else _exported(_kind(kind), found), end="")


def _exported(kind: Kind, found: list[ChainDefinition]) -> str:
    try:
        documents = export_flows(kind, found)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return "".join(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n" for document in documents)


def _kind(text: str) -> Kind:
    for kind in EXPORTERS:
        if kind == text:
            return kind
    raise CommandError(f"{text!r} is no kind of flow: {', '.join(EXPORTERS)}")
