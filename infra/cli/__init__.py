"""The `flowchain` command. One file per group of commands; this one only puts them together."""

import sys

import typer
from confluent_kafka import KafkaException
from pydantic import ValidationError
from rich.console import Console

from agents.ingest import TooManyDeadLetters
from connectors.migrate import MigrationError
from connectors.spans import SpanImportError
from infra.cli import alerts, bench, demo, dlq, executions, importing, settings, stack, topics, verify, worker
from infra.cli.common import CommandError
from infra.devstack import DevstackError
from infra.importing import ImportRefused

KNOWN = (
    CommandError, DevstackError, ImportRefused, KafkaException, MigrationError, SpanImportError, TooManyDeadLetters,
    ValidationError,
)  # fmt: skip
"""What a person can act upon: said in one sentence. Anything else is a bug, and shows its traceback."""

app = typer.Typer(
    name="flowchain",
    help="Follows every execution of a business chain: which hop broke, why, and who is hurt.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for module in (stack, demo, worker, topics, alerts, executions, dlq, verify, importing, bench, settings):
    module.register(app)


def main() -> None:
    """Run the command line; a known error is one sentence on standard error and exit code 1."""
    try:
        app()
    except KNOWN as error:
        Console(stderr=True, highlight=False).print(f"[red]error:[/red] {_sentence(error)}")
        sys.exit(error.exit_code if isinstance(error, TooManyDeadLetters) else 1)


def _sentence(error: Exception) -> str:
    if isinstance(error, KafkaException):
        return f"Kafka: {error.args[0].str() if hasattr(error.args[0], 'str') else error}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
