"""The `flowchain` command. One file per group of commands; this one only puts them together."""

import logging
import sys

import typer
from confluent_kafka import KafkaException
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from agents.ingest import TooManyDeadLetters
from connectors.credentials import CredentialError
from connectors.database import TenantRefused
from connectors.definition_files import FilesRefused
from connectors.http import NotServed
from connectors.intake import PortTaken
from connectors.migrate import MigrationError
from connectors.settings import Settings
from connectors.spans import SpanImportError
from infra.cli import (
    alerts,
    asking,
    bench,
    chaos,
    credentials,
    demo,
    dlq,
    evaluate,
    executions,
    importing,
    keys,
    measuring,
    registry,
    retention,
    settings,
    simulate,
    soaking,
    stack,
    taking_in,
    topics,
    verify,
    worker,
)
from infra.cli.common import CommandError
from infra.demo import DemoRefused
from infra.devstack import DevstackError
from infra.evaluation.errors import EvaluationError
from infra.importing import ImportRefused
from infra.preparing import Unreachable
from infra.registering import RegistryAway
from infra.supervisor import NotReady

KNOWN = (
    CommandError, CredentialError, DemoRefused, DevstackError, EvaluationError, FilesRefused, ImportRefused, KafkaException, MigrationError, NotReady,
    NotServed, PortTaken, RegistryAway, SpanImportError, TenantRefused, TooManyDeadLetters, Unreachable, ValidationError,
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
for module in (
    stack, demo, simulate, worker, topics, registry, alerts, executions, keys, dlq, credentials, verify, chaos, importing, evaluate, bench, measuring,
    asking, taking_in, soaking, retention, settings,
):
    module.register(app)


@app.callback()
def _before_every_command() -> None:
    """Name variables that no setting has; keep the libraries' log lines for the workers, which set up logging."""
    logging.getLogger().addHandler(logging.NullHandler())
    for name, meant in Settings.unknown().items():
        hint = f"; {meant} was meant?" if meant else ""
        Console(stderr=True, highlight=False).print(f"[yellow]warning:[/yellow] {name} is no setting{hint}", soft_wrap=True)


def main() -> None:
    """Run the command line; a known error is one sentence on standard error and exit code 1."""
    try:
        app()
    except KNOWN as error:
        sentence = escape(_sentence(error))
        Console(stderr=True, highlight=False).print(f"[red]error:[/red] {sentence}", soft_wrap=True)
        sys.exit(error.exit_code if isinstance(error, TooManyDeadLetters) else 1)


def _sentence(error: Exception) -> str:
    if isinstance(error, KafkaException):
        return f"Kafka: {error.args[0].str() if hasattr(error.args[0], 'str') else error}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if error.title == Settings.__name__:
            return f"setting FLOWCHAIN_{place.upper()}: {first['msg']}"
        return f"a record is not a valid {error.title}: {place}: {first['msg']}"
    return str(error)
