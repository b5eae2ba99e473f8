"""One run: traffic, batch consumers, resource samples and poison, paced or as fast as it goes."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sin
from random import Random

from flowchain import Context
from infra.simulator.engine import Engine
from infra.simulator.faults import Fault, Faults
from infra.simulator.kernel import Process
from infra.simulator.poison import POISON
from infra.simulator.recorder import Sink
from infra.simulator.topology import CHAINS, SERVICES, TENANTS, Chain, Tenant
from infra.simulator.truth import Truth
from infra.simulator.world import World

BATCH_EVERY_US = 500_000
BATCH_SIZE = 100
BATCH_BACKLOG = 10_000
SAMPLE_EVERY_US = 1_000_000
DRAIN_US = 5_000_000
"""After the last execution has begun, those that run may go on for so long."""
DAY_S = 86_400
RHYTHM = 0.6
QUEUE_EVENTS = 50_000
FLUSH_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Config:
    """A run. `rate`: executions per second on average; `speed`: virtual seconds per real second, 0 = as fast as it
    goes; `rhythm`: the rate follows the hour of the day (UTC), most at 15:00.
    """

    rate: float = 100.0
    seconds: float = 30.0
    seed: int = 1
    faults: tuple[Fault, ...] = ()
    speed: float = 1.0
    start_unix_us: int | None = None
    rhythm: bool = False

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.seconds <= 0 or self.speed < 0:
            raise ValueError("rate and seconds must be above 0, speed 0 or above")
        for fault in self.faults:
            _is_among("service", fault.service, {service.name for service in SERVICES})
            if fault.tenant is not None:
                _is_among("tenant", fault.tenant, {tenant.name for tenant in TENANTS})


def _is_among(what: str, name: str, known: set[str]) -> None:
    if name not in known:
        raise ValueError(f"there is no {what} {name!r}; there are {', '.join(sorted(known))}")


class Simulation:
    """A run in the making: `run` it once; `truth` grows meanwhile, and `stop` may be called from another thread."""

    def __init__(self, config: Config, publisher: Sink) -> None:
        self._config = config
        self._publisher = publisher
        origin = config.start_unix_us if config.start_unix_us is not None else time.time_ns() // 1000
        self._world = World(config.seed, Faults(config.faults), publisher, origin)
        self._engine = Engine(self._world)
        self._arrivals = Random(f"{config.seed}:arrivals")
        self._end_us = round(config.seconds * 1e6)
        self._outputs: dict[tuple[str, str], deque[Context]] = {}
        self._stopped = False
        self._steps = 0

    @property
    def truth(self) -> Truth:
        """The ground truth so far."""
        return self._world.truth

    def stop(self) -> None:
        """End the run soon."""
        self._stopped = True

    def run(self) -> Truth:
        """Run to the end, wait until the events are delivered, and return the truth."""
        kernel = self._world.kernel
        kernel.spawn(self._traffic())
        for chain in CHAINS:
            if chain.collects:
                kernel.spawn(self._batches(chain))
        for index, service in enumerate(SERVICES):
            kernel.spawn(self._samples(service.name), index * SAMPLE_EVERY_US // len(SERVICES))
        for fault in self._config.faults:
            if fault.kind == "poison":
                kernel.spawn(self._poison(fault), fault.start_us)
        kernel.run(self._end_us + DRAIN_US, self._pace())
        return self._finish()

    def _finish(self) -> Truth:
        truth = self.truth
        truth.end_unix_us = truth.start_unix_us + self._world.kernel.now_us
        self._publisher.flush(FLUSH_TIMEOUT_S)
        stats = self._publisher.stats()
        truth.events_delivered = stats.delivered - truth.poison_records
        truth.events_dropped = {reason: events for reason, events in stats.dropped.items() if events}
        return truth

    def _pace(self) -> Callable[[int], bool]:
        speed = self._config.speed
        return self._paced(speed) if speed else self._unpaced

    def _paced(self, speed: float) -> Callable[[int], bool]:
        began_s = time.monotonic()

        def pace(at_us: int) -> bool:
            early_s = at_us / 1e6 / speed - (time.monotonic() - began_s)
            # Waking for every event would cost more than the event: they may be 2 ms late.
            if early_s > 0.002:
                time.sleep(early_s)
            return not self._stopped

        return pace

    def _unpaced(self, _at_us: int) -> bool:
        """Nothing is lost for being fast: wait for the publisher now and then."""
        self._steps += 1
        if self._steps % 256 == 0:
            self._publisher.wait_for_room(QUEUE_EVENTS, FLUSH_TIMEOUT_S)
        return not self._stopped

    def _traffic(self) -> Process:
        """Begin executions at random moments; thinned by the hour of the day where wanted."""
        chains = [chain for chain in CHAINS if chain.share]
        shares = [chain.share for chain in chains]
        peak = self._config.rate * (1 + RHYTHM if self._config.rhythm else 1)
        kernel, draw = self._world.kernel, self._arrivals
        while True:
            yield max(1, round(draw.expovariate(peak) * 1e6))
            if kernel.now_us >= self._end_us:
                return
            chain = draw.choices(chains, shares)[0]
            tenant = draw.choices(TENANTS, [tenant.share for tenant in TENANTS])[0]
            if draw.random() * peak <= self._rate():
                kernel.spawn(self._observed(chain, tenant))

    def _rate(self) -> float:
        if not self._config.rhythm:
            return self._config.rate
        day_s = (self._world.origin_unix_us + self._world.kernel.now_us) / 1e6 % DAY_S
        return self._config.rate * (1 + RHYTHM * sin(2 * pi * (day_s / DAY_S - 0.375)))

    def _observed(self, chain: Chain, tenant: Tenant, parents: tuple[Context, ...] = ()) -> Process:
        """Run an execution and keep what it puts out for the batch consumers."""
        yield from self._engine.execution(chain, tenant, parents)
        while self._engine.finished:
            done, context = self._engine.finished.pop()
            for collector in CHAINS:
                if done.name in collector.collects:
                    key = collector.name, context.flow.tenant
                    self._outputs.setdefault(key, deque(maxlen=BATCH_BACKLOG)).append(context)

    def _batches(self, chain: Chain) -> Process:
        kernel, service = self._world.kernel, chain.stages[0][0].service
        while kernel.now_us < self._end_us:
            yield BATCH_EVERY_US
            for tenant in TENANTS:
                outputs = self._outputs.get((chain.name, tenant.name))
                down = self._world.faults.crash(service, kernel.now_us, kernel.now_us, tenant.name)
                if outputs and down is None:
                    size = min(BATCH_SIZE, len(outputs))
                    kernel.spawn(self._observed(chain, tenant, tuple(outputs.popleft() for _ in range(size))))

    def _samples(self, service: str) -> Process:
        """Report what the service uses, every second while it is up."""
        world = self._world
        while world.kernel.now_us < self._end_us:
            now = world.kernel.now_us
            if world.faults.crash(service, now, now) is None:
                cpu, memory = self._usage(service, now)
                world.trackers[service].sample(cpu_ratio=cpu, memory_ratio=memory)
            yield SAMPLE_EVERY_US

    def _usage(self, service: str, now_us: int) -> tuple[float, float]:
        """Shares of the limits for processor and memory."""
        faults, noise = self._world.faults, self._world.random
        slowness, _ = faults.slowness(service, now_us, None)
        cpu = 0.30 + noise.gauss(0, 0.02) + 0.6 * (1 - 1 / slowness)
        if faults.active("stuck_consumer", service, now_us) is not None:
            cpu *= 0.2
        leak = faults.active("memory_leak", service, now_us)
        memory = 0.45 + noise.gauss(0, 0.01) + (0.55 * min(1.0, leak.progress(now_us) / 0.8) if leak else 0.0)
        return round(min(1.0, max(0.01, cpu)), 4), round(min(1.0, max(0.01, memory)), 4)

    def _poison(self, fault: Fault) -> Process:
        kernel = self._world.kernel
        number = 0
        while kernel.now_us < min(fault.end_us, self._end_us):
            value = POISON[number % len(POISON)]
            self._publisher.publish(b"poison-%d" % number, value)
            self.truth.poison_records += 1
            number += 1
            yield max(1, round(1e6 / fault.power))
