"""What bad input gets, on a real broker with a real worker: one bad record never costs a good one."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from helpers_ingest import MS, ROOT, Pipeline, Raw, completed, event, metrics, now_us, pipeline, stop

from connectors.deadletters import PREFIX
from infra.devstack import Stack
from infra.supervisor import free_port
from streams.events import MAX_RECORD_BYTES

pytestmark = pytest.mark.timeout(120)
S = 1_000_000


@pytest.fixture(scope="module")
def pipe(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """One worker that all the bad input of this file meets, one kind after another."""
    folder = tmp_path_factory.mktemp("bad-input")
    with pipeline(stack, folder, http_port=free_port(), grace_s=5, future_s=5, tick_idle_s=0.2, lateness_s=0.2, idle_s=60) as found:
        found.start()
        found.send([Raw(completed("first", now_us()), partition=p) for p in range(2)])
        found.settles_at(2)
        yield found
        assert stop(found.workers[-1]) == 0


RECORDS = 'flowchain_ingest_records_total{outcome="%s"}'
VIOLATED = 'flowchain_violations_total{type="%s"}'
REACHED = 'flowchain_limit_reached_total{bound="%s"}'


@contextmanager
def counted(pipe: Pipeline, **more: int) -> Iterator[None]:
    """Hold the block to what it adds to the worker's counters; outcomes and violations that are not named add nothing."""
    watched = ("flowchain_ingest_records_total{", "flowchain_violations_total{", "flowchain_limit_reached_total{")

    def told() -> Counter[str]:
        found = metrics(pipe.settings.http_port)
        return Counter({name: round(value) for name, value in found.items() if name.startswith(watched) and "tick" not in name})

    before, wanted = told(), Counter({name: count for name, count in more.items() if count})
    yield
    pipe.eventually(lambda: told() - before == wanted, lambda: f"{told() - before}, expected {wanted}")


def changed(**more: object) -> bytes:
    return orjson.dumps(orjson.loads(completed("bad", now_us())) | more)


def without(name: str) -> bytes:
    return orjson.dumps({key: value for key, value in orjson.loads(completed("bad", now_us())).items() if key != name})


