"""`flowchain dlq`: what was refused and why, and a second chance for it."""

from collections import Counter
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from connectors.deadletters import StoredLetter, read_dead_letters, redrive
from connectors.settings import Settings
from infra.cli.common import CommandError, Json, Prefix, console, print_json, reach_kafka

commands = typer.Typer(help="Dead letters: what was refused and why.", no_args_is_help=True)
Where = Annotated[str, typer.Argument(help="partition:offset of a dead letter, as `flowchain dlq list` shows it")]
Stage = Annotated[str | None, typer.Option(help="only letters refused at this stage: decode, validate, late, …")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="dlq")


@commands.command("list")
def list_(prefix: Prefix = None, stage: Stage = None, limit: int = 50, as_json: Json = False) -> None:
    """List dead letters, with a count per reason.

    Example: `flowchain dlq list --stage late`
    """
    letters = _select(reach_kafka(topic_prefix=prefix), stage)
    if as_json:
        print_json([_facts(letter) for letter in letters[:limit]])
        return
    table = Table("letter", "record", "stage", "reason", "bytes", box=None)
    for stored in letters[:limit]:
        letter = stored.letter
        table.add_row(
            f"{stored.partition}:{stored.offset}", f"{letter.topic}[{letter.partition}]@{letter.offset}", letter.stage,
            escape(letter.reason), str(len(stored.value or b"")),
        )  # fmt: skip
    console.print(table)
    counts = Counter(stored.letter.stage for stored in letters)
    console.print(f"{len(letters)} dead letters: " + (", ".join(f"{n} {s}" for s, n in counts.most_common()) or "none"))


@commands.command()
def show(where: Where, prefix: Prefix = None, as_json: Json = False) -> None:
    """Show one dead letter, its raw bytes included.

    Example: `flowchain dlq show 0:12`
    """
    found = next(
        (x for x in _select(reach_kafka(topic_prefix=prefix), None) if f"{x.partition}:{x.offset}" == where), None
    )
    if found is None:
        raise CommandError(f"there is no dead letter {where}; `flowchain dlq list` shows what there is")
    facts = _facts(found) | {"key": _text(found.key), "value": _text(found.value)}
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        console.print(f"{name:10} {escape(str(value))}")


@commands.command("redrive")
def redrive_(prefix: Prefix = None, stage: Stage = None, as_json: Json = False) -> None:
    """Send dead letters to the events topic again, for instance after a fix of what refused them.

    Letters stay in the dead-letter topic; sending one twice is harmless as far as events are recognised as duplicates.

    Example: `flowchain dlq redrive --stage validate`
    """
    settings = reach_kafka(topic_prefix=prefix)
    letters = _select(settings, stage)
    sent = redrive(settings, letters)
    if as_json:
        print_json({"letters": len(letters), "sent": sent})
    else:
        console.print(f"{sent} of {len(letters)} dead letters sent again")
    if sent < len(letters):
        raise CommandError(f"{len(letters) - sent} dead letters were not taken by the brokers")


def _select(settings: Settings, stage: str | None) -> list[StoredLetter]:
    return [stored for stored in read_dead_letters(settings) if stage in (None, stored.letter.stage)]


def _facts(stored: StoredLetter) -> dict[str, object]:
    return {"letter": f"{stored.partition}:{stored.offset}", **stored.letter.model_dump()}


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
