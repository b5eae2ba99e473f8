"""What is to happen when, drawn from a seed as data. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from infra.supervisor import WORKERS

Kind = Literal["kill", "term", "roll", "pause", "resume", "scale", "engine_kill", "engine_stop", "engine_start"]
KILLS_PER_S, FEWEST_KILLS = 1 / 25, 4
OUTAGES: tuple[tuple[str, ...], ...] = (("postgres",), ("clickhouse",), ("postgres", "clickhouse"))
OUTAGE_S = 60.0
BROKER_DOWN_S = 5.0
PAUSE_S = 14.0
"""Longer than a session: the broker gives the partitions of a paused worker to another."""
LARGE, SMALL = 3, 2
BURST_EVERY_S, BURST_S = 20.0, 8.0


@dataclass(frozen=True)
class Action:
    """Something that is done to one part of the run, in seconds from its start."""

    at_s: float
    kind: Kind
    target: str
    """A kind of worker, or an engine."""
    number: int = 0
    """Which worker of its kind; of "scale": how many there are to be."""


@dataclass(frozen=True)
class Plan:
    """A run of chaos."""

    seed: int
    seconds: float
    rate: int
    """Events per second in a burst."""
    actions: tuple[Action, ...]
    """In the order of their time. They may come later: what they hit has to run, and a kill waits for a burst."""

    def count(self, *kinds: Kind) -> int:
        """Return how many actions are of these kinds."""
        return sum(action.kind in kinds for action in self.actions)


def draw(seed: int, seconds: float, rate: int) -> Plan:
    """Draw the plan of so many seconds: the same arguments give the same plan."""
    random = Random(f"chaos {seed}")
    actions = [
        *_kills(random, seconds), *_outages(random, seconds), *_scaling(random, seconds), *_pauses(random, seconds),
        *_broker(random, seconds), *_orderly(random, seconds),
    ]  # fmt: skip
    return Plan(seed, seconds, rate, tuple(sorted(actions, key=lambda action: action.at_s)))


def _kills(random: Random, seconds: float) -> Iterator[Action]:
    """Kill workers of all kinds in turn."""
    wanted = max(FEWEST_KILLS, round(seconds * KILLS_PER_S))
    kinds = [*WORKERS] * (wanted // len(WORKERS) + 1)
    random.shuffle(kinds)
    for number in range(wanted):
        at_s = seconds * (0.05 + 0.9 * (number + random.random()) / wanted)
        yield Action(at_s, "kill", kinds[number], random.randrange(LARGE))


def _outages(random: Random, seconds: float) -> Iterator[Action]:
    """Take the databases away, each once by itself and once at once; one in good order, the next one not."""
    length = min(OUTAGE_S, seconds / 8)
    slots = [0.12, 0.42, 0.72]
    random.shuffle(slots)
    for slot, engines in zip(slots, OUTAGES, strict=True):
        at_s = seconds * slot
        for engine in engines:
            how: Kind = "engine_kill" if random.random() < 0.5 else "engine_stop"
            yield Action(at_s, how, engine)
            yield Action(at_s + length, "engine_start", engine)


def _broker(random: Random, seconds: float) -> Iterator[Action]:
    for share in (0.3, 0.6) if seconds > 2 * OUTAGE_S else (0.3,):
        at_s = seconds * (share + random.uniform(0.0, 0.1))
        yield Action(at_s, "engine_kill", "kafka")
        yield Action(at_s + BROKER_DOWN_S, "engine_start", "kafka")


def _scaling(random: Random, seconds: float) -> Iterator[Action]:
    """One worker of each kind at first, then three, then two."""
    for name in random.sample(WORKERS, len(WORKERS)):
        yield Action(seconds * random.uniform(0.02, 0.1), "scale", name, LARGE)
        yield Action(seconds * random.uniform(0.55, 0.65), "scale", name, SMALL)


def _pauses(random: Random, seconds: float) -> Iterator[Action]:
    """Make a zombie of one worker of each kind."""
    names = random.sample(WORKERS, len(WORKERS))
    for place, name in enumerate(names):
        at_s = seconds * (0.2 + 0.6 * (place + random.random() / 2) / len(names))
        number = random.randrange(SMALL)
        yield Action(at_s, "pause", name, number)
        yield Action(at_s + PAUSE_S, "resume", name, number)


def _orderly(random: Random, seconds: float) -> Iterator[Action]:
    """End workers in good order: one of each kind, and one kind after the other once or twice."""
    for name in WORKERS:
        yield Action(seconds * random.uniform(0.1, 0.9), "term", name, random.randrange(SMALL))
    for name in random.sample(WORKERS, 2 if seconds > 2 * OUTAGE_S else 1):
        yield Action(seconds * random.uniform(0.15, 0.85), "roll", name)
