"""What executions are doing now: the changelog of ingest by tenant and id, undecoded until somebody asks."""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec
import orjson

from schemas.internal import OPEN_EXECUTION, PARTITION_STATE, Execution, PartitionState
from streams import runs
from streams.progress import Progress, progress
from streams.rules import RuleBook

decode = msgspec.json.Decoder(Execution).decode
_decode_state = msgspec.json.Decoder(PartitionState).decode


class _Batch(msgspec.Struct):
    """A TraceBatch whose executions stay as they are."""

    executions: list[msgspec.Raw]


class _Name(msgspec.Struct):
    """What tells an execution from all others."""

    tenant: str
    execution: str


_decode_batch = msgspec.json.Decoder(_Batch).decode
_decode_name = msgspec.json.Decoder(_Name).decode


def records_of(batch: bytes) -> list[bytes]:
    """Return the executions of a trace batch as records."""
    return [bytes(raw) for raw in _decode_batch(batch).executions]


class LiveExecutions:
    """Open executions, and the last ones that ended; written by the feed's thread, read by any.

    Holds what ingest holds open, which ingest's own settings bound, and at most `limit` that have ended: the databases
    have those a second later.
    """

    def __init__(self, rules: RuleBook, limit: int) -> None:
        self._rules = rules
        self._limit = limit
        self._open: dict[str, dict[str, tuple[int, bytes]]] = {}
        """(partition, record) by tenant and execution."""
        self._ended: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._watermarks: dict[int, int] = {}

    def changed(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Take a record of the changelog."""
        if key == PARTITION_STATE:
            if value is not None:
                self._watermarks[partition] = _decode_state(value).watermark_unix_us
            return
        kind, *parts = orjson.loads(key)
        if kind != OPEN_EXECUTION:
            return
        tenant, execution = parts
        if value is not None:
            self._open.setdefault(tenant, {})[execution] = (partition, value)
        elif tenant in self._open:
            self._open[tenant].pop(execution, None)
            if not self._open[tenant]:
                del self._open[tenant]

    def ended(self, batch: bytes) -> list[bytes]:
        """Take a trace batch; return its executions as records."""
        found = records_of(batch)
        for record in found:
            name = _decode_name(record)
            self._ended[name.tenant, name.execution] = record
            self._ended.move_to_end((name.tenant, name.execution))
        while len(self._ended) > self._limit:
            self._ended.popitem(last=False)
        return found

    def find(self, tenant: str, execution: str) -> Execution | None:
        """Return an execution that is open or ended lately."""
        held = self._open.get(tenant, {}).get(execution)
        record = held[1] if held else self._ended.get((tenant, execution))
        return None if record is None else decode(record)

    def open(self, tenant: str) -> Iterator[Execution]:
        """Yield the open executions of a tenant, by id."""
        for _, (_, record) in sorted(dict(self._open.get(tenant, {})).items()):
            yield decode(record)

    def progress(self, execution: Execution, typical_us: int | None) -> Progress:
        """Return how far an execution is, at the event time that its partition has reached."""
        held = self._open.get(execution.tenant, {}).get(execution.execution)
        now_us = self._watermarks.get(held[0], 0) if held else 0
        rules = self._rules.find(execution.tenant, execution.chain, execution.start_us)
        return progress(runs.Execution.of(execution), rules, typical_us, max(now_us, execution.last_us))
