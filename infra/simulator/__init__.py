"""The simulator: fourteen services that report through the SDK, faults on purpose, and the truth about them."""

from collections.abc import Callable
from typing import Any

from flowchain import KafkaChannel, Publisher
from infra.simulator.faults import DEFAULT_STRENGTH, FAULT_KINDS, Fault, FaultKind
from infra.simulator.load import generate
from infra.simulator.simulation import Config, Simulation
from infra.simulator.topology import CHAINS, SERVICES, TENANTS, definitions
from infra.simulator.truth import FaultTruth, Truth

__all__ = [
    "CHAINS",
    "DEFAULT_STRENGTH",
    "FAULT_KINDS",
    "SERVICES",
    "TENANTS",
    "Config",
    "Fault",
    "FaultKind",
    "FaultTruth",
    "Simulation",
    "Truth",
    "definitions",
    "generate",
    "simulate",
]

QUEUE_SIZE = 200_000


def simulate(
    kafka: dict[str, Any], topic: str, config: Config, started: Callable[[Simulation], None] = lambda _: None
) -> Truth:
    """Run the fourteen services against a broker and return the truth; the topic must be there.

    `kafka`: librdkafka settings, `bootstrap.servers` among them. `started` is given the running `Simulation` (its
    `truth`, its `stop`). Events that could not be delivered are in `truth.events_dropped`.
    """
    publisher = Publisher(lambda counts: KafkaChannel(counts, topic, kafka), QUEUE_SIZE)
    try:
        simulation = Simulation(config, publisher)
        started(simulation)
        return simulation.run()
    finally:
        publisher.close(10.0)
