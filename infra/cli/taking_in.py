"""`flowchain bench otlp`: what taking in a span of OpenTelemetry costs."""

from typing import Annotated

import typer
from rich.table import Table

from infra.cli.bench import commands
from infra.cli.benching import cluster, measuring, progress, show
from infra.cli.common import Json


def register(app: typer.Typer) -> None:
    """Add the command to those of `flowchain bench`."""
    commands.command()(otlp)


def otlp(spans: Annotated[int, typer.Option(min=1_000, help="sent by each way")] = 200_000, as_json: Json = False) -> None:
    """Measure the intake worker with OTLP in protobuf over HTTP, gRPC and Kafka, from the request to the events; beside bare decoding.

    Runs on a Kafka of its own, begun anew and removed afterwards, unless brokers are configured explicitly. A core's time is that of the worker's
    process.

    Example: `flowchain bench otlp --spans 50000 --json`
    """
    from infra.bench import otlp as taking_in

    with measuring() as (home, told), cluster(home, told) as settings, progress(told) as tell:
        document = taking_in.measure(settings, home, spans, tell)
    table = Table("", "spans/s per core", "µs of CPU per span", "spans/s", "of bare decoding", box=None)
    for way in ("http", "grpc", "kafka"):
        found = document[way]
        table.add_row(way, f"{found['spans_per_core_s']:,}", str(found["cpu_us_per_span"]), f"{found['spans_per_s']:,}", f"{found['ratio_to_bare_decode']:.1%}")
    table.add_row("bare decode", f"{document['bare_decode']['spans_per_core_s']:,}", "", "", "")
    show(document, table, as_json)
