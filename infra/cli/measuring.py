"""`flowchain bench alert, growth, sinks, e2e, sdk, middleware`: latency, cost that grows, databases, the whole stack, the SDK."""

from typing import Annotated, Any

import typer
from rich.table import Table

from connectors.settings import Settings
from infra.bench import alert as alerting
from infra.bench import e2e as whole
from infra.bench import growth as growing
from infra.bench import middleware as requesting
from infra.bench import sdk as reporting
from infra.bench import sinks as storing
from infra.bench.loading import fresh_prefix
from infra.cli.bench import commands
from infra.cli.benching import measuring, numbers, own_engines, pipeline, progress, show
from infra.cli.common import Json
from infra.devstack.model import ALL
from infra.local import addresses
from infra.preparing import migrate
from infra.supervisor import WORKERS

SIZES = "1000,10000,100000,1000000"
QUANTILES = ("p50", "p95", "p99", "max")


def register(app: typer.Typer) -> None:
    """Add the commands to those of `flowchain bench`."""
    for command in (growth, alert, sinks, e2e, sdk, middleware):
        commands.command()(command)


def growth(
    opened: Annotated[str, typer.Option(help="open executions")] = SIZES,
    steps: Annotated[str, typer.Option(help="chains times steps")] = "100,1000,10000,100000",
    tenants: Annotated[str, typer.Option(help="tenants, each with a chain of ten steps")] = "10,100,1000,10000",
    events: Annotated[int, typer.Option(min=10_000, help="measured at each size")] = 60_000,
    as_json: Json = False,
) -> None:
    """Measure what an event costs against open executions, chains and steps, and tenants; beside the smallest of each.

    In this process, without Kafka: the tracker of a partition and what it publishes, and the whole analysis behind it.

    Example: `flowchain bench growth --opened 1000,100000 --steps 100,10000 --tenants 10,1000`
    """
    sizes = dict(zip(growing.AXES, map(numbers, (opened, steps, tenants)), strict=True))
    with measuring() as (_, told), progress(told) as tell:
        document = growing.measure(sizes, events, tell)
    table = Table("", "size", "ingest µs/event", "×", "analysis µs/event", "×", box=None)
    for p in document["points"]:
        table.add_row(
            p["axis"], f"{p['size']:,}", str(p["ingest_us_per_event"]), str(p["ingest_ratio"]), str(p["analysis_us_per_event"]),
            str(p["analysis_ratio"]),
        )  # fmt: skip
    show(document, table, as_json)


def alert(
    trials: Annotated[int, typer.Option(min=1, help="of each kind")] = 40,
    rate: Annotated[float, typer.Option(min=100, help="events per second beside the trials")] = 500.0,
    as_json: Json = False,
) -> None:
    """Measure from the event to its alert on the topic: failed, slow, missing, anomaly; beside an echo through the broker.

    Always on a Kafka of its own, with one ingest and one analysis worker, windows of 1 s and a lateness of 0.5 s.

    Example: `flowchain bench alert --trials 100`
    """
    with (
        measuring() as (home, told),
        pipeline(home, told, ("ingest", "analysis"), ["kafka"], [alerting.CHAIN], **alerting.SETTINGS) as (settings, _),
        progress(told) as tell,
    ):
        document = alerting.measure(settings, trials, rate, tell)
    table = Table("ms", *QUANTILES, "target", "without an alert", box=None)
    table.add_row("echo", *_quantiles(document["echo"]))
    for kind, target in alerting.TARGET_MS.items():
        row = document[kind]
        table.add_row(f"{kind}: record", *_quantiles(row["record"]))
        table.add_row(f"[bold]{kind}: alert[/bold]", *_quantiles(row["alert"]), str(target), str(row["not_alerted"]))
    show(document, table, as_json)


def sinks(
    events: Annotated[int, typer.Option(min=1_000, help="of which executions are made and written")] = 400_000, as_json: Json = False
) -> None:
    """Measure the sinks' code: step rows/s into ClickHouse, upserts/s into PostgreSQL; beside the bare databases.

    Always on databases of its own. Decoding and building rows counts for the sinks, not for the bare insert and the bare COPY.

    Example: `flowchain bench sinks --events 1000000`
    """
    with (
        measuring() as (home, told),
        own_engines(home, told, ["postgres", "clickhouse"]) as stack,
        progress(told) as tell,
    ):
        settings = Settings(topic_prefix=fresh_prefix(), **addresses(stack))  # type: ignore[arg-type]
        migrate(settings)
        document = storing.measure(settings, events, tell)
    table = Table("", "/s", "bare /s", "ratio", box=None)
    for database, unit in (("clickhouse", "rows"), ("postgres", "upserts")):
        row = document[database]
        table.add_row(f"{database}, {unit}", f"{row[f'{unit}_per_s']:,}", f"{row[f'bare_{unit}_per_s']:,}", str(row["ratio"]))
    table.add_row("postgres, updates", f"{document['postgres']['updates_per_s']:,}")
    show(document, table, as_json)


