"""What the ingest worker is measured beside, each in a process of its own on the same topic."""

import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from connectors.settings import Settings
from infra.bench import streams_java
from infra.bench.commits import committed, throughput
from infra.bench.loading import Tell
from infra.bench.processes import BenchError, run, tail
from infra.devstack.downloads import default_cache
from schemas.topics import EVENTS

START_S = 60.0
"""How long a baseline may take to start, beside the time in which it is measured."""
QUIX = "quixstreams==3.28.1"
SCRIPTS = Path(__file__).parent


class LeftOut(Exception):
    """Why a baseline cannot be measured here, in one sentence."""


@dataclass(frozen=True)
class Job:
    """What a baseline has to read."""

    settings: Settings
    events: int
    messages: int
    workers: int
    seconds: float
    home: Path
    tell: Tell

    @property
    def topic(self) -> str:
        """The events topic."""
        return self.settings.topic(EVENTS.name)


@dataclass(frozen=True)
class Baseline:
    """Another way to read the topic."""

    measure: Callable[[Job], float]
    """Returns events/s."""
    says: str
    """What it does, for people."""
    scales: bool = False
    """It is measured with every number of workers; the others only with the first."""


def faust(job: Job) -> float:
    """A stock Faust agent that only counts."""
    return _reported(job, "faust", [sys.executable, "-m", "infra.bench.stock_faust"])


def raw(job: Job) -> float:
    """A loop that only consumes and decodes."""
    return _reported(job, "raw", [sys.executable, "-m", "infra.bench.raw_consume"])


def quix(job: Job) -> float:
    """Quix Streams with a window that counts, in an environment of its own: it wants other versions than this project."""
    return _reported(job, "quix", [str(quix_python(job.tell)), str(SCRIPTS / "quix_window.py")])


def streams(job: Job) -> float:
    """Kafka Streams in Java; measured like the worker, by what it has committed."""
    try:
        command = streams_java.command(job.home)
    except streams_java.NoJava as error:
        raise LeftOut(str(error)) from error
    name, log = f"{job.settings.topic_prefix}kafka-streams", job.home / "streams.log"
    outputs = [f"{name}.partials", f"{name}.traces"]
    streams_java.make_topics(job.settings, outputs)
    arguments = [job.settings.bootstrap_servers, job.topic, name, *outputs, str(job.workers), str(job.home / "streams-state")]
    with run([*command, *arguments], log=log) as process:
        try:
            readings = committed(job.settings, job.topic, name, [process])
            return throughput(readings, job.messages) * job.events / job.messages
        except BenchError as error:
            raise BenchError(f"{error}; the end of its log: {tail(log)}") from error
        finally:
            streams_java.remove_topics(job.settings, name)


BASELINES = {
    "faust": Baseline(faust, "a stock Faust agent that only counts"),
    "quix": Baseline(quix, "Quix Streams: a tumbling window that counts"),
    "streams": Baseline(streams, "Kafka Streams in Java: validates, tracks executions, windows; exactly_once_v2", scales=True),
    "raw": Baseline(raw, "only consume() and decode"),
}


def _reported(job: Job, name: str, command: Sequence[str]) -> float:
    """Run a baseline that writes what it has read, and in which time, to a file."""
    log, report = job.home / f"{name}.log", job.home / f"{name}.json"
    report.unlink(missing_ok=True)
    group = f"{job.settings.topic_prefix}{name}"
    arguments = (job.settings.bootstrap_servers, job.topic, group, str(job.seconds), str(job.events), str(report))
    deadline_s = time.monotonic() + job.seconds + START_S
    with run([*command, *arguments], log=log) as process:
        while not report.exists():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise BenchError(f"{name} gave no figure; the end of its log: {tail(log)}")
            left_s = max(0.0, deadline_s - START_S - time.monotonic())
            job.tell(name, round(job.seconds - left_s), round(job.seconds))
            time.sleep(0.25)
    read = orjson.loads(report.read_bytes())
    if read["events"] <= 0 or read["seconds"] <= 0:
        raise BenchError(f"{name} had read everything within its warm-up: give more --events")
    return float(read["events"] / read["seconds"])


def quix_python(tell: Tell) -> Path:
    """Return the Python of an environment that has Quix Streams, made once."""
    folder = default_cache() / f"bench-{QUIX.replace('==', '-')}"
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    tell("quix environment", 0, 1)
    venv.create(folder, with_pip=True, clear=True)
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", QUIX], check=False, capture_output=True, text=True,
        env={**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"},
    )  # fmt: skip
    if done.returncode:
        raise LeftOut(f"{QUIX} could not be installed: {done.stderr.strip()[-300:]}")
    (folder / "ready").touch()
    tell("quix environment", 1, 1)
    return python
