"""`flowchain up`, `down`, `status`: the local stack and what runs on it."""

import time
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from connectors.lag import group_lag
from connectors.settings import Settings
from infra import background, devstack, local
from infra.cli.common import HOME, CommandError, Json, console, load_settings, print_json, reach_kafka
from infra.devstack import EngineName
from infra.preparing import prepare
from infra.supervisor import API, INTAKE, WORKERS, is_free

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="of loopback; a free one where left out")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status):
        app.command()(command)


def up(
    engines_only: Annotated[bool, typer.Option("--engines-only", help="Kafka, PostgreSQL and ClickHouse, no workers")] = False,
    kafka_port: Port = None,
    postgres_port: Port = None,
    clickhouse_port: Port = None,
    api_port: Port = None,
    as_json: Json = False,
) -> None:
    """Start the local stack and the workers, and leave them running; does nothing where they run.

    A server that is configured (FLOWCHAIN_BOOTSTRAP_SERVERS, FLOWCHAIN_POSTGRES_DSN, FLOWCHAIN_CLICKHOUSE_DSN) is used
    instead of a local one.

    Example: `flowchain up --kafka-port 9092 && flowchain status`
    """
    configured = local.configured()
    ports = _ports(configured, {"kafka": kafka_port, "postgres": postgres_port, "clickhouse": clickhouse_port})
    stack = devstack.up(HOME, detached=True, ports=ports, external=configured, console=console)
    settings = load_settings()
    with background.locked(HOME):  # topics and schemas are made by one at a time
        prepare(settings)
    if not engines_only:
        background.start(HOME, settings.environment(*local.SETTING.values()) | {"FLOWCHAIN_API_PORT": str(_api_port(settings, api_port))} | _otlp_ports(settings))
    addresses = {engine.name: engine.shown_address for engine in stack.engines} | _api_url() | _otlp_addresses()
    if as_json:
        print_json(addresses)
        return
    for name, address in addresses.items():
        console.print(f"{name:12} {address}")
    if not engines_only:
        console.print(f"{'workers':12} {', '.join((*WORKERS, INTAKE))}: `flowchain status` shows them")


def down(as_json: Json = False) -> None:
    """Stop the workers and the local stack; their data stays.

    Example: `flowchain down`
    """
    background.stop(HOME)
    devstack.down(HOME)
    if as_json:
        print_json({"stopped": True})
    else:
        console.print("stopped; the data stays in", str(HOME))


def status(as_json: Json = False) -> None:
    """Show every worker: whether it is ready, how far behind and how far it is, what it holds and has refused.

    Lag is in records (markers of transactions count, so an idle worker shows a few), dead letters since the worker's
    start. Exit code 1 when no worker runs, or one of them does not answer or stands still.

    Example: `flowchain status --json`
    """
    settings = reach_kafka()
    lags = group_lag(settings)
    rows = [_facts(worker, _lag(settings, lags, worker["worker"])) for worker in background.reports(HOME)]
    if as_json:
        print_json({"workers": rows, "lag": lags})
    elif rows:
        console.print(_table(rows))
    if not rows:
        raise CommandError("no workers run here; `flowchain up` starts them")
    if not all(row["live"] for row in rows):
        raise typer.Exit(1)


def _api_port(settings: Settings, given: int | None) -> int:
    """Return the port of the API: the one that is said, else the usual one unless somebody else has it."""
    if given is not None or "api_port" in Settings.explicit():
        return given or settings.api_port
    return settings.api_port if is_free(settings.api_port) else 0


def _api_url() -> dict[str, str]:
    state = background.read_state(HOME)
    port = next((worker.port for worker in state.workers if worker.name == API), None) if state else None
    return {} if port is None else {API: f"http://127.0.0.1:{port}"}


def _otlp_ports(settings: Settings) -> dict[str, str]:
    """Return the usual ports of OTLP, and any in place of one that somebody else has; a port that is said is left as it is."""
    usual = {name: getattr(settings, name) for name in ("intake_http_port", "intake_grpc_port") if name not in Settings.explicit()}
    return {f"FLOWCHAIN_{name.upper()}": str(port if is_free(port) else 0) for name, port in usual.items()}


def _otlp_addresses() -> dict[str, str]:
    found = next((report for report in background.reports(HOME) if report["worker"] == INTAKE and "otlp" in report), None)
    return {f"otlp/{way}": address for way, address in found["otlp"].items()} if found else {}


def _ports(configured: dict[str, str], given: dict[EngineName, int | None]) -> dict[str, int]:
    ports: dict[str, int] = {name: port for name, port in given.items() if port is not None}
    for name in ports.keys() & configured.keys():
        setting = local.SETTING[devstack.engine_name(name)].upper()
        raise CommandError(f"--{name}-port is for a server that is started, and FLOWCHAIN_{setting} names one that runs")
    return ports


def _lag(settings: Settings, lags: list[dict[str, Any]], worker: str) -> int:
    return sum(row["lag"] for row in lags if row["group"] == settings.group(worker))


def _facts(worker: dict[str, Any], lag: int) -> dict[str, Any]:
    """Return what a worker says with its sums; None stands for what this kind of worker does not have."""
    partitions = worker.get("partitions", {}).values()
    marks = [p["watermark_unix_us"] for p in partitions if p["watermark_unix_us"]]
    windows = [p["open_windows"] for p in partitions if "open_windows" in p]
    return {
        "dead_letters": None,
        "last_settled_age_s": None,
        **worker,
        "lag": lag,
        "watermark_unix_us": min(marks, default=None),
        "windows_open": sum(windows) if windows else None,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    words = (Column(word, no_wrap=True) for word in ("worker", "ready", "lag", "watermark", "settled"))
    table = Table(
        *words, Column("windows open", min_width=7), Column("dead letters", min_width=7),
        Column("restarts", no_wrap=True), box=None, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for row in rows:
        mark, age = row["watermark_unix_us"], row["last_settled_age_s"]
        table.add_row(
            row["worker"], _yes(row["ready"] and row["live"]), f"{row['lag']:,}",
            _ago(None if mark is None else time.time() - mark / 1e6), _ago(age),
            _count(row["windows_open"]), _count(row["dead_letters"]), str(row["restarts"]),
        )  # fmt: skip
    return table


def _yes(value: bool) -> str:
    return "[green]yes[/green]" if value else "[red]no[/red]"


def _ago(age_s: float | None) -> str:
    return "" if age_s is None else f"{age_s:.1f} s ago" if age_s < 10 else f"{age_s:,.0f} s ago"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
