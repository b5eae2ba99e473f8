"""`flowchain worker`: the processes of the pipeline, each in the foreground.

A worker loads only what it runs: the detectors of the analysis alone take seconds to load, and whoever comes back after a
crash has none to spare.
"""

import signal
import sys
import threading
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog
import typer

from connectors.settings import Settings
from connectors.telemetry import configure_logging
from infra.cli.common import HOME, Prefix, reach_kafka
from infra.compiling import stale
from infra.supervisor import workers

if TYPE_CHECKING:
    import faust


class Worker(StrEnum):
    """What a process can be."""

    INGEST = "ingest"
    ANALYSIS = "analysis"
    SINKS_CLICKHOUSE = "sinks-clickhouse"
    SINKS_POSTGRES = "sinks-postgres"
    INTAKE = "intake"
    API = "api"
    SINKS = "sinks"
    """Both of them, as two child processes."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(name: Worker, prefix: Prefix = None) -> None:
    """Run one worker until SIGTERM or Ctrl-C.

    Exit code 1 means: restart me; 65: more dead letters than allowed, which no restart mends. Run as many of each as there are partitions.

    Example: `flowchain worker ingest`
    """
    settings = reach_kafka(topic_prefix=prefix)
    configure_logging(settings)
    if name is Worker.INGEST:
        run_ingest(settings)
    elif name is Worker.ANALYSIS:
        run_analysis(settings)
    elif name is Worker.INTAKE:
        run_intake(settings)
    elif name is Worker.API:
        run_api(settings)
    elif name is Worker.SINKS:
        run_both_sinks(settings)
    else:
        run_sinks(settings, name.removeprefix("sinks-"))


def run_ingest(settings: Settings) -> None:
    """Run the ingest loop as this process."""
    from agents.ingest import IngestWorker

    if changed := stale():
        structlog.get_logger("ingest").warning("changed after it was compiled, and therefore not in use", streams=changed)
    IngestWorker(settings).run()


def run_analysis(settings: Settings) -> None:
    """Run the analysis as this process."""
    from agents.analysis import analysis_app

    run_faust(analysis_app(settings), settings)


def run_intake(settings: Settings) -> None:
    """Run the intake as this process."""
    from agents.intake import IntakeWorker

    IntakeWorker(settings).run()


def run_api(settings: Settings) -> None:
    """Serve the API as this process."""
    from connectors.http.serve import serve

    serve(settings)


def run_sinks(settings: Settings, database: str) -> None:
    """Run the sinks of one database as this process."""
    from agents.sinks import sinks_app

    run_faust(sinks_app(settings, database), settings)


def run_both_sinks(settings: Settings) -> None:
    """Run a process per database, restarted as needed, until SIGTERM or Ctrl-C."""
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    environment = {"FLOWCHAIN_TOPIC_PREFIX": settings.topic_prefix}
    with workers(HOME, environment, (Worker.SINKS_CLICKHOUSE, Worker.SINKS_POSTGRES)):
        done.wait()


def run_faust(app: "faust.App", settings: Settings) -> None:
    """Run a Faust app as this process; exits 1 when it crashes."""
    import faust

    worker = faust.Worker(app, loglevel=settings.log_level, redirect_stdouts=False, override_logging=False)
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        sys.exit(stop.code)
