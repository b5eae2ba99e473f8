"""How fast the real ingest worker is on a real broker, beside other ways to read the same topic, in the same run."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors.definitions import publish_definitions
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra.bench.baselines import BASELINES, Job, LeftOut
from infra.bench.commits import Reading, committed, throughput
from infra.bench.loading import Tell, pack, preload, remove_topics
from infra.bench.machine import machine
from infra.bench.processes import BenchError, python, tail
from infra.simulator import definitions, generate
from schemas.topics import EVENTS

WORKER = "worker"


@dataclass(frozen=True)
class Plan:
    """What is measured: every number of events per message with every number of workers, and the baselines once per message size."""

    events: int = 1_000_000
    baseline_s: float = 15.0
    against: tuple[str, ...] = ("faust",)
    per_message: tuple[int, ...] = (1,)
    workers: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Run:
    """One figure."""

    engine: str
    per_message: int
    workers: int
    events_per_s: float | None
    why: str = ""
    """Why there is no figure."""


@dataclass
class Outcome:
    """What was measured."""

    events: int
    runs: list[Run] = field(default_factory=list)

    def find(self, engine: str, per_message: int, workers: int | None = None) -> float | None:
        """Return a figure; with the fewest workers where their number is left out."""
        found = [r for r in self.runs if r.engine == engine and r.per_message == per_message and workers in (None, r.workers)]
        return min(found, key=lambda run: run.workers).events_per_s if found else None

    def ratio(self, run: Run) -> float | None:
        """Return how many times faster the worker is than another run, at the same events per message and number of workers."""
        ours = self.find(WORKER, run.per_message, run.workers)
        return ours / run.events_per_s if ours and run.events_per_s and run.engine != WORKER else None

    def document(self) -> dict[str, Any]:
        """Return the outcome for programs; what stands on top is the first of everything."""
        ours = self.runs[0]
        faust = self.find("faust", ours.per_message)
        return {
            "events_per_s": _rounded(ours.events_per_s), "events": self.events,
            "stock_faust_events_per_s": _rounded(faust),
            "ratio": round(ours.events_per_s / faust, 1) if faust and ours.events_per_s else None,
            "runs": [
                {"engine": r.engine, "events_per_message": r.per_message, "workers": r.workers,
                 "events_per_s": _rounded(r.events_per_s), "ratio": _rounded(self.ratio(r), 2), "why": r.why or None}
                for r in self.runs
            ],
            "machine": machine(),
        }  # fmt: skip


def _rounded(value: float | None, digits: int = 0) -> float | int | None:
    return None if value is None else round(value, digits) if digits else round(value)


def measure(settings: Settings, plan: Plan, home: Path, tell: Tell) -> Outcome:
    """Measure everything of a plan; raises BenchError.

    `settings` has a fresh topic prefix, below which each measurement has topics of its own; logs of processes go to `home`.
    """
    outcome = Outcome(plan.events)
    for per_message in plan.per_message:
        for workers in plan.workers:
            own = settings.model_copy(update={"topic_prefix": f"{settings.topic_prefix}{per_message}x{workers}."})
            try:
                outcome.runs += _measure(own, plan, per_message, workers, home, tell)
            finally:
                remove_topics(own)
    return outcome


def _measure(settings: Settings, plan: Plan, per_message: int, workers: int, home: Path, tell: Tell) -> Iterator[Run]:
    apply_topics(settings)
    publish_definitions(settings, definitions())
    messages = preload(settings, pack(generate(plan.events), per_message, settings.source_partitions), plan.events, tell)
    yield Run(WORKER, per_message, workers, _worker(settings, plan.events, messages, workers, home, tell))
    job = Job(settings, plan.events, messages, workers, plan.baseline_s, home, tell)
    for name in plan.against:
        baseline = BASELINES[name]
        if workers == plan.workers[0] or baseline.scales:
            try:
                yield Run(name, per_message, workers, baseline.measure(job))
            except LeftOut as reason:
                yield Run(name, per_message, workers, None, str(reason))


def _worker(settings: Settings, events: int, messages: int, workers: int, home: Path, tell: Tell) -> float:
    environment: Mapping[str, str] = {"FLOWCHAIN_BOOTSTRAP_SERVERS": settings.bootstrap_servers, "FLOWCHAIN_HTTP_PORT": "0"}
    arguments = ("worker", "ingest", "--prefix", settings.topic_prefix)
    logs = [home / f"ingest-{number}.log" for number in range(workers)]
    with ExitStack() as running:
        processes = [
            running.enter_context(python("infra.cli", *arguments, log=log, environment=environment)) for log in logs
        ]
        readings = committed(settings, settings.topic(EVENTS.name), settings.group("ingest"), processes)
        try:
            return throughput(_told(readings, messages, tell), messages) * events / messages
        except BenchError as error:
            ended = [(p.returncode, log) for p, log in zip(processes, logs, strict=True) if p.poll() is not None]
            code, log = ended[0] if ended else (None, logs[0])
            raise BenchError(f"{error}; exit code {code}, the end of its log: {tail(log)}") from error


def _told(readings: Iterable[Reading], total: int, tell: Tell) -> Iterator[Reading]:
    for reading in readings:
        tell(WORKER, reading.messages, total)
        yield reading
