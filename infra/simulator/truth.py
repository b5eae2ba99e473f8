"""What really happened in a run: the ground truth that alerts are held to."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra.simulator.faults import Fault, FaultKind


@dataclass
class FaultTruth:
    """A fault as it was: when (microseconds since 1970), and what it touched.

    `affected_services`: the cause, its callers, and all that come after it in the chains that it touched.
    `executions`: those that it made fail, slow, late or silent. `first_event_unix_us`: when it first did.
    """

    kind: FaultKind
    service: str
    tenant: str | None
    strength: float
    start_unix_us: int
    end_unix_us: int
    first_event_unix_us: int | None = None
    affected_services: set[str] = field(default_factory=set)
    affected_chains: set[str] = field(default_factory=set)
    affected_tenants: set[str] = field(default_factory=set)
    executions: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, fault: Fault, origin_unix_us: int) -> "FaultTruth":
        """Return the truth about a fault that has not begun yet."""
        return cls(
            fault.kind,
            fault.service,
            fault.tenant,
            fault.power,
            origin_unix_us + fault.start_us,
            origin_unix_us + fault.end_us,
        )


@dataclass
class Truth:
    """A run's ground truth. `events_produced`: valid events given to the publisher; `events_lost`: those of silent
    services, that were given to nobody; `executions_prevented`: not begun, because the first service was down.
    """

    seed: int
    start_unix_us: int
    end_unix_us: int = 0
    events_produced: int = 0
    events_delivered: int = 0
    events_dropped: dict[str, int] = field(default_factory=dict)
    events_lost: int = 0
    poison_records: int = 0
    executions_started: int = 0
    executions_completed: int = 0
    executions_failed: int = 0
    executions_prevented: int = 0
    faults: list[FaultTruth] = field(default_factory=list)

    def to_json(self) -> str:
        """Return it as JSON; sets are sorted lists."""
        return json.dumps(asdict(self), default=sorted, indent=1)

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(self.to_json() + "\n", encoding="utf-8")
