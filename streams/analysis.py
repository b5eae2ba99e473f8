"""The analysis of the tenants of one partition: health, anomaly, impact, alerts, objectives and usage, one after the other.

The stages are one composition and not consumers of each other's topics, because then everything they publish is a
function of one log: no race between topics decides what an incident contains, and one position says what the state has
seen. They see event time pass in fixed steps (`streams/slices.py`), so a replay of the events gives the same.
"""

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct, field

from schemas.analysis import Alert, Anomaly, Incident
from schemas.health import DependencyWindow, HealthWindow
from schemas.internal import Partial
from schemas.operations import DataLoss
from schemas.slo import SloStatus
from schemas.tenants import LimitReached
from schemas.violations import Violation
from streams.alerts import AlertSettings, AlertStage
from streams.anomaly import AnomalySettings, AnomalyStage
from streams.burn import SloBook
from streams.health import HealthStage
from streams.impact import ImpactSettings, ImpactStage
from streams.limits import Limits
from streams.slices import Moment, SliceStage
from streams.slo import SloStage
from streams.stage import Stage
from streams.tenants import TenantBook
from streams.usage import UsageSettings, UsageStage


class AnalysisSettings(Struct, frozen=True):
    """The settings of all stages."""

    limits: Limits = field(default_factory=Limits)
    anomaly: AnomalySettings = field(default_factory=AnomalySettings)
    impact: ImpactSettings = field(default_factory=ImpactSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    usage: UsageSettings = field(default_factory=UsageSettings)
    max_slos: int = 10_000


class Books(Struct):
    """What is in force beside the log: whoever reads it puts it here, and it holds from then on."""

    slos: SloBook = field(default_factory=SloBook)
    tenants: TenantBook = field(default_factory=TenantBook)


class Findings(Struct):
    """What one moment led to, stage by stage."""

    watermark_us: int
    windows: list[HealthWindow]
    dependencies: list[DependencyWindow]
    violations: list[Violation]
    anomalies: list[Anomaly]
    incidents: list[Incident]
    alerts: list[Alert]
    losses: list[DataLoss]
    slos: list[SloStatus]
    limits: list[LimitReached]


class Analysis:
    """The stages of one partition (itself a `streams.stage.Stage`)."""

    def __init__(self, settings: AnalysisSettings, books: Books | None = None) -> None:
        books = books or Books()
        self.slices = SliceStage(settings.limits)
        self.health = HealthStage(settings.limits)
        self._anomaly = AnomalyStage(settings.anomaly)
        self.impact = ImpactStage(settings.impact)
        self._alerts = AlertStage(settings.alerts)
        self._slos = SloStage(settings.limits, books.slos, settings.max_slos)
        self._usage = UsageStage(settings.limits, books.tenants, settings.usage)
        self._stages: dict[str, Stage] = {
            "slices": self.slices,
            "health": self.health,
            "anomaly": self._anomaly,
            "impact": self.impact,
            "alerts": self._alerts,
            "slos": self._slos,
            "usage": self._usage,
        }

    def apply(self, partial: Partial) -> Iterator[Findings]:
        """Take in one partial; yield what each moment led to that all source partitions have reached by it."""
        self.slices.take(partial)
        while (moment := self.slices.next(self._due_us)) is not None:
            yield self._pass(moment)

    @property
    def _due_us(self) -> int:
        """Event time at which something happens though nothing comes."""
        return min(self.health.due_us, self.impact.due_us, self._alerts.due_us, self._slos.due_us)

    def _pass(self, moment: Moment) -> Findings:
        for added in moment.additions:
            self.impact.observe(added.deltas, added.edges, moment.source_topic, added.partition)
        closed = self.health.apply(moment)
        anomalies = self._anomaly.apply(closed.windows, self.impact.frozen)
        incidents = self.impact.advance(closed.watermark_us, anomalies)
        alerts = self._alerts.apply(incidents, closed.watermark_us)
        spoken = self._slos.apply(closed.windows, closed.watermark_us)
        limits = self._usage.apply(closed.windows, closed.watermark_us)
        return Findings(
            closed.watermark_us, closed.windows, closed.dependencies, closed.violations, anomalies, incidents,
            alerts + spoken.alerts, closed.losses, spoken.statuses, limits,
        )  # fmt: skip

    def take_reached(self) -> Counter[str]:
        """Return how often bounds were reached since the last call, by their names."""
        found: Counter[str] = Counter()
        for stage in self._stages.values():
            found += stage.reached
            stage.reached.clear()
        return found

    def restore(self, key: str, value: bytes) -> None:
        """Take back one entry."""
        stage, _, rest = key.partition("/")
        if stage not in self._stages:
            raise ValueError(f"no entry of the analysis: {key!r}")
        self._stages[stage].restore(rest, value)

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the entries of all stages that changed since the last call."""
        for name, stage in self._stages.items():
            for key, value in stage.changes():
                yield f"{name}/{key}", value

