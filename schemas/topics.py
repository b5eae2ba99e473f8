"""The topic catalogue: what runs between services, stages and sinks. `flowchain topics apply` makes it so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

DAY_MS = 86_400_000
MAX_BATCH_BYTES = "16777216"
"""Above the largest record that the limits allow: an execution of `max_steps` steps with the longest names."""


@dataclass(frozen=True)
class Topic:
    """One topic. The physical name is the configured prefix + `name`."""

    name: str
    key: str
    """What the Kafka key is, in words."""
    value: str
    """The model of its records."""
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    sentence: str
    partitions: Literal["source", "analysis", "one"]
    """source: as many as the events topic; analysis: as many as the partials topic; one: 1."""
    retention_ms: int = 7 * DAY_MS
    cleanup: Literal["delete", "compact"] = "delete"
    public: bool = True
    """Internal topics carry batches and may change between versions."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Further broker settings of the topic."""


EVENTS = Topic(
    "flowchain.events.v1", "execution id (component for resource.sampled)", "ChainEvent, or an array of them",
    ("services", "ingest (clock.tick)"), ("ingest",),
    "What services emit: steps, executions, logs, resources; an execution stays in one partition.", "source",
    # The broker's clock, not the producer's: an event from the future is told by it.
    config={"message.timestamp.type": "LogAppendTime"},
)
DEFINITIONS = Topic(
    "flowchain.definitions.v1", "JSON: [tenant or \"\", flow, effective from in µs]", "ChainDefinition", ("registry",), ("ingest", "analysis"),
    "Declared flows: the versions that executions may be held to; PostgreSQL is their authority.", "one", cleanup="compact",
)
OPEN_EXECUTIONS = Topic(
    "flowchain.executions.open.v1", "tenant/execution", "Execution", ("ingest",), ("ingest",),
    "Changelog of ingest: executions that were open at a commit.", "source", cleanup="compact", public=False,
    config={"max.message.bytes": MAX_BATCH_BYTES},
)
PARTIALS = Topic(
    "flowchain.partials.v1", "none: the partition is chosen by tenant", "Partial", ("ingest",), ("analysis",),
    "Additive pieces of health windows and the watermarks of the source partitions.", "analysis", 2 * DAY_MS, public=False,
    config={"max.message.bytes": MAX_BATCH_BYTES},
)
ANALYSIS_STATE = Topic(
    "flowchain.analysis.state.v1", "stage/entry", "an entry of a stage's state", ("analysis",), ("analysis",),
    "Changelog of the analysis: health windows, detectors, graphs and incidents, as of the last transaction.", "analysis",
    cleanup="compact", public=False, config={"max.message.bytes": MAX_BATCH_BYTES},
)
TRACES = Topic(
    "flowchain.traces.v1", "none: the partition is the source's", "TraceBatch", ("ingest",), ("ingest", "sinks"),
    "Finished executions with all their steps.", "source", public=False,
    config={"max.message.bytes": MAX_BATCH_BYTES},
)
VIOLATIONS = Topic(
    "flowchain.violations.v1", "tenant", "Violation", ("ingest", "analysis"), ("people",),
    "Single executions that broke a promise: failed, slow, missing, late, out of order, unexpected or repeated steps.", "analysis",
)
HEALTH = Topic(
    "flowchain.health.v1", "tenant", "HealthWindow", ("analysis",), ("sinks", "people"),
    "Health of every step, chain and component per window.", "analysis",
)
DEPENDENCIES = Topic(
    "flowchain.dependencies.v1", "tenant", "DependencyWindow", ("analysis",), ("sinks", "people"),
    "Observed edges between components per window.", "analysis",
)
ANOMALIES = Topic(
    "flowchain.anomalies.v1", "tenant", "Anomaly", ("analysis",), ("sinks", "people"),
    "Windows that differ from what their key has shown before, with the reasons.", "analysis",
)
INCIDENTS = Topic(
    "flowchain.incidents.v1", "tenant", "Incident", ("analysis",), ("sinks", "people"),
    "What belongs together, its suspects and its blast radius.", "analysis", 30 * DAY_MS,
)
ALERTS = Topic(
    "flowchain.alerts.v1", "tenant", "Alert", ("analysis",), ("sinks", "people"),
    "What pages a person: opened, updated, resolved or retracted, by revision.", "analysis", 30 * DAY_MS,
)
TENANTS = Topic(
    "flowchain.tenants.v1", "tenant", "Tenant", ("registry",), ("analysis",),
    "Tenants with their tier and what it allows, the newest record of each.", "one", cleanup="compact",
)
LIMITS = Topic(
    "flowchain.limits.v1", "tenant", "LimitReached", ("analysis",), ("people",),
    "Tenants whose use of a day has come near a limit of their tier, or to it.", "analysis", 30 * DAY_MS,
)
SLO = Topic(
    "flowchain.slo.v1", "JSON: [tenant, chain]", "SloStatus", ("analysis",), ("people",),
    "Service level objectives of chains: error budget and burn rates, the newest state of each.", "analysis", cleanup="compact",
)
DATA_LOSS = Topic(
    "flowchain.dataloss.v1", "topic/partition", "DataLoss", ("ingest", "analysis"), ("people",),
    "Offsets that were deleted before they could be read, or that came after their window was forgotten.", "one", 30 * DAY_MS,
)
RECOVERY_COMMANDS = Topic(
    "flowchain.recovery.commands.v1", "component", "RecoveryCommand", ("recovery",), ("executors",),
    "What should be done about an incident.", "analysis", 30 * DAY_MS,
)
RECOVERY_ACTIONS = Topic(
    "flowchain.recovery.actions.v1", "component", "RecoveryAction", ("recovery", "executors"), ("sinks", "people"),
    "What was done about an incident and whether it helped.", "analysis", 30 * DAY_MS,
)
EVENTS_DLQ = Topic(
    "dlq.flowchain.events.v1", "the refused record's key", "the refused record's bytes (of an array: the refused event's), reason in the headers",
    ("ingest",), ("flowchain dlq",),
    "Events that were refused: undecodable, invalid, too late or from the future.", "source", 30 * DAY_MS,
    # With its headers a dead letter is larger than the largest event.
    config={"max.message.bytes": MAX_BATCH_BYTES},
)
SPANS = Topic(
    "flowchain.spans.v1", "trace id", "an array of connectors.spans.model.Span", ("intake",), ("intake",),
    "OpenTelemetry spans as they came in by HTTP, gRPC or the Collector's topic, a trace in one partition.", "source", DAY_MS, public=False,
    config={"max.message.bytes": MAX_BATCH_BYTES},
)
OPEN_TRACES = Topic(
    "flowchain.spans.open.v1", "trace id", "connectors.spans.live.LiveTrace", ("intake",), ("intake",),
    "Changelog of intake: traces that are remembered, and spans that are held until the name of their chain is known.", "source",
    cleanup="compact", public=False, config={"max.message.bytes": MAX_BATCH_BYTES},
)
CLOUDEVENTS = Topic(
    "flowchain.cloudevents.v1", "execution id, or anything: intake keys the event anew", "a CloudEvent 1.0, binary or structured", ("services",), ("intake",),
    "Events in the Kafka binding of CloudEvents, for services that speak it; intake puts them on the events topic.", "source",
)
INTAKE_DLQ = Topic(
    "dlq.flowchain.intake.v1", EVENTS_DLQ.key, "the refused record's bytes, reason in the headers", ("intake",), ("flowchain dlq",),
    "Records that intake could not make events of: CloudEvents, records of the Collector's topic and of mapped ones.", "source", 30 * DAY_MS,
    config={"max.message.bytes": MAX_BATCH_BYTES},
)


