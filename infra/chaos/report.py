"""What a run of chaos has done and shown."""

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from infra.chaos.plan import Kind, Plan
from infra.chaos.retention import Gap
from infra.verification.run import Report


@dataclass
class Outcome:
    """One run: what was done to it, and what the verification said."""

    plan: Plan
    done: Counter[Kind]
    killed: Counter[str]
    restarts: int
    sent: int
    disturbed: Counter[str]
    rates: list[float]
    verified: Report
    gap: Gap
    undelivered: list[str] = field(default_factory=list)

    @property
    def on_log(self) -> int:
        """Records of producers that the log holds."""
        return self.verified.counts["records"] - self.verified.counts["ticks"]

    def failures(self) -> list[str]:
        """Return what is not as it must be, in words."""
        document = self.verified.document()
        checks = {
            f"{self.sent:,} records were sent and {self.on_log:,} are on the log": self.sent == self.on_log,
            f"{len(self.undelivered)} records were refused by the brokers": not self.undelivered,
            f"what retention deleted is not what was reported: {self.gap}": self.gap.right,
            **{f"{document[name]} {name}": not document[name] for name in ("lost", "duplicated", "different")},
        }
        return [what for what, right in checks.items() if not right]

    def document(self) -> dict[str, Any]:
        """Return the last line."""
        verified = self.verified.document()
        kinds = verified.pop("kinds")
        return {
            "seed": self.plan.seed, "chaos_s": self.plan.seconds,
            "kills": self.killed.total(), "killed": dict(self.killed), "sigterm": self.done["term"], "rolling_restarts": self.done["roll"],
            "scalings": self.done["scale"], "zombies": self.done["resume"],
            "outages": self.done["engine_kill"] + self.done["engine_stop"], "restarts": self.restarts,
            "burst_events_per_s": {"planned": self.plan.rate, "median": round(median(self.rates or [0])),
                                   "lowest": round(min(self.rates, default=0)), "bursts": len(self.rates)},
            "events_sent": self.sent, "disturbed": dict(self.disturbed), **verified,
            "windows": kinds["windows"]["expected"], "executions": kinds["executions"]["expected"],
            "retention": self.gap.document(), "compared": {name: {"expected": tally["expected"], "found": tally["found"]} for name, tally in kinds.items()},
        }  # fmt: skip
