"""`flowchain bench api, websocket`: how fast questions are answered, and how many may listen."""

from typing import Annotated, Any

import typer
from rich.table import Table

from connectors.settings import Settings
from infra.bench import api as asking
from infra.bench import websocket as listening
from infra.cli.bench import commands
from infra.cli.benching import measuring, own_engines, progress, show
from infra.cli.common import Json
from infra.devstack import Stack
from infra.devstack.model import ALL
from infra.local import addresses
from infra.preparing import prepare


def register(app: typer.Typer) -> None:
    """Add the commands to those of `flowchain bench`."""
    for command in (api, websocket):
        commands.command()(command)


def api(
    rows: Annotated[int, typer.Option(min=10_000, help="trace rows in ClickHouse")] = 10_000_000,
    requests: Annotated[int, typer.Option(min=10, help="of each question")] = 200,
    as_json: Json = False,
) -> None:
    """Measure what the API needs for analysis and for status look-ups, each over HTTP; beside the bare ClickHouse query.

    Runs on engines of its own, begun anew and removed afterwards. One client asks one question after the other.

    Example: `flowchain bench api --rows 1000000 --json`
    """
    with measuring() as (home, told), own_engines(home, told, ALL) as stack:
        settings = _settings(stack)
        prepare(settings)
        with progress(told) as tell:
            document = asking.measure(settings, home, rows, requests, tell)
    table = Table("", "p50 ms", "p95 ms", "p99 ms", "bare p50 ms", "×", box=None)
    for name, found in (*document["analysis_ms"].items(), *document["status_ms"].items()):
        bare, ratio = found.get("bare_p50_ms"), found.get("ratio_p50")
        table.add_row(name, *(f"{found[q]:.1f}" for q in ("p50", "p95", "p99")), "" if bare is None else f"{bare:.1f}", "" if ratio is None else str(ratio))
    show(document, table, as_json)


def websocket(
    clients: Annotated[int, typer.Option(min=1, help="that listen at the same time")] = 2_000,
    alerts: Annotated[int, typer.Option(min=1, help="published one after the other")] = 100,
    slow: Annotated[int, typer.Option(min=0, help="further clients that never read")] = 20,
    as_json: Json = False,
) -> None:
    """Measure how long an alert takes from Kafka to every WebSocket client; beside a bare Kafka consumer of the same topic.

    Runs on a Kafka and databases of its own, begun anew and removed afterwards. The clients share this machine.

    Example: `flowchain bench websocket --clients 500 --json`
    """
    with measuring() as (home, told), own_engines(home, told, ALL) as stack:
        settings = _settings(stack)
        prepare(settings)
        with progress(told) as tell:
            document = listening.measure(settings, home, clients, alerts, slow, tell)
    table = Table("", "p50 ms", "p95 ms", "p99 ms", "max ms", box=None)
    for name in ("delivery_ms", "last_client_ms", "bare_consumer_ms"):
        table.add_row(name.removesuffix("_ms").replace("_", " "), *(f"{document[name][q]:.1f}" for q in ("p50", "p95", "p99", "max")))
    show(document, table, as_json)


def _settings(stack: Stack) -> Settings:
    given: dict[str, Any] = addresses(stack)
    return Settings(**given)
