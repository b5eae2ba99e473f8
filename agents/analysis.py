"""The analysis worker: a Faust agent that takes partials through health, anomaly, impact and alerts.

The topology: flowchain.partials.v1 -> [streams.analysis] -> health, dependencies, violations, anomalies, incidents,
alerts, slo, limits; beside it flowchain.definitions.v1 and flowchain.tenants.v1, of which the newest record is in force. The commit order: (1) results, state and its mark in one Kafka transaction, (2) acknowledge the partials.
"""

import asyncio
import time
from typing import Any

import faust
import structlog
from faust.types import TP, EventT

from agents.analysis_state import AnalysisPartition
from agents.faust_app import AGENT, make_app
from agents.steady import NO_GENERATION, is_current
from connectors.follow import Follower
from connectors.objectives import ObjectiveReader, slo_book
from connectors.settings import Settings
from connectors.telemetry import LAG, Health, serve
from connectors.tenants import TenantReader, tenant_book
from schemas.topics import PARTIALS
from streams.alerts import AlertSettings
from streams.analysis import AnalysisSettings, Books
from streams.anomaly import AnomalySettings
from streams.graph import GraphSettings
from streams.impact import ImpactSettings
from streams.rootcause.memory import MemorySettings
from streams.usage import UsageSettings

log = structlog.get_logger("analysis")
URGENT_S = 0.05
"""Alerts and closed windows wait no longer than this for company."""


class AnalysisWorker:
    """The partitions that the consumer group gives this process."""

    def __init__(self, settings: Settings, app: faust.App) -> None:
        self.settings = settings
        self.health = Health("analysis")
        self.health.details = self._details
        self._app = app
        self._topic = settings.topic(PARTIALS.name)
        self._stages = analysis_settings(settings)
        self._books = Books(slo_book(settings), tenant_book(settings))
        self._followers: list[Follower] = []
        """What fills the books; from the first partition on."""
        self._partitions: dict[int, AnalysisPartition] = {}
        self._unacknowledged: list[EventT[Any]] = []
        self._dropped = NO_GENERATION
        """The assignment whose partitions were taken away last."""
        self._last_save = time.monotonic()
        self._busy = asyncio.Lock()

    async def take(self, event: EventT[Any]) -> None:
        """Apply one partial."""
        message = event.message
        async with self._busy:
            if not is_current(message, self._app, self._dropped):
                return
            partition = self._partitions.get(message.partition)
            if partition is None:
                partition = await self._load(message.partition)
            partition.take(message.offset, message.value or b"")
            self._unacknowledged.append(event)

    async def save_if_due(self) -> None:
        """Save all partitions once it is time, then acknowledge."""
        async with self._busy:
            for follower in self._followers:
                follower.poll()
            waited = time.monotonic() - self._last_save
            urgent = any(partition.urgent for partition in self._partitions.values())
            if waited >= self.settings.settle_interval_s or (urgent and waited >= URGENT_S):
                await self._save()

    async def drop(self) -> None:
        """Forget all partitions: what was not saved is read again by their next owner."""
        self._dropped = self._app.consumer_generation_id
        async with self._busy:
            self._partitions.clear()
            self._unacknowledged.clear()

    async def _save(self) -> None:
        events, self._unacknowledged = self._unacknowledged, []
        await asyncio.gather(*(asyncio.to_thread(p.save) for p in self._partitions.values()))
        for event in events:
            event.ack()
        self._last_save = time.monotonic()
        if not self._lags() or events:
            self.health.settled()

    def _lags(self) -> bool:
        """Whether a partition holds records that were not seen; the last offset may be a transaction's marker."""
        consumer = self._app.consumer
        ends = {number: consumer.highwater(TP(self._topic, number)) for number in self._partitions}
        lags = {number: max(0, (ends[number] or 0) - p.saved - 1) for number, p in self._partitions.items()}
        for number, lag in lags.items():
            LAG.labels("analysis", self._topic, str(number)).set(lag)
        return any(lag > 1 for lag in lags.values())

    async def _load(self, number: int) -> AnalysisPartition:
        if not self._followers:
            self._followers = await asyncio.to_thread(self._follow)
        partition = await asyncio.to_thread(AnalysisPartition, self.settings, self._stages, number, self._books)
        self._partitions[number] = partition
        log.info("loaded", partition=number, seen=partition.saved)
        return partition

    def _follow(self) -> list[Follower]:
        return [ObjectiveReader(self.settings, self._books.slos), TenantReader(self.settings, self._books.tenants)]

    def _details(self) -> dict[str, Any]:
        return {
            "partitions": {
                str(n): {
                    "watermark_unix_us": p.watermark_us,
                    "next_offset": p.saved + 1,
                    "open_windows": p.open_windows,
                }
                for n, p in sorted(self._partitions.copy().items())
            }
        }


def analysis_settings(settings: Settings) -> AnalysisSettings:
    """Return the settings of the stages."""
    return AnalysisSettings(
        limits=settings.limits,
        anomaly=AnomalySettings(
            warm_up_windows=settings.anomaly_warmup_windows, hold_us=round(settings.anomaly_hold_s * 1e6),
            max_keys=settings.max_detectors,
        ),
        impact=ImpactSettings(
            quiet_us=round(settings.incident_quiet_s * 1e6), max_tenants=settings.max_tenants, max_open=settings.max_incidents,
            memory=MemorySettings(window_us=settings.limits.window_us, max_contexts=settings.max_contexts),
            graph=GraphSettings(max_edges=settings.max_graph_edges),
        ),
        alerts=AlertSettings(max_remembered=settings.max_alerts),
        usage=UsageSettings(settings.max_tenants, settings.max_usage_chains),
        max_slos=settings.max_slos,
    )


def analysis_app(settings: Settings) -> faust.App:
    """Return the Faust app of the analysis."""
    app = make_app(settings, "analysis")
    partials = app.topic(settings.topic(PARTIALS.name), key_serializer="raw", value_serializer="raw")
    worker = AnalysisWorker(settings, app)

    @app.agent(partials, name="flowchain-analysis", **AGENT)
    async def analysis(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.noack().events():
            await worker.take(event)

    @app.timer(URGENT_S / 2, name="flowchain-analysis-save", on_leader=False)
    async def save() -> None:
        await worker.save_if_due()

    @app.on_partitions_revoked.connect
    async def revoked(_: Any, partitions: set[TP], **kwargs: Any) -> None:
        await worker.drop()

    @app.on_partitions_assigned.connect
    async def assigned(_: Any, partitions: set[TP], **kwargs: Any) -> None:
        worker.health.ready = True

    @app.task
    async def tell() -> None:
        server = serve(worker.health, settings)
        log.info("serving", port=server.server_address[1])

    return app
