"""What is broken on purpose, when, where and for whom; all times in microseconds since the run's start."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

FaultKind = Literal[
    "crash", "slow", "error_burst", "silence", "memory_leak", "stuck_consumer", "poison", "clock_skew"
]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

DEFAULT_STRENGTH: dict[FaultKind, float] = {
    "crash": 1.0,  # has none
    "slow": 5.0,  # times as long
    "error_burst": 0.5,  # share of the steps that fail
    "silence": 1.0,  # has none
    "memory_leak": 4.0,  # times as long just before the crash
    "stuck_consumer": 0.9,  # seconds that the consumer falls behind per second
    "poison": 20.0,  # records per second
    "clock_skew": 5.0,  # seconds that the clock goes ahead; negative: behind
}
LEAK_SLOWS_AFTER = 0.3
LEAK_CRASHES_AFTER = 0.8
"""Shares of a memory leak's time after which it slows its service and then crashes it."""
CATCH_UP = 0.1
"""After a break a consumer needs this share of the time that its backlog took to come."""


@dataclass(frozen=True)
class Fault:
    """One fault. `tenant`: only its executions are hit. `strength`: see DEFAULT_STRENGTH; None takes that."""

    kind: FaultKind
    service: str
    start_s: float
    duration_s: float
    tenant: str | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"unknown kind of fault {self.kind!r}; there are {', '.join(FAULT_KINDS)}")
        if not 0 <= self.start_s < inf or not 0 < self.duration_s < inf:
            raise ValueError("a fault starts at 0 s or later and lasts longer than 0 s")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read "kind:service:start:length[:tenant]", times in seconds; raises ValueError."""
        try:
            kind, service, start, length, *tenant = text.split(":", 4)
            begins_s, lasts_s, only = float(start), float(length), tenant[0] if tenant else None
        except ValueError as error:
            raise ValueError(f"{text!r} is not kind:service:start:length[:tenant], times in seconds") from error
        return cls(kind, service, begins_s, lasts_s, only)  # type: ignore[arg-type]

    @property
    def power(self) -> float:
        """The strength that counts."""
        return DEFAULT_STRENGTH[self.kind] if self.strength is None else self.strength

    @property
    def start_us(self) -> int:
        return round(self.start_s * 1e6)

    @property
    def end_us(self) -> int:
        return round((self.start_s + self.duration_s) * 1e6)

    @property
    def down_from_us(self) -> int:
        """When a crashing service stops."""
        leaks = self.kind == "memory_leak"
        return self.start_us + round((self.end_us - self.start_us) * (LEAK_CRASHES_AFTER if leaks else 0.0))

    def progress(self, now_us: int) -> float:
        """Return how much of the fault's time has gone: 0 to 1."""
        share = (now_us - self.start_us) / (self.end_us - self.start_us)
        return min(1.0, max(0.0, share))


class Faults:
    """All faults of a run, by service: what they do to a service at a moment. The first fault that does it is named."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.all = tuple(faults)
        self._by_service: dict[str, list[Fault]] = {}
        for fault in self.all:
            self._by_service.setdefault(fault.service, []).append(fault)

    def active(self, kind: FaultKind, service: str, now_us: int, tenant: str | None = None) -> Fault | None:
        """Return the fault of `kind` that `service` has now for `tenant`."""
        for fault in self._of(service, tenant):
            if fault.kind == kind and fault.start_us <= now_us < fault.end_us:
                return fault
        return None

    def _of(self, service: str, tenant: str | None) -> Iterable[Fault]:
        faults = self._by_service.get(service)
        if not faults:
            return ()
        return [fault for fault in faults if fault.tenant is None or fault.tenant == tenant]

    def crash(self, service: str, since_us: int, now_us: int, tenant: str | None = None) -> Fault | None:
        """Return the fault by which `service` was down at any time between the two moments."""
        for fault in self._of(service, tenant):
            if (
                fault.kind in ("crash", "memory_leak")
                and fault.down_from_us <= now_us
                and since_us < fault.end_us
            ):
                return fault
        return None

    def slowness(self, service: str, now_us: int, tenant: str | None) -> tuple[float, Fault | None]:
        """Return how many times as long the work of `service` takes now, and by which fault."""
        slow = self.active("slow", service, now_us, tenant)
        if slow is not None:
            return slow.power, slow
        leak = self.active("memory_leak", service, now_us, tenant)
        if leak is None or leak.progress(now_us) < LEAK_SLOWS_AFTER:
            return 1.0, None
        ramp = (leak.progress(now_us) - LEAK_SLOWS_AFTER) / (LEAK_CRASHES_AFTER - LEAK_SLOWS_AFTER)
        return 1.0 + (leak.power - 1.0) * min(1.0, ramp), leak

    def backlog_us(self, service: str, now_us: int, tenant: str | None) -> tuple[int, Fault | None]:
        """Return how long a record produced now waits for its consumer, beyond the usual, and by which fault."""
        for fault in self._of(service, tenant):
            wait = _backlog(fault, now_us)
            if wait > 0:
                return wait, fault
        return 0, None


def _backlog(fault: Fault, now_us: int) -> int:
    """In the order of production: a later record is never consumed before an earlier one."""
    if fault.kind == "stuck_consumer":
        fallen_behind = fault.power * (min(now_us, fault.end_us) - fault.start_us)
        return round(fallen_behind - (1.0 - CATCH_UP) * max(0, now_us - fault.end_us))
    if fault.kind in ("crash", "memory_leak") and now_us >= fault.down_from_us:
        waiting = min(now_us, fault.end_us) - fault.down_from_us
        return round(fault.end_us + CATCH_UP * waiting - now_us)
    return 0
