"""A small world to find causes in: executions of known shape with known faults, booked as ingest books them.

    gateway/handle ─call─▶ hub/route ─call─▶ database/store
                                └────call─▶ ai/score
    hub/route ─topic orders─▶ trading/execute ─flow─▶ billing/charge
    gateway/search ─call─▶ database/find        (chain search)
"""

from collections.abc import Callable, Iterator
from random import Random

from msgspec import Struct

from schemas.analysis import Incident
from schemas.internal import (
    COMPLETED,
    FAILED,
    STARTED,
    Delta,
    EdgeDelta,
)
from streams.booking import Book, Chain, Window
from streams.impact import ImpactSettings, ImpactStage
from streams.runs import Execution, Step
from streams.structure import book_unit
from streams.units import observe

START_US = 1_800_000_000_000_000
SECOND = 1_000_000
TOPIC = "flowchain.events.v1"
EXPECTED_US = {"store": 40_000, "find": 40_000, "score": 80_000, "execute": 80_000, "charge": 50_000}


class Fault(Struct, frozen=True):
    """What is done to one component from one second to another."""

    component: str = ""
    kind: str = ""
    first_s: int = 0
    last_s: int = 10_000
    share: float = 1.0
    factor: float = 8.0
    tenant: str = ""


HEALTHY = Fault()


