"""What the bench commands share: a folder, engines that live as long as the measurement, progress, errors in one sentence."""

import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from connectors.definitions import publish_definitions
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra import devstack
from infra.bench.loading import Tell, fresh_prefix
from infra.bench.processes import BenchError, until
from infra.cli.common import HOME, CommandError, console, print_json
from infra.devstack import EngineName, Stack
from infra.local import addresses
from infra.preparing import prepare
from infra.simulator import definitions
from infra.supervisor import NotReady, Supervisor, is_ready, workers
from schemas.definitions import ChainDefinition


@contextmanager
def measuring() -> Iterator[tuple[Path, Console]]:
    """Give a folder that is removed afterwards, and where progress is told; errors of a measurement become a sentence."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parent = HOME / "bench"
    parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(dir=parent)).resolve()
    try:
        yield home, Console(stderr=True, highlight=False)
    except (BenchError, devstack.DevstackError, NotReady) as error:
        raise CommandError(str(error)) from error
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def own_engines(home: Path, told: Console, engines: Collection[str]) -> Iterator[Stack]:
    """Run engines of the measurement's own, begun anew."""
    told.print(f"starting {', '.join(engines)} …")
    with devstack.running(home, engines=list(engines), console=told) as stack:
        yield stack


@contextmanager
def pipeline(
    home: Path, told: Console, names: Sequence[str], engines: Collection[EngineName], chains: Sequence[ChainDefinition] = (), **given: Any
) -> Iterator[tuple[Settings, Supervisor]]:
    """Run workers on engines of their own until the block ends; it begins when they are ready.

    `chains` are put in force, those of the simulator where none are given; `given` are settings.
    """
    with own_engines(home, told, engines) as stack:
        settings = Settings(**{**addresses(stack), **given})
        (prepare if "postgres" in engines else apply_topics)(settings)
        publish_definitions(settings, chains or definitions())
        with workers(home, settings.environment(*addresses(stack), *given), names) as supervisor:
            until(lambda: all(is_ready(child.port) for child in supervisor.children), "the workers were not ready")
            yield settings, supervisor


@contextmanager
def cluster(home: Path, told: Console) -> Iterator[Settings]:
    """Give settings with a fresh prefix: on the configured brokers, else on a Kafka that lives as long as the block."""
    prefix = fresh_prefix()
    if "bootstrap_servers" in Settings.explicit():
        yield Settings(topic_prefix=prefix)
        return
    with own_engines(home, told, ["kafka"]) as stack:
        yield Settings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=prefix)


@contextmanager
def progress(told: Console) -> Iterator[Tell]:
    """Give a function that shows how far a stage is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=told) as shown:
        bars: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in bars or shown.tasks[bars[stage]].finished:
                bars[stage] = shown.add_task(stage)
            shown.update(bars[stage], completed=min(done, total), total=total)

        yield tell


def numbers(text: str, least: int = 1) -> tuple[int, ...]:
    """Return a list of whole numbers as it stands in an option, none below `least`."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < least:
        raise CommandError(f"{text} is no list of {'positive' if least else 'whole'} numbers, like 1,10,100")
    return found


def show(document: dict[str, Any], table: Table, as_json: bool) -> None:
    """Print a result as JSON, or as a table with the machine below."""
    if as_json:
        print_json(document)
        return
    console.print(table)
    on = document["machine"]
    console.print(f"{on['cores']} cores, Python {on['python']}, load {on['load_1m']} in the last minute")
