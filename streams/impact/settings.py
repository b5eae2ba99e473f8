"""Settings of the impact stage, in event time."""

from msgspec import Struct

from streams.graph import GraphSettings
from streams.rootcause.executions import ExecutionSettings
from streams.rootcause.memory import MemorySettings
from streams.rootcause.ranking import RankingSettings
from streams.rootcause.troubles import FaultSettings
from streams.rootcause.windows import WindowSettings


class ImpactSettings(Struct, frozen=True):
    """When an incident opens, what belongs to it, how long it lasts, and how much is kept.

    An incident opens on a context in trouble (`FaultSettings`), on one strong anomaly, or on `anomaly_windows` anomalous
    windows of one key among the last `anomaly_span`; never on a single slow or failed step.
    """

    memory: MemorySettings = MemorySettings()
    graph: GraphSettings = GraphSettings()
    faults: FaultSettings = FaultSettings()
    executions: ExecutionSettings = ExecutionSettings()
    windows: WindowSettings = WindowSettings()
    ranking: RankingSettings = RankingSettings()
    anomaly_windows: int = 2
    anomaly_span: int = 3
    strong_anomaly_score: float = 0.98
    join_us: int = 120_000_000
    """Trouble joins an open incident whose last trouble is at most so old."""
    join_hops: int = 3
    """and whose components are at most so many dependencies away."""
    quiet_us: int = 60_000_000
    """An incident is resolved after so long without trouble, once its keys have worked again."""
    abandon_us: int = 900_000_000
    """or after so long without any sign of life of them."""
    revise_us: int = 2_000_000
    """At most one revision per incident in this time."""
    contexts_per_ranking: int = 200
    """A tenant with more contexts is ranked in proportion more seldom than `revise_us`."""
    belief_half_life_us: int = 6_000_000
    """Probabilities of suspects follow the evidence with this half-life: what is seen while a fault ends, when callers
    still fail and the cause already answers, must not turn the verdict around."""
    critical_ratio: float = 0.1
    """Failed or missing share of a key that makes an incident critical, from `critical_executions` on."""
    critical_executions: int = 10
    blast_hops: int = 4
    min_hurt_probability: float = 0.05
    max_hurt: int = 50
    sample: int = 20
    """Affected executions and users named per incident."""
    max_keys: int = 200
    """Keys in trouble per incident; further ones are not listed."""
    max_open: int = 20
    """Open incidents per tenant; further trouble joins the youngest."""
    max_anomalies: int = 100
    """Anomaly ids per incident."""
    max_tenants: int = 1_000
    """Tenants remembered; beyond it an eighth is forgotten, those without an open incident that were not seen for longest.
    While all have open incidents, a further tenant is not analysed."""
