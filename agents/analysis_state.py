"""The state of one analysis partition: kept in memory, saved in a compacted topic by Kafka transactions.

A transaction holds what the stages published, the state entries that changed, and the offset that they have seen. So
all of it exists or nothing does, and an earlier owner that wakes up is fenced: the transactional id is the partition's.
Faust's committed offset only says where to begin reading; what the state has seen is skipped. (Faust's own tables are
neither atomic over several entries nor fenced, and a write costs 300 µs.)
"""

import time

import msgspec

from agents.pieces import Pieces
from connectors.log import read_changelog
from connectors.producers import TIMEOUT_S, transactional_producer
from connectors.settings import Settings
from connectors.telemetry import (
    COMMIT_SECONDS,
    COMMITS,
    LIMIT_REACHED,
    RECORDS_OUT,
    SLICES_HELD,
    VIOLATIONS,
    WATERMARK,
    WINDOWS_OPEN,
)
from schemas import topics
from schemas.base import Record
from schemas.internal import Partial
from schemas.slo import SloStatus
from streams.analysis import Analysis, AnalysisSettings, Books, Findings
from streams.ids import key_of

MARK = b"~mark"
"""Key of the offset of the partials topic that the saved state has seen."""
decode_partial = msgspec.json.Decoder(Partial).decode


class AnalysisPartition:
    """One partition's stages, and the producer that saves them. Use from one task or thread at a time."""

    def __init__(self, settings: Settings, stages: AnalysisSettings, partition: int, books: Books | None = None) -> None:
        self.partition = partition
        self.applied = -1
        """Offset of the last partial that was applied."""
        self.saved = -1
        """Offset of the last partial that the saved state has seen."""
        self.urgent = False
        """Whether something waits that should be seen at once."""
        self._settings = settings
        self._analysis = Analysis(stages, books)
        self._pieces = Pieces()
        self._pending: list[tuple[topics.Topic, Record]] = []
        self._topic = settings.topic(topics.ANALYSIS_STATE.name)
        self._producer = transactional_producer(settings, f"{settings.group('analysis')}-{partition}")
        self._load()

    @property
    def watermark_us(self) -> int:
        """Event time that all sources have reached."""
        return self._analysis.slices.watermark_us

    @property
    def open_windows(self) -> int:
        """Series in open windows."""
        return self._analysis.health.open_windows

    def take(self, offset: int, value: bytes) -> None:
        """Apply one partial, unless it has been."""
        if offset <= self.applied:
            return
        for findings in self._analysis.apply(decode_partial(value)):
            self._collect(findings)
        self.applied = offset

    def save(self) -> None:
        """Publish, save and commit what has come together; blocks for some 10 ms.

        Raises KafkaException, also when another worker owns the partition now: the process has to end.
        """
        if self.applied == self.saved:
            return
        started = time.perf_counter()
        producer = self._producer
        producer.begin_transaction()
        for topic, record in self._pending:
            producer.produce(self._settings.topic(topic.name), record.encode(), _key(record))
        for key, value in self._analysis.changes():
            for name, piece in self._pieces.cut(key.encode(), value):
                producer.produce(self._topic, piece, name, self.partition)
        producer.produce(self._topic, str(self.applied).encode(), MARK, self.partition)
        producer.commit_transaction(TIMEOUT_S)
        self._measure(time.perf_counter() - started)
        self._pending.clear()
        self.saved, self.urgent = self.applied, False

    def _collect(self, findings: Findings) -> None:
        for topic, records in (
            (topics.HEALTH, findings.windows),
            (topics.DEPENDENCIES, findings.dependencies),
            (topics.VIOLATIONS, findings.violations),
            (topics.ANOMALIES, findings.anomalies),
            (topics.INCIDENTS, findings.incidents),
            (topics.ALERTS, findings.alerts),
            (topics.SLO, findings.slos),
            (topics.LIMITS, findings.limits),
            (topics.DATA_LOSS, findings.losses),
        ):
            self._pending += [(topic, record) for record in records]
        self.urgent = self.urgent or bool(findings.alerts or findings.windows)

    def _measure(self, seconds: float) -> None:
        COMMIT_SECONDS.labels("analysis").observe(seconds)
        COMMITS.labels("analysis").inc()
        for topic, record in self._pending:
            RECORDS_OUT.labels(topic.name).inc()
            if topic is topics.VIOLATIONS:
                VIOLATIONS.labels(record.type).inc()  # type: ignore[attr-defined]
        WATERMARK.labels("analysis", str(self.partition)).set(self.watermark_us / 1e6)
        WINDOWS_OPEN.labels(str(self.partition)).set(self.open_windows)
        SLICES_HELD.labels(str(self.partition)).set(self._analysis.slices.held)
        for bound, count in self._analysis.take_reached().items():
            LIMIT_REACHED.labels(bound).inc(count)

    def _load(self) -> None:
        entries = read_changelog(self._settings, self._topic, self.partition)
        mark = entries.pop(MARK, None)
        for key, value in self._pieces.join(entries).items():
            self._analysis.restore(key.decode(), value)
        if mark is not None:
            self.applied = self.saved = int(mark)


def _key(record: Record) -> str | None:
    """Return the Kafka key of a record: its tenant; of an objective, whose topic is compacted, also the chain."""
    return key_of(record.tenant, record.chain) if isinstance(record, SloStatus) else getattr(record, "tenant", None)
