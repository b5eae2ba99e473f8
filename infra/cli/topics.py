"""`flowchain topics`: the catalogue, and a cluster made to match it."""

import typer
from rich.padding import Padding

from connectors.topics import apply_topics, describe_topic, partition_counts
from infra.cli.common import CommandError, Json, Prefix, console, print_json, reach_kafka
from schemas.topics import CATALOGUE

commands = typer.Typer(help="The topic catalogue, and a cluster made to match it.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="topics")


@commands.command()
def apply(prefix: Prefix = None, as_json: Json = False) -> None:
    """Create the topics that are missing.

    Example: `flowchain topics apply`
    """
    outcome = apply_topics(reach_kafka(topic_prefix=prefix))
    if as_json:
        print_json(outcome)
        return
    for name, what in outcome.items():
        console.print(f"{what:8} {name}")


@commands.command("list")
def list_(prefix: Prefix = None, as_json: Json = False) -> None:
    """List the catalogue with the partitions that the cluster has.

    Example: `flowchain topics list --json`
    """
    settings = reach_kafka(topic_prefix=prefix)
    held = partition_counts(settings)
    if as_json:
        print_json([{"name": settings.topic(t.name), "partitions": held.get(settings.topic(t.name), 0)} for t in CATALOGUE])
        return
    for topic in CATALOGUE:
        name = settings.topic(topic.name)
        partitions = f"{held[name]} partitions" if name in held else "[red]missing[/red]"
        console.print(f"[bold]{name}[/bold]  {partitions}", soft_wrap=True)  # a name is for copying: never cut
        console.print(Padding(f"{topic.sentence} Key: {topic.key}.", (0, 0, 0, 4)))


@commands.command()
def describe(name: str, prefix: Prefix = None, as_json: Json = False) -> None:
    """Show one topic: who writes it, who reads it, and the cluster's settings of it.

    Example: `flowchain topics describe flowchain.alerts.v1`
    """
    topic = next((t for t in CATALOGUE if t.name == name), None)
    if topic is None:
        raise CommandError(f"{name} is not in the catalogue; `flowchain topics list` shows what is")
    config = describe_topic(reach_kafka(topic_prefix=prefix), topic)
    facts = {
        "name": topic.name, "sentence": topic.sentence, "key": topic.key, "value": topic.value,
        "producers": list(topic.producers), "consumers": list(topic.consumers), "cleanup": topic.cleanup,
        "public": topic.public, "cluster": config,
    }  # fmt: skip
    if as_json:
        print_json(facts)
        return
    for fact, value in facts.items():
        console.print(f"{fact:10} {value}")
