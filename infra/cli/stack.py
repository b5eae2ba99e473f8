"""`flowchain up`, `down`, `status`: the local stack and what runs on it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.table import Table

from connectors.lag import group_lag
from connectors.migrate import migrate_clickhouse, migrate_postgres
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra import devstack, supervisor
from infra.cli.common import HOME, CommandError, Json, console, load_settings, print_json, reach_kafka

READY_S = 60.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status):
        app.command()(command)


def up(
    engines_only: Annotated[bool, typer.Option("--engines-only", help="Kafka, PostgreSQL and ClickHouse, no workers")] = False,
    as_json: Json = False,
) -> None:
    """Start the local stack and the workers, and leave them running; does nothing where they run.

    Example: `flowchain up && flowchain status`
    """
    stack = start_engines(HOME, detached=True)
    prepare(load_settings())
    if not engines_only and supervisor.read_state(HOME) is None:
        _start_supervisor(HOME)
    addresses = {engine.name: engine.address for engine in stack.engines}
    if as_json:
        print_json(addresses)
        return
    for name, address in addresses.items():
        console.print(f"{name:12} {address}")
    if not engines_only:
        console.print(f"{'workers':12} {', '.join(supervisor.WORKERS)}: `flowchain status` shows them")


def down(as_json: Json = False) -> None:
    """Stop the workers and the local stack; their data stays.

    Example: `flowchain down`
    """
    state = supervisor.read_state(HOME)
    if state is not None:
        process = psutil.Process(int(str(state["supervisor"])))
        process.send_signal(signal.SIGTERM)
        process.wait(supervisor.STOP_S + 10)
    devstack.down(HOME)
    if as_json:
        print_json({"stopped": True})
    else:
        console.print("stopped; the data stays in", str(HOME))


def status(as_json: Json = False) -> None:
    """Show every worker: whether it moves, its lag, its watermark, and what it holds.

    Exit code 1 when one of them does not answer or stands still.

    Example: `flowchain status --json`
    """
    report: dict[str, Any] = {"workers": worker_reports(HOME), "lag": group_lag(reach_kafka())}
    if as_json:
        print_json(report)
    else:
        _print_status(report)
    if any(not worker["live"] for worker in report["workers"]):
        raise typer.Exit(1)


def start_engines(home: Path, *, detached: bool) -> devstack.Stack:
    """Start the engines, fetching them once; raises DevstackError with the reason."""
    devstack.fetch(console=console)
    return devstack.up(home, detached=detached, console=console)


def prepare(settings: Settings) -> None:
    """Bring topics and databases to what this version needs."""
    apply_topics(settings)
    migrate_postgres(settings.postgres_dsn.get_secret_value(), settings.postgres_schema)
    migrate_clickhouse(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database)


def worker_reports(home: Path) -> list[dict[str, Any]]:
    """Return what every supervised worker says of itself."""
    state = supervisor.read_state(home)
    reports = []
    for worker in (state or {}).get("workers", []):  # type: ignore[attr-defined]
        base = {"worker": worker["name"], "pid": worker["pid"], "restarts": worker["restarts"], "log": worker["log"]}
        try:
            answer = httpx.get(f"http://127.0.0.1:{worker['port']}/status", timeout=2.0).json()
        except httpx.HTTPError:
            answer = {"live": False, "ready": False}
        reports.append(base | answer)
    return reports


def _start_supervisor(home: Path) -> None:
    settings = load_settings()
    environment = {
        "FLOWCHAIN_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "FLOWCHAIN_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "FLOWCHAIN_CLICKHOUSE_DSN": settings.clickhouse_dsn.get_secret_value(),
    }
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "supervisor.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "infra.supervisor", str(home)], env={**os.environ, **environment},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        reports = worker_reports(home)
        if reports and all(report["ready"] for report in reports):
            return
        time.sleep(0.2)
    raise CommandError(f"the workers were not ready within {READY_S:.0f} s; their logs are in {logs}")


def _print_status(report: dict[str, Any]) -> None:
    table = Table("worker", "moves", "ready", "settled", "restarts", "watermark", "holds", box=None)
    for worker in report["workers"]:
        marks = [p["watermark_unix_us"] for p in worker.get("partitions", {}).values() if p["watermark_unix_us"]]
        behind = f"{time.time() - min(marks) / 1e6:.1f} s ago" if marks else ""
        table.add_row(
            worker["worker"], _yes(worker["live"]), _yes(worker["ready"]), f"{worker.get('last_settled_age_s', 0):.1f} s ago",
            str(worker["restarts"]), behind, _holdings(worker),
        )  # fmt: skip
    console.print(table if report["workers"] else "no workers run here; `flowchain up` starts them")
    lags = Table("consumer group", "topic", "lag", box=None)
    for row in report["lag"]:
        lags.add_row(row["group"], row["topic"], f"{row['lag']:,}")
    console.print(lags)


def _yes(value: bool) -> str:
    return "[green]yes[/green]" if value else "[red]no[/red]"


def _holdings(worker: dict[str, Any]) -> str:
    partitions = worker.get("partitions", {}).values()
    if worker["worker"] == "ingest":
        return f"{sum(p['open_executions'] for p in partitions):,} open executions"
    if worker["worker"] == "analysis":
        return f"{sum(p['open_windows'] for p in partitions):,} open windows"
    return f"{sum(worker.get('waiting', {}).values()):,} records to write"
