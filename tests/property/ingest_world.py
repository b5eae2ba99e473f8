"""Any log of events, and what a tracker makes of it when it is cut into transactions and restarted at will.

`World` does with a tracker what `agents/ingest.py` does: apply a chunk, take, write the changelog and the traces; and
`World.restart` what `agents/ingest_state.py` does with them.
"""

import copy
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
from hypothesis import strategies as st

from agents.ingest_state import _note
from schemas.definitions import ChainDefinition, ChainStep
from schemas.internal import Delta, EdgeDelta, Execution
from streams.booking import KnownEdge
from streams.events import decode_chunk
from streams.limits import Limits
from streams.rules import RuleBook
from streams.tracked import ExecutionKey
from streams.tracker import Tracker
from streams.windows import merge_delta

T = 1_800_000_000_000_000
MS = 1_000
DEFINITION = ChainDefinition(
    name="abc",
    steps=(
        ChainStep(name="a", component="A", expected_duration_ms=30, deadline_ms=400),
        ChainStep(name="b", component="B", deadline_ms=300),
        ChainStep(name="o", component="O", after=("a",), optional=True),
        ChainStep(name="c", component="C", after=("b", "o")),
    ),
)
DEFINITIONS = [DEFINITION]
"""Those in force, of whoever tracks."""
LIMITS = Limits(
    window_us=1_000 * MS, lateness_us=200 * MS, grace_us=3_000 * MS, future_us=10_000 * MS, idle_us=1_000 * MS,
    linger_us=600_000 * MS,
)  # fmt: skip
KINDS = ("execution.started", "execution.completed", "execution.failed", "step.started", "step.completed", "step.failed", "clock.tick")

Record = tuple[bytes, int]
"""(value, broker time in µs)"""


@st.composite
def logs(draw: st.DrawFn, kinds: Sequence[str] = KINDS, size: int = 25, ids: bool = True) -> list[Record]:
    """Any log: clocks that jump, ends before starts, duplicates, silence, records that are refused."""
    at = 0
    records: list[Record] = []
    for _ in range(draw(st.integers(1, size))):
        if records and draw(st.integers(0, 9)) == 0:
            records.append((draw(st.sampled_from(records))[0], T + at * MS))
            continue
        at += draw(st.sampled_from([0, 10, 20, 50, 110, 300, 900, 2_500]))
        event = draw(_events(kinds, ids))
        if event["type"] == "clock.tick":
            event = {"type": "clock.tick"}
        shift = draw(st.sampled_from([0, 0, 0, 0, -20, -150, -600, -3_500, 700, 20_000]))
        event["time_unix_us"] = T + max(0, at + shift) * MS
        records.append((b"{" if draw(st.integers(0, 30)) == 0 else orjson.dumps(event), T + at * MS))
    return records


@st.composite
def arrays(draw: st.DrawFn, size: int = 25) -> tuple[list[Record], list[Record]]:
    """A log of arrays, and the same events one per record."""
    packed, single, at = [], [], 0
    log = [(b"{}" if value == b"{" else value, at_us) for value, at_us in draw(logs(size=size))]
    while at < len(log):
        run = log[at : at + draw(st.integers(1, 6))]
        at_us, at = run[-1][1], at + len(run)
        values = [value for value, _ in run]
        one = len(run) == 1 and draw(st.booleans())
        packed.append((values[0] if one else b"[%b]" % b", ".join(values), at_us))
        single += [(value, at_us) for value in values]
    return packed, single


@st.composite
def _events(draw: st.DrawFn, kinds: Sequence[str], ids: bool) -> dict[str, Any]:
    kind = draw(st.sampled_from(kinds))
    event: dict[str, Any] = {
        "type": kind, "chain": draw(st.sampled_from(["abc", "free"])), "execution": draw(st.sampled_from("efg")),
    }  # fmt: skip
    if draw(st.integers(0, 3)) == 0:
        event["tenant"] = draw(st.sampled_from(["t", "u"]))
    event["execution"] += event["chain"]
    if kind.startswith("step"):
        step = draw(st.sampled_from("aabbcox"))
        event |= {"step": step, "component": step.upper(), "attempt": draw(st.sampled_from([1, 1, 2]))}
        if draw(st.booleans()):
            spans = draw(st.lists(st.sampled_from(["a#1", "b#1", "b#2", "?"]), min_size=1, max_size=3))
            event["parents"] = [{"span": span} for span in spans]
    if kind in ("step.completed", "step.failed"):
        event["duration_us"] = draw(st.sampled_from([0, 10, 31, 200])) * MS
        if ids and draw(st.booleans()):
            event["id"] = draw(st.sampled_from("xy"))
    if kind.endswith("failed"):
        event["error_type"] = "Boom"
        if draw(st.booleans()):
            event["error_message"] = "it broke"
    if kind == "log.observed":
        event |= {"component": "A", "level": "error", "template": draw(st.sampled_from("xyz")), "span": draw(st.sampled_from(["a#1", "b#1"]))}
    return event


