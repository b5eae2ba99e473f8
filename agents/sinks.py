"""The sink workers: Faust agents that write topics into ClickHouse and PostgreSQL, a process per database.

A database that is away stalls its own process only; the rows wait in Kafka. Commit order per block: (1) what could
not be read is in the dead letters, (2) the block is in the database, with its offsets, (3) the records are
acknowledged. What the database already holds is skipped.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import faust
import structlog
from faust.types import TP, EventT
from msgspec import MsgspecError
from pydantic import ValidationError

from agents.faust_app import AGENT, make_app
from agents.steady import NO_GENERATION, is_current
from connectors import retention
from connectors.foreign import DeadLetterBox, Foreign
from connectors.rows.position import Position
from connectors.settings import Settings
from connectors.sink import SinkFenced, SinkStopped
from connectors.stores import BINDINGS, Binding, Store
from connectors.telemetry import LAG, ROWS, SINK_RECORDS, Health, serve
from schemas.internal import TraceBatch

log = structlog.get_logger("sinks")
TICK_S = 0.1


class TopicBegunAnew(Exception):
    """The database has seen offsets that the topic does not have: going on would leave everything out silently."""


class Block:
    """What one partition has waiting for its next write, and where the database stands."""

    def __init__(self, next_offset: int | None, redo: tuple[int, int] | None) -> None:
        self.start = redo[0] if redo else next_offset or 0
        """Records before it are in the database."""
        self.redo = redo
        """A block that may be incomplete: to be built again exactly."""
        self.records: list[tuple[Position, Any]] = []
        self.foreign: list[Foreign] = []
        self.events: list[EventT[Any]] = []
        self.offsets: list[int] = []
        self.rows = 0
        self.since = time.monotonic()
        self.settled = False


class SinkAgent:
    """One topic into one database."""

    def __init__(self, binding: Binding, settings: Settings, app: faust.App, health: Health) -> None:
        self.binding = binding
        self._settings = settings
        self._app = app
        self._health = health
        self._stop = threading.Event()
        """Ends the waiting for a database that is away."""
        self._closed = False
        self._store: Store = binding.open(settings, self._stop)
        self._blocks: dict[int, Block] = {}
        self._dropped = NO_GENERATION
        """The assignment whose partitions were taken away last."""
        self.topic = settings.topic(binding.topic.name)
        self._busy = asyncio.Lock()
        self._letters = DeadLetterBox(settings, binding.topic)

    async def take(self, event: EventT[Any]) -> None:
        """Add one record to its partition's block, and write the block when it is large enough."""
        message = event.message
        async with self._busy, self._given_up():
            if not is_current(message, self._app, self._dropped):
                return
            block = self._blocks.get(message.partition)
            if block is None:
                block = await self._resume(message.tp)
            if message.offset < block.start:
                event.ack()
                return
            await self._check_redo(block, message.partition, message.offset)
            self._add(block, event)
            if self._is_full(block):
                await self._write(message.partition, block)

    async def _resume(self, tp: TP) -> Block:
        if not self._closed:
            self._stop.clear()
        blocks = self._blocks
        resume = await asyncio.to_thread(self._store.resume, self.topic, tp.partition)
        end = self._app.consumer.highwater(tp)
        if end is not None and resume.next_offset is not None and resume.next_offset > end:
            raise TopicBegunAnew(
                f"{self.binding.table} holds {tp.topic}[{tp.partition}] up to offset {resume.next_offset - 1}, and the "
                f"topic ends at {end}: it was made anew; use another topic prefix, or empty the table and its progress"
            )
        block = blocks[tp.partition] = Block(resume.next_offset, resume.redo)
        return block

    async def write_if_due(self) -> None:
        """Write the blocks that have waited long enough; note the end of those that are idle."""
        async with self._busy, self._given_up():
            for partition, block in list(self._blocks.items()):
                waited = time.monotonic() - block.since
                if block.offsets and block.redo is None and waited >= self._settings.sink_interval_s:
                    await self._write(partition, block)
                elif not block.offsets and not block.settled and waited >= 10 * self._settings.sink_interval_s:
                    await asyncio.to_thread(self._store.settle, self.topic, partition)
                    block.settled = True

    def drop(self) -> None:
        """Forget what waits, and what is being written if the database is away: the next owner reads it again."""
        self._stop.set()
        self._blocks = {}
        self._dropped = self._app.consumer_generation_id

    def close(self) -> None:
        """Disconnect from the database."""
        self._closed = True
        self._store.close()

    @asynccontextmanager
    async def _given_up(self) -> AsyncIterator[None]:
        """Pass over that a write was given up because the partitions are gone."""
        try:
            yield
        except SinkStopped as stopped:
            log.warning("given up", topic=self.topic, reason=str(stopped))

    @property
    def waiting(self) -> int:
        """Records that are read and not written."""
        return sum(len(block.offsets) for block in self._blocks.values())

    def _add(self, block: Block, event: EventT[Any]) -> None:
        message = event.message
        if not block.offsets:
            block.since = time.monotonic()
        block.offsets.append(message.offset)
        block.events.append(event)
        try:
            record = self.binding.decode(message.value or b"")
        except (MsgspecError, ValidationError) as error:
            # Only this pipeline writes these topics: a foreign record is no row, and must not stop the others.
            block.foreign.append(Foreign(message, error))
            log.error("foreign record", topic=self.topic, partition=message.partition, offset=message.offset,
                      reason=type(error).__name__)  # fmt: skip
            return
        block.records.append((Position(self.topic, message.partition, message.offset), record))
        block.rows += _rows_of(record)

    def _is_full(self, block: Block) -> bool:
        if block.redo is not None:
            return block.offsets[-1] >= block.redo[1]
        return max(block.rows, len(block.offsets)) >= self._settings.sink_rows

    async def _check_redo(self, block: Block, partition: int, offset: int) -> None:
        """Give a block up that cannot be built again because the log has lost a part of it."""
        if block.redo is None:
            return
        first, last = block.redo
        if not block.offsets and offset > last:
            # It was complete, for its records had been acknowledged; only its end had not been noted.
            await asyncio.to_thread(self._store.skip, self.topic, partition, last)
            block.redo = None
        elif offset > last or (not block.offsets and offset > first):
            log.error("block lost", topic=self.topic, partition=partition, first_offset=first, last_offset=last)
            await asyncio.to_thread(self._store.skip, self.topic, partition, min(offset, last + 1) - 1)
            block.redo = None

    async def _write(self, partition: int, block: Block) -> None:
        if self._blocks.get(partition) is not block:
            return  # dropped while something else was waited for
        first, last = block.redo or (block.offsets[0], block.offsets[-1])
        if block.foreign:
            await asyncio.to_thread(self._letters.send, block.foreign)
        try:
            await asyncio.to_thread(self._store.write, self.topic, partition, first, last, block.records)
        except SinkFenced as fenced:
            if self._blocks.get(partition) is block:
                raise  # a process that was stopped for long: only a start tells it who owns what
            log.warning("given up", topic=self.topic, reason=str(fenced))
            return
        if self._blocks.get(partition) is not block:
            return  # dropped meanwhile: it is stored, and whoever owns the partition now reads and redoes it as it was announced
        self._measure(partition, block, last)
        for event in block.events:
            event.ack()
        self._blocks[partition] = Block(last + 1, None)
        self._health.settled()

    def _measure(self, partition: int, block: Block, last: int) -> None:
        table = self.binding.table
        ROWS.labels(table).inc(block.rows)
        SINK_RECORDS.labels(table, "written").inc(len(block.records))
        SINK_RECORDS.labels(table, "foreign").inc(len(block.foreign))
        end = self._app.consumer.highwater(TP(self.topic, partition)) or 0
        LAG.labels(f"sinks-{table}", self.topic, str(partition)).set(max(0, end - last - 1))


