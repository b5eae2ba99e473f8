"""What the commands share: errors, JSON output, the settings with a running local stack taken into account."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console

from connectors.settings import Settings
from infra import local

console = Console(highlight=False)
REACH_S = 5.0
HOME = Path(".flowchain")
"""Where the local stack of the current directory lives."""
Json = Annotated[bool, typer.Option("--json", help="print one JSON document, for programs")]
Prefix = Annotated[str | None, typer.Option("--prefix", help="topic prefix instead of the configured one")]


class CommandError(Exception):
    """What went wrong, in one sentence for the person at the terminal."""


def load_settings(**overrides: Any) -> Settings:
    """Return the settings; where addresses are not configured, those of the local stack if it runs."""
    return local.load_settings(HOME, **{name: value for name, value in overrides.items() if value is not None})


def reach_kafka(**overrides: Any) -> Settings:
    """Return the settings once the brokers have answered; raises CommandError when they do not.

    KafkaException: librdkafka refuses the settings themselves, for instance a file of certificates.
    """
    settings = load_settings(**overrides)
    said: list[str] = []

    def tell(error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            said.append(error.str())

    # librdkafka tells every failed attempt on standard error: one sentence is enough.
    config: dict[str, Any] = {**settings.kafka(), "log_level": 0, "error_cb": tell}
    client = AdminClient(config)
    try:
        client.list_topics(timeout=REACH_S)
    except KafkaException as error:
        client.poll(0)
        reason = f" ({said[-1].partition(' (after ')[0]})" if said else ""
        raise CommandError(
            f"Kafka does not answer at {settings.bootstrap_servers}{reason}: `flowchain up` starts a local one, "
            "FLOWCHAIN_BOOTSTRAP_SERVERS names another"
        ) from error
    return settings


def print_json(document: Any) -> None:
    """Print one JSON document on one line."""
    print(orjson.dumps(document, default=str).decode(), flush=True)
