"""No message of ingest is larger than a broker takes, whatever a transaction holds: it would be refused at every restart."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import ingest_output as output
from agents import messages
from agents.ingest_letters import Dead
from agents.messages import fitting, halve_list, halve_slices
from connectors.settings import Settings
from schemas import topics
from schemas.internal import Delta, EdgeDelta, Partial, Slice, TraceBatch
from streams.booking import Chain
from streams.events import Refused
from streams.runs import Execution, Step
from streams.tracked import Output, Tracked

LARGEST = int(topics.MAX_BATCH_BYTES)


class Broker:
    """Takes what a producer is given."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes | None, int]] = []

    def produce(self, topic: str, value: bytes | None, key: Any = None, partition: int = -1, headers: Any = ()) -> None:
        size = len(value or b"") + len(key or b"") + sum(len(name) + len(held or b"") for name, held in headers)
        assert size < LARGEST
        self.records.append((topic, value, partition))

    def of(self, topic: topics.Topic) -> list[bytes]:
        return [value or b"" for name, value, _ in self.records if name == topic.name]


class Letter:
    """A message as the consumer gives it."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes:
        return b"k"

    def headers(self) -> None:
        return None

    def topic(self) -> str:
        return "events"

    def partition(self) -> int:
        return 0

    offset = partition


def said(**fields: Any) -> Output:
    out = Output()
    for name, value in fields.items():
        setattr(out, name, value)
    return out


def publish(out: Output, *dead: bytes) -> Broker:
    tracker = SimpleNamespace(take=lambda: out, partition=0, watermark_us=0, next_offset=0, clock=(0, 0), trace_batches=0)
    pending = output.Pending(dead=[Dead(Letter(value), None, value, Refused("oversize", "r")) for value in dead])  # type: ignore[arg-type]
    broker = Broker()
    output.publish(broker, Settings(), "events", tracker, pending, 2)  # type: ignore[arg-type]
    return broker


def test_deltas_and_edges_of_a_burst_of_names_go_out_in_several_partials() -> None:
    statements = {f"log:{number:03} {'x' * 500}": 1 for number in range(64)}
    deltas = [Delta("t", "c", f"s{n}", f"c{n}", 0, n, n, events=1, indicators=statements) for n in range(300)]
    edges = [EdgeDelta("t", "c", "call", f"{n}{'y' * 120}", "b", "z" * 249, 0, 1) for n in range(9_000)]
    partials = [msgspec.json.decode(value, type=Partial) for value in publish(said(slices=[Slice(1, deltas, edges)])).of(topics.PARTIALS)]
    pieces = [piece for partial in partials for piece in partial.slices]
    assert sorted(delta.step for piece in pieces for delta in piece.deltas) == sorted(delta.step for delta in deltas)
    assert sum(len(piece.edges) for piece in pieces) == len(edges)
    assert all(len(msgspec.json.encode(partial)) <= messages.MAX_BYTES for partial in partials)
    (first, *_), (last, *_) = partials[:1], partials[-1:]
    assert (first.watermark_unix_us, first.last_offset) == (0, 0)
    assert last.last_offset == -1


def test_largest_executions_are_counted_batches_that_fit() -> None:
    steps = {
        f"{n}" + "s" * 58: Step(f"{n}" + "s" * 58, "\U0001f600" * 128, "\U0001f600" * 128, 0, error_type="\U0001f600" * 128, topic="t" * 249)
        for n in range(2_000)
    }
    executions = [Execution("t", "c", f"e{n}", n, n, steps=steps) for n in range(3)]
    finished = [Tracked(("t", x.execution), x, Chain("t", "c", ())) for x in executions]
    values = publish(said(finished={x.run: x for x in finished})).of(topics.TRACES)
    batches = [msgspec.json.decode(value, type=TraceBatch) for value in values]
    assert [batch.number for batch in batches] == [1, 2, 3]


def test_refused_record_as_large_as_an_event_can_be_fits_with_its_headers() -> None:
    broker = publish(Output(), b"x" * 1_048_588, b"x" * 20_000_000)
    assert [len(value) for value in broker.of(topics.EVENTS_DLQ)] == [1_048_588, output.MAX_LETTER_BYTES]
    limits = [topic.config["max.message.bytes"] for topic in topics.DEAD_LETTERS.values()]
    assert set(limits) == {topics.MAX_BATCH_BYTES}


@given(st.lists(st.integers(0, 300)), st.integers(5, 50))
def test_whatever_is_cut_is_whole_and_in_order(items: list[int], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "MAX_BYTES", size)
        values = list(fitting(items, msgspec.json.encode, halve_list))
    parts = [msgspec.json.decode(value, type=list[int]) for value in values]
    assert [item for part in parts for item in part] == items
    assert all(len(value) <= size or len(part) == 1 for value, part in zip(values, parts, strict=True))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4))
def test_slices_are_cut_down_to_single_pieces(sizes: list[tuple[int, int]]) -> None:
    slices = [
        Slice(n, [Delta("t", "c", f"{n}{d}", "x", 0, 0, 0) for d in range(deltas)], [EdgeDelta("t", "c", "call", f"{n}{e}", "x", "", 0) for e in range(edges)])
        for n, (deltas, edges) in enumerate(sizes)
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "MAX_BYTES", 1)
        parts = [msgspec.json.decode(value, type=list[Slice]) for value in fitting(slices, msgspec.json.encode, halve_slices)]
    assert all(sum(len(piece.deltas) + len(piece.edges) for piece in part) <= 1 for part in parts)
    assert [d.step for part in parts for piece in part for d in piece.deltas] == [d.step for piece in slices for d in piece.deltas]
    assert [e.source for part in parts for piece in part for e in piece.edges] == [e.source for piece in slices for e in piece.edges]
