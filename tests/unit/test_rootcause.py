"""Root-cause ranking on a world with known faults."""

from collections import Counter
from math import lgamma

import numpy as np
import pytest
from test_rootcause_world import HEALTHY, START_US, Fault, World, additions

from schemas.internal import Delta
from streams.graph import Graph
from streams.histogram import bucket_index
from streams.rootcause.base import Scene
from streams.rootcause.bayes import log_gamma
from streams.rootcause.executions import ExecutionReader
from streams.rootcause.faults import FaultReader
from streams.rootcause.memory import Counts, Memory, MemorySettings
from streams.rootcause.ranking import Ranking
from streams.rootcause.troubles import surprise
from streams.rootcause.windows import damage, shares


def scene(fault: Fault, seconds: int, seed: int = 1, hurt: tuple[str, ...] = (), rate: int = 6) -> Scene:
    """What is remembered after so many seconds."""
    memory, graph, world = Memory(), Graph(), World(fault, seed, rate)
    for second in range(seconds):
        deltas, edges = additions(world.second(second))
        for delta in deltas:
            memory.observe(delta)
        for edge in edges:
            graph.observe(edge)
        memory.fold(lambda context, start: start >= START_US + fault.first_s * 1_000_000)
    return Scene(memory, graph, hurt=hurt)


FAULTS = [
    (Fault("database", "error", 60), "database"),
    (Fault("database", "error", 60, share=0.4), "database"),
    (Fault("ai", "error", 60), "ai"),
    (Fault("database", "slow", 60), "database"),
    (Fault("hub", "slow", 60), "hub"),
    (Fault("trading", "stuck", 60), "trading"),
    (Fault("trading", "silent", 60), "trading"),
    (Fault("database", "silent", 60), "database"),
    (Fault("billing", "error", 60, share=0.5), "billing"),
    (Fault("gateway", "slow", 60), "gateway"),
]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("fault", "cause"), FAULTS, ids=[f"{f.component}-{f.kind}-{f.share}" for f, _ in FAULTS])
def test_cause_is_ranked_first(fault: Fault, cause: str, seed: int) -> None:
    suspects = Ranking().suspects(scene(fault, 100, seed))
    assert suspects[0].component == cause
    assert suspects[0].probability > 0.5
    assert cause in suspects[0].reason


def test_cause_is_found_against_a_long_normal_when_the_fault_is_older_than_what_is_remembered() -> None:
    suspects = Ranking().suspects(scene(Fault("hub", "slow", 400), 720, rate=3))
    assert suspects[0].component == "hub"


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_suspected_without_a_fault(seed: int) -> None:
    assert Ranking().suspects(scene(HEALTHY, 80, seed)) == []


def test_execution_reader_says_where_the_error_began() -> None:
    finding = ExecutionReader().read(scene(Fault("database", "error", 60), 100))[0]
    assert finding.component == "database"
    assert "failed with ConnectionError in " in finding.reason
    assert finding.since_us == START_US + 60_000_000


def test_fault_reader_leaves_victims_out() -> None:
    findings = FaultReader().read(scene(Fault("database", "error", 60), 100))
    assert [finding.component for finding in findings if finding.score > 1] == ["database"]


def test_a_busy_processor_counts_against_its_component() -> None:
    memory = Memory()
    for window in range(80):
        for number, name in enumerate("abc"):
            share = 0.9 if name == "b" and window >= 75 else 0.1 + 0.002 * ((window + number) % 5)
            samples = {"cpu_ratio": (1, round(share * 1e6), share)}
            memory.observe(Delta("t", "", "", name, START_US + window * 10_000_000, 0, 0, events=1, samples=samples))
        memory.fold(lambda context, start: False)
    found = ExecutionReader().read(Scene(memory, Graph()))
    assert [finding.component for finding in found] == ["b"]
    assert "CPU far above its normal median in 5 of 5 samples" in found[0].reason


def test_two_normal_executions_are_too_few_to_be_slow_against() -> None:
    known, odd = {bucket_index(4_000): 20.0}, {bucket_index(0): 1.0, bucket_index(6_000): 1.0}
    memory = Memory()
    for name, normal in (("a", known), ("b", known), ("c", odd)):
        memory.restore(name, None, [Counts("chain", "step", last_us=START_US, units=20.0, gap=normal)])
        for window in range(6):
            counts = Counts("chain", "step", units=2.0, clean=2.0, gap={bucket_index(5_000): 2.0})
            memory.restore(name, START_US + (window + 40) * 10_000_000, [counts])
    assert ExecutionReader().read(Scene(memory, Graph())) == []


def test_memory_does_not_learn_what_was_ill() -> None:
    memory = scene(Fault("database", "error", 60), 500).memory
    normal = memory.components["database"].normal["order", "store"]
    assert normal.failed == 0
    assert normal.completed > 100


def test_memory_is_bounded() -> None:
    reached: Counter[str] = Counter()
    memory = Memory(MemorySettings(max_contexts=3, recent_windows=4), reached)
    world = World()
    for second in range(120):
        for delta in additions(world.second(second))[0]:
            memory.observe(delta)
        memory.fold(lambda context, start: False)
    assert sum(len(component.contexts()) for component in memory.components.values()) == 3
    assert max(len(component.recent) for component in memory.components.values()) <= 5
    assert reached["contexts_over_limit"] > 0


def test_contexts_that_are_gone_make_room_for_new_ones() -> None:
    window_us = 10_000_000
    memory = Memory(MemorySettings(max_contexts=2, recent_windows=4, crowded_us=10 * window_us))
    for number, step in enumerate("ab" + "c" * 20):
        memory.observe(Delta("t", "chain", step, "x", number * window_us, 0, 0, events=1))
        memory.fold(lambda context, start: False)
    assert [step for _, step in memory.components["x"].contexts()] == ["c"]


def test_log_gamma_is_right() -> None:
    values = np.array([1e-4, 0.5, 1.0, 3.3, 50.0, 1e5])
    assert log_gamma(values) == pytest.approx([lgamma(value) for value in values], rel=1e-9, abs=1e-9)


def test_surprise_grows_with_the_evidence() -> None:
    assert surprise(0, 100, 0.01) == surprise(1, 100, 0.01) == 0.0
    assert surprise(10, 10, 0.01) == pytest.approx(46.05, abs=0.01)
    assert surprise(3, 300, 1e-4) < surprise(3, 30, 1e-4)


def test_share_of_the_damage_goes_to_the_deepest_that_moves_with_the_target() -> None:
    requests = np.full(5, 100.0)
    quiet, rise = np.array([1.0, 1.1, 1.0, 1.1, 1.0]), np.array([0.0, 0.0, 0.0, 5.0, 6.0])
    damages = {
        "front": damage(requests, quiet + rise),
        "middle": damage(requests, quiet + rise),
        "deep": damage(requests, rise + 1.0),
        "beside": damage(requests, quiet[::-1]),
    }
    callees = {"front": ["middle", "beside"], "middle": ["deep"]}
    found = shares("front", damages, lambda name: callees.get(name, []))
    assert max(found, key=lambda name: found[name]) == "deep"
    assert found["deep"] > 0.9
