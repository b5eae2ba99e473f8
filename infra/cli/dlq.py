"""`flowchain dlq`: what was refused and why, and a second chance for it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from connectors.deadletters import LetterId, StoredLetter, read_dead_letters
from connectors.redrive import redrive, sort_out
from connectors.settings import Settings
from infra.cli.common import CommandError, Json, Prefix, console, print_json, reach_kafka
from schemas.topics import DEAD_LETTERS, EVENTS

commands = typer.Typer(help="Dead letters: what was refused and why.", no_args_is_help=True)
LETTERS = re.compile(r"(\d+):(\d+)(?:-(\d+))?")
Where = Annotated[str, typer.Argument(help="partition:offset of a dead letter, as `flowchain dlq list` shows it")]
Letters = Annotated[list[str] | None, typer.Argument(help="partition:offset or partition:first-last; all where left out")]
Stage = Annotated[str | None, typer.Option(help="only letters refused at this stage: decode, validate, late, …, foreign")]
Of = Annotated[str, typer.Option("--of", help="whose dead letters: the events', or those of a topic that the sinks read")]
Again = Annotated[bool, typer.Option("--again", help="also letters that were sent again before")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be sent and what not, and send nothing")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="dlq")


@commands.command("list")
def list_(
    prefix: Prefix = None, of: Of = EVENTS.name, stage: Stage = None, limit: int = 50, as_json: Json = False
) -> None:
    """List dead letters, with a count per reason.

    Example: `flowchain dlq list --stage late`
    """
    letters = _select(reach_kafka(topic_prefix=prefix), stage, of=of)
    if as_json:
        print_json([_facts(letter) for letter in letters[:limit]])
        return
    table = Table("letter", "record", "stage", "reason", "bytes", "sent again", box=None)
    for stored in letters[:limit]:
        letter = stored.letter
        table.add_row(
            _name(stored), f"{letter.topic}[{letter.partition}]@{letter.offset}" if letter else "", stored.stage,
            escape(letter.reason) if letter else "it has no headers of FlowChain", str(len(stored.value or b"")),
            "yes" if stored.redriven else "",
        )  # fmt: skip
    console.print(table)
    counts = Counter(stored.stage for stored in letters)
    console.print(f"{len(letters)} dead letters: " + (", ".join(f"{n} {s}" for s, n in counts.most_common()) or "none"))


@commands.command()
def show(where: Where, prefix: Prefix = None, of: Of = EVENTS.name, as_json: Json = False) -> None:
    """Show one dead letter, its raw bytes included.

    Example: `flowchain dlq show 0:12`
    """
    found = next((x for x in _select(reach_kafka(topic_prefix=prefix), None, of=of) if _name(x) == where), None)
    if found is None:
        raise CommandError(f"there is no dead letter {where}; `flowchain dlq list` shows what there is")
    facts = _facts(found) | {"key": _text(found.key), "value": _text(found.value)}
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        console.print(f"{name:10} {escape(str(value))}")


@commands.command("redrive")
def redrive_(
    letters: Letters = None, prefix: Prefix = None, stage: Stage = None, again: Again = False, dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Send dead letters to the events topic again, for instance after a fix of what refused them.

    Each is sent once; those that ingest would refuse again stay, with the reason. Letters are never deleted.

    Example: `flowchain dlq redrive 0:12 1:300-420 --stage validate`
    """
    settings = reach_kafka(topic_prefix=prefix)
    chosen = _select(settings, stage, _wanted(letters or []))
    send, keep = sort_out(settings, chosen, again=again)
    if not dry_run:
        redrive(settings, send)
    if as_json:
        reasons = [{"letter": _name(kept.stored), "why": kept.why} for kept in keep]
        print_json({"letters": len(chosen), "sent": 0 if dry_run else len(send), "would_pass": len(send), "kept": reasons})
        return
    table = Table("kept", "why", box=None)
    for kept in keep:
        table.add_row(_name(kept.stored), escape(kept.why))
    if keep:
        console.print(table)
    console.print(f"{len(send)} of {len(chosen)} dead letters {'would be sent' if dry_run else 'sent'} again")


def _wanted(names: Iterable[str]) -> Callable[[LetterId], bool]:
    """Return whether a letter is one of those named; raises CommandError for what is no name."""
    ranges: list[tuple[int, int, int]] = []
    for name in names:
        found = LETTERS.fullmatch(name)
        if found is None:
            raise CommandError(f"{name} is neither partition:offset nor partition:first-last")
        partition, first, last = found.groups()
        ranges.append((int(partition), int(first), int(last or first)))
    return lambda key: not ranges or any(key[0] == p and first <= key[1] <= last for p, first, last in ranges)


def _select(
    settings: Settings, stage: str | None, wanted: Callable[[LetterId], bool] = lambda _: True, of: str = EVENTS.name
) -> list[StoredLetter]:
    if of not in DEAD_LETTERS:
        raise CommandError(f"there are no dead letters of {of}, only of {', '.join(DEAD_LETTERS)}")
    letters = read_dead_letters(settings, DEAD_LETTERS[of])
    return [stored for stored in letters if stage in (None, stored.stage) and wanted(stored.id)]


def _name(stored: StoredLetter) -> str:
    return f"{stored.partition}:{stored.offset}"


def _facts(stored: StoredLetter) -> dict[str, object]:
    known = stored.letter.model_dump(exclude_none=True) if stored.letter else {"stage": stored.stage}
    return {"letter": _name(stored), **known, "disposition": "redriven" if stored.redriven else "refused"}


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