def _dead_letters(topic: Topic) -> Topic:
    """Return the topic for what the sinks cannot read on a topic of ours."""
    return Topic(
        f"dlq.{topic.name}", EVENTS_DLQ.key, EVENTS_DLQ.value, ("sinks",), ("flowchain dlq",),
        f"Records of {topic.name} that a sink could not read: somebody else wrote them.", topic.partitions, 30 * DAY_MS,
        public=False, config={"max.message.bytes": MAX_BATCH_BYTES},
    )  # fmt: skip


DEAD_LETTERS: Mapping[str, Topic] = {EVENTS.name: EVENTS_DLQ, "intake": INTAKE_DLQ} | {
    topic.name: _dead_letters(topic) for topic in (TRACES, HEALTH, DEPENDENCIES, ANOMALIES, INCIDENTS, ALERTS, RECOVERY_ACTIONS)
}
"""The dead letters of each topic that is read record by record, by the topic's name; those of all that intake reads are in one."""

CATALOGUE: tuple[Topic, ...] = (
    EVENTS, SPANS, OPEN_TRACES, CLOUDEVENTS, DEFINITIONS, OPEN_EXECUTIONS, PARTIALS, ANALYSIS_STATE, TRACES, VIOLATIONS, HEALTH, DEPENDENCIES, ANOMALIES, INCIDENTS,
    ALERTS, TENANTS, LIMITS, SLO, DATA_LOSS, RECOVERY_COMMANDS, RECOVERY_ACTIONS, *DEAD_LETTERS.values(),
)
