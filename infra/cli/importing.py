"""`flowchain import`: real traces as chain events, through the whole pipeline."""

import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from connectors.intake.mapping import read_mappings
from connectors.intake.records import Outcome, judge, publish, read_lines, read_records
from connectors.settings import Settings
from connectors.spans import Options, Timeline, load
from infra import devstack, importing, local
from infra.cli.alerts import print_alert
from infra.cli.common import HOME, CommandError, Json, Prefix, console, load_settings, print_json, reach_kafka
from infra.preparing import prepare
from infra.supervisor import ready_workers
from schemas.topics import EVENTS

commands = typer.Typer(help="Bring in what other systems have recorded.", no_args_is_help=True)
INPUTS = ("traces", "logs", "metrics")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="import")


@commands.command()
def spans(
    path: Annotated[Path, typer.Argument(help="OTLP JSON file or folder, or a folder in the TrainTicket CSV layout")],
    day: Annotated[list[str] | None, typer.Option(help="TrainTicket: only these day folders")] = None,
    inputs: Annotated[str, typer.Option(help="what is read: traces, logs, metrics, separated by commas")] = "traces,logs,metrics",
    chain_by: Annotated[str, typer.Option(help="a chain is named after the root span, or the entry behind a gateway: root, entry")] = "entry",
    prefix: Annotated[str | None, typer.Option(help="topic prefix of the import; made from the path where left out")] = None,
    shift: Annotated[bool, typer.Option("--shift", help="move all times so that the last event is now")] = False,
    speed: Annotated[float | None, typer.Option(help="times as fast as it happened; as fast as possible where left out")] = None,
    publish_only: Annotated[bool, typer.Option("--publish-only", help="only publish; workers run elsewhere")] = False,
    as_json: Json = False,
) -> None:
    """Publish traces as chain events, run the pipeline on them, and say what it found.

    A trace becomes an execution, a span a step, a log line log.observed, a metric row resource.sampled. Exit code 1 when
    an event was not counted, or a trace or span has no row in ClickHouse.

    Example: `flowchain import spans traces.json --shift`
    """
    _check_speed(speed)
    timeline = load(path, _options(day, inputs, chain_by), end_at_us=time.time_ns() // 1000 if shift else None)
    with devstack.running(HOME, external=local.configured(), console=console):
        settings = reach_kafka(topic_prefix=prefix or f"import-{_slug(path)}.")
        prepare(settings)
        importing.refuse_used_topic(settings)
        document, complete = _run(settings, timeline, speed, publish_only, as_json)
    if as_json:
        print_json(document)
    raise typer.Exit(0 if complete else 1)


@commands.command()
def legacy(
    mapping: Annotated[Path, typer.Argument(help="mapping file: docs/intake.md says what stands in it")],
    records: Annotated[Path | None, typer.Argument(help="file with a JSON record per line; the mapping's topics where left out")] = None,
    topic: Annotated[str | None, typer.Option(help="only this topic of the mapping; what the records of a file are of")] = None,
    since: Annotated[datetime | None, typer.Option(help="only records of a topic from this moment on (UTC)")] = None,
    until: Annotated[datetime | None, typer.Option(help="only records of a topic before this moment (UTC)")] = None,
    prefix: Prefix = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what the records would become")] = False,
    as_json: Json = False,
) -> None:
    """Publish records of topics that are no events of ours as events, by a mapping file, in the order of their time.

    Old events are late in a topic that holds newer ones: give them a --prefix of their own. Exit code 1 when a record was refused.

    Example: `flowchain import legacy docs/examples/mapping.yaml --dry-run`
    """
    mappers = read_mappings(mapping)
    wanted = {name: mapper for name, mapper in mappers.items() if topic in (None, name)}
    if not wanted or (records is not None and len(wanted) > 1):
        raise CommandError(f"--topic: the mapping is about {', '.join(mappers)}")
    settings = load_settings(topic_prefix=prefix) if dry_run and records else reach_kafka(topic_prefix=prefix)
    outcomes = {}
    for name, mapper in wanted.items():
        found = read_records(settings, name, _ms(since), _ms(until)) if records is None else read_lines(records, time.time_ns() // 1000)
        outcomes[name] = judge(found, mapper, settings.topic(EVENTS.name))
        if not dry_run:
            publish(settings, outcomes[name])
    _tell_outcomes(outcomes, dry_run, as_json)
    raise typer.Exit(1 if any(outcome.refused for outcome in outcomes.values()) else 0)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def _tell_outcomes(outcomes: dict[str, Outcome], dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({name: {**asdict(outcome), "events": len(outcome.events)} for name, outcome in outcomes.items()})
        return
    for name, outcome in outcomes.items():
        console.print(f"{name}: {outcome.records:,} records, {len(outcome.events):,} events {'would be ' if dry_run else ''}published, {outcome.left_out:,} match no mapping")
        for reason, count in outcome.refused.items():
            console.print(f"  {count:,} refused: {escape(reason)} (first {escape(outcome.first_seen[reason])})")


def _check_speed(speed: float | None) -> None:
    if speed is not None and not speed > 0:
        raise CommandError("--speed: above 0")


def _run(
    settings: Settings, timeline: Timeline, speed: float | None, publish_only: bool, quiet: bool
) -> tuple[dict[str, Any], bool]:
    def tell(text: str) -> None:
        if not quiet:
            console.print(f"[dim]{text}[/dim]")

    if publish_only:
        summary = importing.publish(settings, timeline, speed=speed, progress=not quiet)
        tell(f"{summary.events:,} events published to {settings.topic_prefix}flowchain.events.v1")
        return {"events": summary.events, "prefix": settings.topic_prefix}, True
    home = HOME / settings.topic_prefix.rstrip(".")
    with ready_workers(home, settings.environment("topic_prefix", *local.SETTING.values())):
        summary = importing.publish(settings, timeline, speed=speed, progress=not quiet)
        tell(f"{summary.events:,} events of {summary.executions:,} executions published")
        result = importing.follow(settings, summary, tell)
    if not quiet:
        _print_result(result)
    return result.document(), result.complete


def _options(day: list[str] | None, inputs: str, chain_by: str) -> Options:
    wanted = frozenset(name.strip() for name in inputs.split(","))
    if not wanted <= set(INPUTS):
        raise CommandError(f"--inputs: there are {', '.join(INPUTS)}")
    if chain_by not in ("root", "entry"):
        raise CommandError("--chain-by: there are root and entry")
    by: Literal["root", "entry"] = "root" if chain_by == "root" else "entry"
    return Options(days=frozenset(day) if day else None, inputs=wanted, chain_by=by)  # type: ignore[arg-type]


def _slug(path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.resolve().name.partition(".")[0].lower()).strip("-")[:40] or "spans"


def _print_result(result: importing.Imported) -> None:
    read = result.summary
    console.print(
        f"{read.events:,} events read, {result.events_counted:,} counted; {read.executions:,} traces, "
        f"{result.executions_clickhouse:,} executions in ClickHouse; {read.steps:,} spans, "
        f"{result.steps_clickhouse:,} steps in ClickHouse"
    )
    for reason, count in {**read.skipped, **read.repaired}.items():
        console.print(f"  {count:,} rows: {escape(reason)}")
    for alert in result.alerts:
        print_alert(alert)
    console.print(f"{len(result.alerts)} alerts")