class World:
    """Makes executions second by second."""

    def __init__(self, fault: Fault = HEALTHY, seed: int = 1, rate: int = 6, noise: float = 0.0) -> None:
        self.fault, self.rate, self.noise = fault, rate, noise
        self.rng = Random(seed)
        self.offset = 0

    def second(self, second: int, tenant: str = "acme") -> list[Execution]:
        """Return the executions that end in a second."""
        start = START_US + second * SECOND
        found = []
        for number in range(self.rate):
            at = start + self.rng.randrange(SECOND // 2)
            chain = "search" if number % 3 == 2 else "order"
            found.append(self._run(chain, tenant, second, at, f"{tenant}-{second}-{number}"))
        return found

    def _hit(self, component: str, kind: str, second: int, tenant: str) -> bool:
        fault = self.fault
        return (
            (fault.component, fault.kind) == (component, kind)
            and fault.first_s <= second < fault.last_s
            and fault.tenant in ("", tenant)
            and self.rng.random() < fault.share
        )

    def _run(self, chain: str, tenant: str, second: int, at: int, name: str) -> Execution:
        self.offset += 10
        run = _Run(self, Execution(tenant, chain, name, self.offset, self.offset + 9, user=f"user-{name}"), second)
        run.go(at)
        return run.execution


class _Run:
    """One execution: walks the topology and lets the fault strike."""

    def __init__(self, world: World, execution: Execution, second: int) -> None:
        self.world, self.execution, self.second = world, execution, second
        self.broken = False

    def go(self, at: int) -> None:
        execution = self.execution
        execution.start_us = at
        if execution.chain == "search":
            end, alive = self.call("gateway", "search", at, "", [("database", "find")])
        else:
            calls = [("database", "store"), ("ai", "score")]
            end, alive = self.call("gateway", "handle", at, "", [("hub", "route", calls)])
            if alive:
                end, alive = self.flow("trading", "execute", execution.steps["route"].end_us, "route", "orders")
            if alive:
                end, alive = self.flow("billing", "charge", end, "execute", "")
        execution.last_us = execution.ended_us = max(step.end_us or step.start_us for step in execution.steps.values())
        execution.status = "failed" if self.broken else "incomplete" if execution.missing else "completed"

    def call(self, component: str, step: str, at: int, parent: str, calls: list[tuple]) -> tuple[int, bool]:  # type: ignore[type-arg]
        """Run a step that calls others; return its end and whether it went well."""
        own = self.own_time(component)
        hit = self.hit(component, "error")
        if self.hit(component, "silent"):
            return at + 1_000, False
        record = self.begin(component, step, at, parent)
        now, well = at + own // 2, True
        for child in [] if hit else calls:
            end, well = self.call(*child[:2], now + 200, step, list(child[2]) if len(child) > 2 else [])
            now = max(now, end) + 200
            if not well:
                break
        self.finish(record, now + own // 2, well and not hit, "ConnectionError")
        return record.end_us, record.status == COMPLETED

    def flow(self, component: str, step: str, after: int, parent: str, topic: str) -> tuple[int, bool]:
        """Run a step that goes on with what another left."""
        at = after + self.world.rng.randrange(2_000, 5_000)
        if self.hit(component, "silent"):
            self.execution.missing.append(f"{component}/{step}")
            return at, False
        record = self.begin(component, step, at, parent)
        record.topic = topic
        if self.hit(component, "stuck"):
            self.execution.missing.append(f"{component}/{step}")
            return at, False
        self.finish(record, at + self.own_time(component), not self.hit(component, "error"), "ValueError")
        return record.end_us, record.status == COMPLETED

    def hit(self, component: str, kind: str) -> bool:
        return self.world._hit(component, kind, self.second, self.execution.tenant)

    def own_time(self, component: str) -> int:
        own = int(self.world.rng.lognormvariate(9.0, 0.25))
        slow = self.hit(component, "slow")
        return int(own * self.world.fault.factor) if slow else own

    def begin(self, component: str, step: str, at: int, parent: str) -> Step:
        parents = [(parent, "", "")] if parent else []
        record = Step(step, step, component, self.execution.first_offset, parents=parents, start_us=at, saw_started=True)
        self.execution.steps[step] = record
        return record

    def finish(self, record: Step, end: int, well: bool, error: str) -> None:
        if self.world.rng.random() < self.world.noise:
            well, error = False, "Hiccup"
        record.end_us, record.duration_us = end, end - record.start_us
        record.status = COMPLETED if well else FAILED
        if not well:
            record.error_type, self.broken = error, True


def additions(executions: list[Execution], window_us: int = 10 * SECOND) -> tuple[list[Delta], list[EdgeDelta]]:
    """Return what ingest would book of finished executions."""
    book = Book(window_us, 1_000, lambda tenant, time_us: None)
    for execution in executions:
        chain = Chain(execution.tenant, execution.chain, ())
        _book_steps(book, chain, execution)
        units, edges = observe(execution)
        for unit in units:
            book_unit(book.at(chain, unit.step, unit.component, unit.end_us, execution.last_offset), unit)
        for edge in edges:
            book.edge(chain, edge, execution.last_us)
    book.cut(0)
    slices, *_ = book.take()
    return [delta for piece in slices for delta in piece.deltas], [edge for piece in slices for edge in piece.edges]


def _book_steps(book: Book, chain: Chain, execution: Execution) -> None:
    def at(step: str, component: str, time_us: int) -> Window:
        return book.at(chain, step, component, time_us, execution.first_offset)

    hurt = False
    for step in execution.steps.values():
        window = at(step.step, step.component, step.end_us or step.start_us)
        window.events += 1
        window.started += 1
        if step.status == STARTED:
            continue
        window.failed += step.status == FAILED
        window.durations_us.append(step.duration_us)
        kinds = ["step.failed"] * (step.status == FAILED)
        kinds += ["step.slow"] * (step.duration_us > EXPECTED_US.get(step.step, 1 << 60))
        for kind in kinds:
            window.violated(kind, step.end_us)
            if not hurt:
                window.hurt(execution.execution, execution.user)
            hurt = True
    for name in execution.missing:
        component, step = name.split("/")
        window = at(step, component, execution.last_us)
        window.violated("step.missing", execution.last_us)
        window.hurt(execution.execution, execution.user)


def run(
    world: World,
    seconds: int,
    stage: ImpactStage | None = None,
    first: int = 0,
    tenants: tuple[str, ...] = ("acme",),
    each: Callable[[int, list[Incident]], None] | None = None,
) -> Iterator[Incident]:
    """Feed a stage second by second and yield the incidents."""
    stage = stage or ImpactStage(ImpactSettings())
    for second in range(first, first + seconds):
        for tenant in tenants:
            deltas, edges = additions(world.second(second, tenant))
            stage.observe(deltas, edges, TOPIC, 0)
        found = stage.advance(START_US + (second + 1) * SECOND, [])
        if each is not None:
            each(second, found)
        yield from found


def test_the_world_is_booked_completely() -> None:
    executions = World().second(0)
    deltas, edges = additions(executions)
    assert sum(delta.units for delta in deltas) == sum(len(execution.steps) for execution in executions)
    assert {(edge.kind, edge.source, edge.target) for edge in edges} == {
        ("call", "gateway", "hub"), ("call", "hub", "database"), ("call", "hub", "ai"), ("call", "gateway", "database"),
        ("topic", "hub", "trading"), ("flow", "trading", "billing"),
    }  # fmt: skip
