"""`flowchain worker`: the processes of the pipeline, each in the foreground."""

import sys
from enum import StrEnum

import faust
import typer

from agents.analysis import analysis_app
from agents.ingest import IngestWorker, TooManyDeadLetters
from connectors.settings import Settings
from connectors.telemetry import configure_logging
from infra.cli.common import CommandError, Prefix, load_settings


class Worker(StrEnum):
    """What a process can be."""

    INGEST = "ingest"
    ANALYSIS = "analysis"
    SINKS = "sinks"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(name: Worker, prefix: Prefix = None) -> None:
    """Run one worker until SIGTERM or Ctrl-C.

    Exit code 1 means: restart me. Run as many of each as there are partitions.

    Example: `flowchain worker ingest`
    """
    settings = load_settings(topic_prefix=prefix)
    configure_logging(settings)
    if name is Worker.INGEST:
        try:
            IngestWorker(settings).run()
        except TooManyDeadLetters as error:
            raise CommandError(str(error)) from error
    else:
        run_faust(analysis_app(settings), settings)


def run_faust(app: faust.App, settings: Settings) -> None:
    """Run a Faust app as this process; exits 1 when it crashes."""
    worker = faust.Worker(app, loglevel=settings.log_level, redirect_stdouts=False, override_logging=False)
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        sys.exit(stop.code)