class World:
    """A tracker, and what stands on the topics behind it."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.tracker = self._fresh()
        self.changelog: dict[ExecutionKey, bytes] = {}
        self.series: list[tuple[str, str, str, str]] = []
        self.known_edges: list[KnownEdge] = []
        self.traces: list[tuple[int, list[bytes]]] = []
        self.violations: set[str] = set()
        self.deltas: dict[tuple[str, str, str, str, int], Delta] = {}
        self.edges: dict[tuple[str, ...], EdgeDelta] = {}
        self.refused: list[tuple[tuple[int, int], str]] = []
        """(offset, which event of that record), stage"""

    def _fresh(self) -> Tracker:
        return Tracker("events", 0, RuleBook(DEFINITIONS), self.limits)

    def apply(self, log: Sequence[Record]) -> None:
        """Apply a chunk."""
        start = self.tracker.next_offset
        decoded = decode_chunk([value for value, _ in log])
        offsets = decoded.spread(list(range(start, start + len(log))))
        refused = self.tracker.apply(decoded.events, offsets, decoded.spread([at for _, at in log]))
        for number, reason in refused:
            self.refused.append(((offsets[number], number - offsets.index(offsets[number])), reason.stage))

    def commit(self) -> None:
        """End a transaction."""
        out = self.tracker.take()
        self.violations |= {found.encode().decode() for found in out.violations}
        for delta in (delta for piece in out.slices for delta in piece.deltas):
            key = (delta.tenant, delta.chain, delta.step, delta.component, delta.window_start_unix_us)
            if key in self.deltas:
                into = self.deltas[key]
                merge_delta(into, copy.deepcopy(delta))
                into.first_offset = min(into.first_offset, delta.first_offset)
                into.last_offset = max(into.last_offset, delta.last_offset)
            else:
                self.deltas[key] = copy.deepcopy(delta)
        for edge in (edge for piece in out.slices for edge in piece.edges):
            name = (edge.tenant, edge.chain, edge.kind, edge.source, edge.target, edge.topic, str(edge.window_start_unix_us))
            into = self.edges.setdefault(name, msgspec.structs.replace(edge, count=0, failed=0, latency_sum_us=0))
            into.count += edge.count
            into.failed += edge.failed
            into.latency_sum_us += edge.latency_sum_us
            into.latency_max_us = max(into.latency_max_us, edge.latency_max_us)
        if out.finished:
            records = [msgspec.json.encode(x.execution.record()) for x in out.finished.values()]
            self.traces.append((self.tracker.watermark_us, records))
            for tracked, record in zip(out.finished.values(), records, strict=True):
                tracked.rest(record)
        for tracked in out.touched:
            if not tracked.finished_us:
                self.changelog[tracked.key] = msgspec.json.encode(tracked.execution.record())
            else:
                self.changelog.pop(tracked.key, None)
        self.series += out.new_series
        self.known_edges += out.new_edges

    def restart(self) -> None:
        """Go on in another process, from what the last transaction left."""
        old, self.tracker = self.tracker, self._fresh()
        open_ = [msgspec.json.decode(value, type=Execution) for value in self.changelog.values()]
        horizon_us = self.limits.remembered_since_us(old.watermark_us)
        newest: dict[ExecutionKey, Execution] = {}
        for _, batch in self.traces:
            for value in batch:
                _note(newest, msgspec.json.decode(value, type=Execution))
        finished = sorted((x for x in newest.values() if x.finished_us >= horizon_us), key=lambda x: x.finished_us)
        self.tracker.restore(old.watermark_us, open_, finished, self.series, self.known_edges)
        self.tracker.next_offset, self.tracker.clock = old.next_offset, old.clock

    def finished(self) -> dict[tuple[str, str, int, int], Execution]:
        """The last word on every execution that is over."""
        batches = (msgspec.json.decode(value, type=Execution) for _, batch in self.traces for value in batch)
        return {(x.tenant, x.execution, x.first_offset, x.ordinal): x for x in batches}


def run(log: Sequence[Record], cuts: Sequence[int] = (), takes: Sequence[int] = (), restarts: Sequence[int] = (), limits: Limits = LIMITS) -> World:
    """Apply a log in chunks that end at `cuts`, transactions at `takes`, restarts at `restarts`."""
    world = World(limits)
    at = 0
    for end in sorted({*cuts, *takes, *restarts, len(log)}):
        world.apply(log[at:end])
        at = end
        if end in takes or end in restarts or end == len(log):
            world.commit()
        if end in restarts:
            world.restart()
    return world