def _rows_of(record: Any) -> int:
    if isinstance(record, TraceBatch):
        return sum(1 + len(execution.steps) for execution in record.executions)
    return 1


def sinks_app(settings: Settings, database: str) -> faust.App:
    """Return the Faust app that writes into one database: "clickhouse" or "postgres"."""
    app = make_app(settings, f"sinks-{database}")
    health = Health(f"sinks-{database}")
    sinks = [SinkAgent(binding, settings, app, health) for binding in BINDINGS[database]]
    health.details = lambda: {"waiting": {sink.binding.table: sink.waiting for sink in sinks}}
    for sink in sinks:
        _add_agent(app, sink)

    @app.timer(TICK_S, name=f"flowchain-sinks-{database}-write", on_leader=False)
    async def write() -> None:
        await asyncio.gather(*(sink.write_if_due() for sink in sinks))
        if not any(sink.waiting for sink in sinks):
            health.settled()

    if database == "postgres":

        @app.timer(retention.EVERY_S, name="flowchain-retention", on_leader=False)
        async def prune() -> None:
            await asyncio.to_thread(retention.retain, settings)

    @app.on_partitions_revoked.connect
    async def revoked(_: Any, partitions: set[TP], **kwargs: Any) -> None:
        for sink in sinks:
            sink.drop()

    @app.on_partitions_assigned.connect
    async def assigned(_: Any, partitions: set[TP], **kwargs: Any) -> None:
        health.ready = True

    @app.on_before_shutdown.connect
    async def stopping(_: Any, **kwargs: Any) -> None:
        for sink in sinks:
            await asyncio.to_thread(sink.close)

    @app.task
    async def tell() -> None:
        server = serve(health, settings)
        log.info("serving", port=server.server_address[1])

    return app


def _add_agent(app: faust.App, sink: SinkAgent) -> None:
    topic = app.topic(sink.topic, key_serializer="raw", value_serializer="raw")

    @app.agent(topic, name=f"flowchain-{sink.binding.table}", **AGENT)
    async def consume(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.noack().events():
            await sink.take(event)
