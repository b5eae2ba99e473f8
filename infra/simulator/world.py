"""What the running chains stand in: clocks and trackers of the services, topics, random numbers, the truth."""

from collections import Counter
from math import log
from random import Random
from zlib import crc32

from flowchain import Consumed, Context, Counts, Ids, Outlet, Tracker
from infra.simulator.faults import Fault, Faults
from infra.simulator.kernel import Kernel
from infra.simulator.topology import SERVICES, SPREAD, Chain
from infra.simulator.truth import FaultTruth, Truth

PARTITIONS = 6
MEDIAN_SHARE, MOST_SHARE = 0.4, 0.95
"""Of what a step may take: its usual time, and the longest while it is healthy."""


class ServiceClock:
    """A service's idea of the time: the virtual one, plus its error."""

    def __init__(self, service: str, kernel: Kernel, faults: Faults, origin_unix_us: int) -> None:
        self._service = service
        self._kernel = kernel
        self._faults = faults
        self._origin_unix_us = origin_unix_us

    def now_us(self) -> int:
        """Return the event time."""
        now = self._kernel.now_us
        skew = self._faults.active("clock_skew", self._service, now)
        error_us = round(skew.power * 1e6) if skew is not None else 0
        return max(0, self._origin_unix_us + now + error_us)

    def elapsed_us(self) -> int:
        """Return the virtual time: a wrong clock still measures durations rightly."""
        return self._kernel.now_us


class ServiceOutlet:
    """Where a service's events go: on to the publisher and into the count, or nowhere while the service is silent."""

    def __init__(self, service: str, kernel: Kernel, faults: Faults, outlet: Outlet, truth: Truth) -> None:
        self.counts: Counts = outlet.counts
        self._service = service
        self._kernel = kernel
        self._faults = faults
        self._outlet = outlet
        self._truth = truth

    def publish(self, key: bytes, value: bytes) -> None:
        """Queue one event, unless the service is silent."""
        if self._is_lost(value):
            self._truth.events_lost += 1
            return
        self._truth.events_produced += 1
        self._outlet.publish(key, value)

    def _is_lost(self, value: bytes) -> bool:
        for fault in self._faults.all:
            if fault.kind == "silence" and fault.service == self._service:
                during = fault.start_us <= self._kernel.now_us < fault.end_us
                if during and (fault.tenant is None or f'"tenant":"{fault.tenant}"'.encode() in value):
                    return True
        return False


class World:
    """Everything that chains share in one run."""

    def __init__(self, seed: int, faults: Faults, outlet: Outlet, origin_unix_us: int) -> None:
        self.kernel = Kernel()
        self.faults = faults
        self.outlet = outlet
        self.origin_unix_us = origin_unix_us
        self.random = Random(f"{seed}:work")
        self.truth = Truth(seed, origin_unix_us)
        self.truth.faults = [FaultTruth.of(fault, origin_unix_us) for fault in faults.all]
        identity = Random(f"{seed}:ids")
        self.trackers = {service.name: self._tracker(service.name, identity) for service in SERVICES}
        self._offsets: Counter[tuple[str, int]] = Counter()

    def _tracker(self, service: str, identity: Random) -> Tracker:
        clock = ServiceClock(service, self.kernel, self.faults, self.origin_unix_us)
        outlet = ServiceOutlet(service, self.kernel, self.faults, self.outlet, self.truth)
        return Tracker(service, outlet, clock, ids=Ids(clock, identity))

    def work_us(self, service: str, expected_ms: float) -> int:
        """Draw how long healthy work takes: lognormal, never over 0.95 of what is expected."""
        share = self.random.lognormvariate(log(MEDIAN_SHARE), SPREAD[service])
        return round(min(MOST_SHARE, share) * expected_ms * 1000)

    def network_us(self) -> int:
        """Draw the time of one way over the network: 0.2 to 0.9 ms."""
        return self.random.randint(200, 900)

    def broker_us(self) -> int:
        """Draw how long a record is in the broker: about 3 ms, at most 50 ms."""
        return round(min(50.0, self.random.lognormvariate(1.1, 0.5)) * 1000)

    def produce(self, topic: str, execution: str, broker_us: int) -> Consumed:
        """Give a record its place on a topic."""
        partition = crc32(execution.encode()) % PARTITIONS
        offset = self._offsets[topic, partition]
        self._offsets[topic, partition] += 1
        return Consumed(topic, partition, offset, broker_us)

    def blame(self, fault: Fault, chain: Chain, step: str, context: Context) -> None:
        """Write down that `fault` hit an execution at a step."""
        truth = self.truth.faults[self.faults.all.index(fault)]
        if truth.first_event_unix_us is None:
            truth.first_event_unix_us = self.origin_unix_us + self.kernel.now_us
        spreads = fault.kind not in ("silence", "clock_skew")
        truth.affected_services.update(chain.hurt_by(step) if spreads else (fault.service,))
        truth.affected_chains.add(chain.name)
        truth.affected_tenants.add(context.flow.tenant)
        truth.executions.add(context.flow.execution)