def e2e(
    start: Annotated[int, typer.Option(min=100, help="first rate, events per second")] = 1_000,
    step: Annotated[float, typer.Option(min=5, help="seconds for which a rate must hold")] = 60.0,
    searches: Annotated[int, typer.Option(min=0, help="how often the gap is halved at the end")] = 2,
    as_json: Json = False,
) -> None:
    """Find the highest rate at which the whole stack (engines, all workers, the load) keeps up with flat lag.

    Always on engines of its own. Rates double until a worker falls behind, then the gap is halved; beside a producer alone.

    Example: `flowchain bench e2e --start 2000 --step 30`
    """
    with measuring() as (home, told), pipeline(home, told, WORKERS, ALL) as (settings, _), progress(told) as tell:
        document = whole.measure(settings, start, step, searches, tell)
    table = Table("events/s", "sent/s", "did not keep up", box=None)
    for attempt in document["attempts"]:
        table.add_row(f"{attempt['rate']:,}", f"{attempt['sent_per_s']:,.0f}", attempt["bound"] or "all did")
    table.add_row(f"[bold]{document['events_per_s']:,}[/bold]", "", "the highest that held")
    show(document, table, as_json)


def sdk(
    steps: Annotated[int, typer.Option(min=100, help="measured in each condition")] = 20_000,
    rate: Annotated[float, typer.Option(min=100, help="steps per second")] = 2_000.0,
    as_json: Json = False,
) -> None:
    """Measure what a step costs in the thread of a service with the broker up, down and slow; beside an OpenTelemetry span.

    Always on a Kafka of its own. Slow: the broker is halted for 0.9 s of every second.

    Example: `flowchain bench sdk --steps 50000`
    """
    with measuring() as (home, told), own_engines(home, told, ["kafka"]) as stack, progress(told) as tell:
        document = reporting.measure(stack, steps, rate, tell)
    table = Table("µs per step", *QUANTILES, "delivered", "dropped", box=None)
    for name in ("silent", "up", "down", "slow"):
        row = document[name]
        table.add_row("reports to nobody" if name == "silent" else f"broker {name}", *_quantiles(row), f"{row['delivered']:,}", f"{sum(row['dropped'].values()):,}")
    rival = document["opentelemetry"]
    table.add_row("OpenTelemetry span", *(_quantiles(rival) if "p50" in rival else [rival["why"]]))
    table.add_row("reading the clock", *_quantiles(document["clock"]))
    show(document, table, as_json)


def middleware(
    requests: Annotated[int, typer.Option(min=1_000, help="per round and application")] = 20_000,
    as_json: Json = False,
) -> None:
    """Measure what the ASGI middleware adds to a request, on one core, beside the same applications without it.

    Always on a Kafka of its own. A request begins an execution, or continues that of its caller; its events are delivered
    before the clock stops. The publisher and librdkafka share the core with the application; the broker has another. Under uvicorn: 16
    connections over loopback, the service started by `flowchain-instrument`; µs of its process per request.

    Example: `flowchain bench middleware --json`
    """
    with measuring() as (home, told), own_engines(home, told, ["kafka"]) as stack, progress(told) as tell:
        document = requesting.measure(stack, requests, tell)
    table = Table("application", "requests", "requests/s", "CPU µs each", "CPU µs more", box=None)
    says = {"plain": "without the middleware", "begins": "each begins an execution", "continues": "each continues one"}
    for name, row in document["apps"].items():
        for way, text in says.items():
            found = row[way]
            table.add_row(name, text, f"{found['per_s']:,}", f"{found['cpu_us']:,.1f}", f"{found['overhead_us']:,.1f}")
    for name, row in document["uvicorn"].items():
        for way in ("plain", "begins"):
            more = f"{row[way]['overhead_us']:,.1f}" if way == "begins" else ""
            table.add_row(f"{name}, uvicorn", says[way], f"{row[way]['per_s']:,}", f"{row[way]['cpu_us']:,.1f}", more)
    show(document, table, as_json)


def _quantiles(row: dict[str, Any]) -> list[str]:
    return ["—" if row[name] is None else f"{row[name]:,.1f}" for name in QUANTILES]