BAD = {
    "malformed JSON": (lambda: b'{"type": "step.completed"', "decode", "not JSON"),
    "empty value": (lambda: b"", "decode", "not JSON"),
    "wrong UTF-8": (lambda: changed(step="hidden").replace(b"hidden", b"hid\xff\xfe"), "decode", "not JSON"),
    "two events in one": (lambda: changed() + b"\n" + changed(), "decode", "not JSON"),
    "no object": (lambda: b"7", "validate", "Expected `object`"),
    "an empty array": (lambda: b"[]", "validate", "no event"),
    "an array that is no JSON": (lambda: b"[%b" % changed(), "decode", "not JSON"),
    "wrong type of a field": (lambda: changed(time_unix_us="soon"), "validate", "$.time_unix_us"),
    "unknown event type": (lambda: changed(type="step.hidden"), "validate", "Unknown event type"),
    "missing field": (lambda: without("execution"), "validate", "`execution`"),
    "control character in a name": (lambda: changed(step="hid\x1fden"), "validate", "`$.step`"),
    "control character in an id": (lambda: changed(execution="hidden\x00"), "validate", "`$.execution`"),
    "extra field": (lambda: changed(colour="hidden"), "validate", "`colour`"),
    "seconds for microseconds": (lambda: changed(time_unix_us=4_102_444_800_000_001), "validate", "$.time_unix_us"),
    "oversize": (lambda: changed(attributes={"k": "hidden" * MAX_RECORD_BYTES})[: MAX_RECORD_BYTES + 1], "oversize", "262145 bytes"),
    "null value": (lambda: None, "null", "no value"),
    "late": (lambda: changed(time_unix_us=now_us() - 60 * S), "late", "behind the watermark"),
    "from the future": (lambda: changed(time_unix_us=now_us() + 60 * S), "future", "ahead of the broker"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_record_is_dead_lettered_and_its_neighbours_are_counted(pipe: Pipeline, name: str) -> None:
    value, stage, reason = BAD[name][0](), *BAD[name][1:]
    before, letters = pipe.events_counted(), pipe.refused()
    good = [Raw(completed(f"{name} {n}", now_us())) for n in range(20)]
    key, headers = name.encode(), [("sender", b"\x00\xff"), ("trace", b"1")]
    with counted(pipe, **{RECORDS % "applied": 20, RECORDS % stage: 1}):
        pipe.send([*good[:10], Raw(value, key, headers=headers), *good[10:]])
        pipe.settles_at(before + 20)
        pipe.eventually(lambda: pipe.refused() > letters)
    assert (pipe.events_counted(), pipe.refused()) == (before + 20, letters + 1)
    (letter,) = [stored for stored in pipe.dead_letters() if stored.key == key]
    assert (letter.value, letter.letter.stage) == (value, stage)
    assert reason in letter.letter.reason
    assert "hidden" not in letter.letter.reason, "a reason holds no values"
    assert letter.headers[:2] == headers
    assert {header for header, _ in letter.headers[2:]} == {
        PREFIX + fact for fact in ("topic", "partition", "offset", "stage", "exception.message", "disposition")
    }
    assert (letter.letter.topic, letter.letter.partition) == (pipe.settings.topic("flowchain.events.v1"), 0)
    assert letter.letter.disposition == "refused"


def test_refused_events_of_an_array_are_dead_lettered_alone(pipe: Pipeline) -> None:
    before, letters = pipe.events_counted(), pipe.refused()
    bad = {1: changed(time_unix_us="soon"), 3: changed(time_unix_us=now_us() - 60 * S), 6: b" ".join([b"{", b"}"])}
    values = [bad.get(n) or completed(f"array {n}", now_us()) for n in range(8)]
    key = b"an array with bad events"
    with counted(pipe, **{RECORDS % "applied": 6, RECORDS % "validate": 2, RECORDS % "late": 1}):
        pipe.send([Raw(b"[%b]" % b", ".join(values), key), Raw(completed("after the array", now_us()))])
        pipe.settles_at(before + 6)
        pipe.eventually(lambda: pipe.refused() == letters + 3)
    found = {stored.letter.index: stored.value for stored in pipe.dead_letters() if stored.key == key}
    assert found == bad


def test_duplicates_are_counted_once_and_not_dead_lettered(pipe: Pipeline) -> None:
    before, letters = pipe.events_counted(), pipe.refused()
    events = [Raw(completed(f"twice {n}", now_us())) for n in range(10)]
    other = Raw(completed("twice 0", now_us(), id="another"))
    events[0] = Raw(completed("twice 0", now_us(), id="one"))
    with counted(pipe, **{RECORDS % "applied": 12, RECORDS % "duplicate": 10, VIOLATED % "step.duplicated": 1}):
        pipe.send([*events, *events, other, Raw(completed("after", now_us()))])
        pipe.settles_at(before + 12)
    assert (pipe.events_counted(), pipe.refused()) == (before + 12, letters)


def test_clock_that_goes_backwards_within_the_grace_costs_nothing(pipe: Pipeline) -> None:
    before, letters = pipe.events_counted(), pipe.refused()
    with counted(pipe, **{RECORDS % "applied": 20}):
        pipe.send([Raw(completed(f"back {n}", now_us() - n * 100 * MS)) for n in range(20)])
        pipe.settles_at(before + 20)
    assert (pipe.events_counted(), pipe.refused()) == (before + 20, letters)


def test_every_compression_is_read(pipe: Pipeline) -> None:
    before = pipe.events_counted()
    with counted(pipe, **{RECORDS % "applied": 200}):
        for codec in ("gzip", "lz4", "zstd", "snappy"):
            pipe.send([Raw(completed(f"{codec} {n}", now_us())) for n in range(50)], **{"compression.type": codec})
        pipe.settles_at(before + 200)
    assert pipe.events_counted() == before + 200


def test_batch_that_adds_nothing_is_no_trouble(pipe: Pipeline) -> None:
    """Aborted transactions and ticks: batches without a record for the worker."""
    from confluent_kafka import Producer

    before = pipe.events_counted()
    producer = Producer({**pipe.settings.kafka(), "transactional.id": pipe.settings.topic_prefix + "abort"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(pipe.settings.topic("flowchain.events.v1"), completed("aborted", now_us()), partition=0)
    producer.flush(30)
    producer.abort_transaction(30)
    pipe.send([Raw(orjson.dumps({"type": "clock.tick", "time_unix_us": now_us()}))])
    pipe.send([Raw(completed("after abort", now_us()))])
    pipe.settles_at(before + 1)
    assert pipe.events_counted() == before + 1


def test_many_distinct_chains_end_in_overflow_with_a_clear_record(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, max_series=50, source_partitions=1) as pipe:
        pipe.send([Raw(event("execution.started", now_us(), f"e{n}", f"chain-{n}")) for n in range(2_000)])
        pipe.start()
        pipe.settles_at(2_000)
        deltas = pipe.deltas()
        assert sum(delta.events for delta in deltas) == 2_000
        assert sum(delta.events for delta in deltas if delta.chain == "~overflow") == 1_950
        from schemas.topics import VIOLATIONS

        told = {orjson.loads(m.value() or b"")["id"]: orjson.loads(m.value() or b"") for m in pipe.read(VIOLATIONS)}
        assert {found["type"] for found in told.values()} == {"cardinality.exceeded"}
        assert len(told) == len({delta.window_start_unix_us for delta in deltas if delta.chain == "~overflow"})
        assert "more than 50 distinct steps" in next(iter(told.values()))["detail"]


def test_limits_of_steps_and_of_open_executions_are_counted(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, http_port=free_port(), max_steps=3, max_open=4, source_partitions=1, tick_idle_s=60) as pipe:
        pipe.start()
        pipe.send([Raw(completed("ready", now_us()))])
        pipe.settles_at(1)
        with counted(pipe, **{RECORDS % "applied": 11, REACHED % "untracked_steps": 2, REACHED % "closed_by_limit": 4}):
            pipe.send([Raw(completed("e", now_us(), f"s{n}")) for n in range(5)])
            pipe.send([Raw(event("execution.started", now_us(), f"open {n}")) for n in range(6)])
            pipe.settles_at(12)
        told = metrics(pipe.settings.http_port)
        name = pipe.settings.topic("flowchain.events.v1")
        assert told[f'flowchain_lag_records{{partition="0",topic="{name}",worker="ingest"}}'] == 0
        assert told['flowchain_records_published_total{topic="flowchain.traces.v1"}'] > 0


def test_every_counter_that_the_readme_names_is_told(pipe: Pipeline) -> None:
    readme = (ROOT / "README.md").read_text()
    told = metrics(pipe.settings.http_port)
    named = set(re.findall(r"flowchain_[a-z_]+", readme))
    assert named <= {name.partition("{")[0] for name in told} | {"flowchain_ingest_records_total"}
    assert {RECORDS % outcome for outcome in re.findall(r'outcome="(\w+)"', readme)} <= told.keys()
    assert {REACHED % bound for bound in re.findall(r'bound="(\w+)"', readme)} <= told.keys()


def test_worker_stops_with_a_clear_sentence_when_most_records_are_bad(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, dead_letter_window=100, dead_letter_ratio=0.5, source_partitions=1) as pipe:
        pipe.send([Raw(completed(f"e{n}", now_us())) for n in range(100)])
        worker = pipe.start()
        pipe.settles_at(100)
        pipe.send([Raw(b"{") for _ in range(400)])
        assert worker.wait(60) == 65
        (sentence,) = [line for line in pipe.log().read_text().splitlines() if "dead_letter_ratio" in line]
        assert "records of " + pipe.settings.topic("flowchain.events.v1") + " were refused" in sentence
        assert "Traceback" not in pipe.log().read_text()
        assert pipe.events_counted() == 100


def test_bad_deploy_stops_every_worker_until_the_limit_is_raised_or_the_input_is_good(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, dead_letter_window=1_000, tick_idle_s=60) as pipe:
        pipe.send([Raw(b"{", partition=n % 2) for n in range(30_000)])
        for _ in range(3):
            assert pipe.start().wait(60) == 65
            assert pipe.refused() < 1_000, "what was refused before the limit was reached"
        told = pipe.start(DEAD_LETTER_RATIO="1")
        pipe.eventually(lambda: pipe.refused() == 30_000)
        assert stop(told) == 0
        pipe.send([Raw(completed("good", now_us()))])
        pipe.start()
        pipe.settles_at(1)
