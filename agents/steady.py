"""A Faust consumer that delivers every partition in order and without holes, also across rebalances.

faust-streaming 0.15.3 loses messages at a rebalance on a real broker: it marks a message as read although delivering it
was given up, hands out records that were fetched before a seek, and takes a jump in offsets for a gap and acknowledges
it. Here, whatever was fetched and not handed out leads to another seek to the committed offset before the next fetch;
nothing is filtered by a read offset; and what is committed is the end of the acknowledged prefix of what was delivered.
Records of aborted transactions are never seen.

It leans on private names of faust and aiokafka (both pinned); `tests/chaos` holds it to its promise.
"""

from collections import defaultdict, deque
from collections.abc import AsyncIterator
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

NO_GENERATION = -2
"""That of no assignment."""


def is_current(message: Any, app: Any, dropped: int) -> bool:
    """Return whether a message may be worked on: this assignment has delivered it, and has not been taken away.

    `dropped` is the assignment that was taken away last. Between that and the next one its messages still come out of the
    agents' queues; what stood before them was dropped, so to go on with them would leave it out.
    """
    return bool(message.generation_id == app.consumer_generation_id != dropped)


class CommittedOnlyThread(driver.AIOKafkaConsumerThread):
    """Fetches committed records only; Faust itself does so in its exactly-once mode alone."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer


class SteadyConsumer(driver.Consumer):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._delivered: defaultdict[TP, deque[int]] = defaultdict(deque)
        self._epoch = 0
        self._must_seek = False
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> Any:
        return CommittedOnlyThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Go back to the committed offsets, or to the beginning where nothing is committed, and forget deliveries."""
        self._epoch += 1
        self._must_seek = False
        await super().perform_seek()
        fresh = [tp for tp in self.assignment() if self._committed_offset.get(tp) is None]
        if fresh:
            await self._thread.seek_to_beginning(*(driver.ensure_aiokafka_TP(tp) for tp in fresh))
        self._epoch += 1
        self._delivered.clear()
        for tp in list(self._acked):
            self._acked[tp].clear()
            self._acked_index[tp].clear()

    def ack(self, message: Any) -> bool:
        """Count a message as done, if this assignment has delivered it.

        One that an earlier assignment delivered and that is done only now stands for nothing: the same offset, delivered
        again, may wait in a block that a crash would lose.
        """
        return message.generation_id == self.app.consumer_generation_id and bool(super().ack(message))

    def highwater(self, tp: TP) -> int | None:
        """Return the end of a partition; None once it has been taken away, which Faust's own threads may not know yet."""
        try:
            end: int | None = super().highwater(tp)
        except AssertionError:  # what aiokafka says of a partition that is not assigned
            return None
        return end

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Yield (partition, message) of the next fetch, unless a seek or a rebalance has made them stale."""
        if self._must_seek and self.flow_active:
            await self.perform_seek()
        epoch = self._epoch
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        for fetched, record in self.scheduler.iterate(records):
            tp = TP(fetched.topic, fetched.partition)
            if not self.flow_active or self.app.consumer_generation_id != generation:
                self._must_seek = True
                return
            wanted = active is None or tp in active or tp in self._buffered_partitions
            if self._epoch != epoch or not wanted:
                self._must_seek = True
                continue
            end = self.highwater(tp)
            if end is not None:
                self.app.monitor.track_tp_end_offset(tp, end)
            yield tp, self._to_message(tp, record)

    async def _drain_messages(self, fetcher: Any) -> None:
        while not (self._stopped.is_set() or fetcher._stopped.is_set()):
            await self.sleep(0)
            async for tp, message in self.getmany(timeout=1.0):
                self._delivered[tp].append(message.offset)
                await self.callback(message)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets that are jumped over are markers of transactions, not messages."""

    def _new_offset(self, tp: TP) -> int | None:
        delivered, acked = self._delivered[tp], self._acked_index[tp]
        end = None
        while delivered and delivered[0] in acked:
            last = delivered.popleft()
            acked.discard(last)
            end = last + 1
        self._acked[tp][:] = sorted(acked)
        return end
