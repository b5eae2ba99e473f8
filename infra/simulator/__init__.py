"""The simulator: fourteen services that report through the SDK, faults on purpose, and the truth about them."""

from collections.abc import Callable, Iterable
from pathlib import Path
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

TOPIC = "flowchain.events.v1"
QUEUE_SIZE = 200_000


def simulate(
    bootstrap_servers: str,
    *,
    rate: float = 100.0,
    seconds: float = 30.0,
    seed: int = 1,
    faults: Iterable[Fault] = (),
    topic_prefix: str = "",
    live: bool = True,
    speed: float = 1.0,
    start_unix_us: int | None = None,
    rhythm: bool = False,
    truth_path: Path | None = None,
    kafka: dict[str, Any] | None = None,
    started: Callable[[Simulation], None] | None = None,
) -> Truth:
    """Run the fourteen services against a broker and return the truth; the topic must be there.

    `live`: event times are now and the run takes `seconds` (divided by `speed`, when times run ahead); otherwise it
    goes as fast as the SDK does, from `start_unix_us` (now where left out). `kafka`: further librdkafka settings
    (SASL, TLS). `started` is given the running `Simulation` (its `truth`, its `stop`). Raises ValueError for an
    unknown service or senseless numbers; events that could not be delivered are in `truth.events_dropped`.
    """
    config = Config(rate, seconds, seed, tuple(faults), speed if live else 0.0, start_unix_us, rhythm)
    settings = {"bootstrap.servers": bootstrap_servers, **(kafka or {})}
    publisher = Publisher(lambda counts: KafkaChannel(counts, topic_prefix + TOPIC, settings), QUEUE_SIZE)
    try:
        simulation = Simulation(config, publisher)
        if started is not None:
            started(simulation)
        truth = simulation.run()
    finally:
        publisher.close(10.0)
    if truth_path is not None:
        truth.write(truth_path)
    return truth
