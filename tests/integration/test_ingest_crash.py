"""The ingest worker on a real broker: killed and started again, or robbed of its input, it counts everything exactly once."""

import signal
from collections import Counter
from pathlib import Path

import orjson
import pytest
from helpers_ingest import MS, Pipeline, Raw, completed, event, now_us, pipeline, stop

from infra.devstack import Stack
from schemas.topics import DATA_LOSS, OPEN_EXECUTIONS

pytestmark = pytest.mark.timeout(120)


def one_execution(name: str, at_us: int, partition: int) -> list[Raw]:
    """Five events."""
    values = [
        event("execution.started", at_us, name), completed(name, at_us + MS, "a"), completed(name, at_us + 2 * MS, "b"),
        event("step.failed", at_us + 3 * MS, name, step="c", error_type="Boom"),
        event("execution.failed", at_us + 4 * MS, name, error_type="Boom"),
    ]  # fmt: skip
    return [Raw(value, name.encode(), partition) for value in values]


def finished_once(pipe: Pipeline) -> None:
    counts = Counter((x.execution, x.revision) for x in pipe.executions())
    assert {name for name, times in counts.items() if times > 1} == set()


def test_killed_mid_way_and_started_again_it_counts_everything_exactly_once(stack: Stack, tmp_path: Path) -> None:
    executions, halves = 6_000, []
    with pipeline(stack, tmp_path, commit_events=1_000, commit_interval_s=0.02, session_timeout_s=6) as pipe:
        at_us = now_us()
        # Every execution is begun in one half and ended in the other, so that the open ones have to be brought over.
        every = [one_execution(f"e{n}", at_us + n * 10, n % 2) for n in range(executions)]
        halves = [[r for records in every for r in records[:3]], [r for records in every for r in records[3:]]]
        pipe.send(halves[0])
        pipe.start()
        pipe.eventually(lambda: pipe.events_counted() > 1_000)
        pipe.workers[-1].kill()
        pipe.workers[-1].wait(10)
        pipe.send(halves[1])
        pipe.start()
        pipe.settles_at(9_000)
        pipe.workers[-1].kill()
        pipe.workers[-1].wait(10)
        pipe.start()
        pipe.settles_at(5 * executions)
        assert stop(pipe.workers[-1]) == 0
        assert pipe.events_counted() == 5 * executions
        assert sum(delta.failed for delta in pipe.deltas() if delta.step == "c") == executions
        assert sum(delta.failed for delta in pipe.deltas() if not delta.step) == executions
        found = pipe.executions()
        assert Counter(x.status for x in found) == {"failed": executions}
        assert {len(x.steps) for x in found} == {3}
        finished_once(pipe)
        assert pipe.refused() == 0


def test_killed_and_back_under_its_name_it_does_not_wait_for_the_end_of_its_session(stack: Stack, tmp_path: Path) -> None:
    at_us = now_us()
    with pipeline(stack, tmp_path, session_timeout_s=300) as pipe:
        pipe.send(one_execution("first", at_us, 0) + one_execution("second", at_us, 1))
        killed = pipe.start(worker_id="ingest-1")
        pipe.settles_at(10)
        killed.kill()
        killed.wait(10)
        pipe.send(one_execution("third", at_us, 0) + one_execution("fourth", at_us, 1))
        back = pipe.start(worker_id="ingest-1")
        pipe.settles_at(20)
        assert stop(back) == 0
        finished_once(pipe)


def losses(pipe: Pipeline) -> list[tuple[int, int, int]]:
    found = [orjson.loads(message.value() or b"") for message in pipe.read(DATA_LOSS)]
    assert all(loss["topic"] == pipe.settings.topic("flowchain.events.v1") for loss in found)
    return [(loss["partition"], loss["first_offset"], loss["last_offset"]) for loss in found]


def test_deleted_before_it_was_read_the_exact_gap_is_told_once(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, tick_idle_s=60) as pipe:
        pipe.send([Raw(completed(f"e{n}", now_us()), partition=1) for n in range(30)])
        pipe.start()
        pipe.settles_at(30)
        assert stop(pipe.workers[-1]) == 0
        pipe.send([Raw(completed(f"f{n}", now_us()), partition=1) for n in range(50)])
        pipe.delete_before(1, 45)
        pipe.start()
        pipe.settles_at(30 + 35)
        assert stop(pipe.workers[-1]) == 0
        assert pipe.events_counted() == 65
        assert losses(pipe) == [(1, 30, 44)]
        pipe.start()
        pipe.send([Raw(completed("g", now_us()), partition=1)])
        pipe.settles_at(66)
        assert losses(pipe) == [(1, 30, 44)]


def test_overtaken_while_it_reads_it_tells_the_exact_gap_and_goes_on(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, tick_idle_s=60, session_timeout_s=60) as pipe:
        pipe.send([Raw(completed(f"e{n}", now_us()), partition=1) for n in range(30)])
        worker = pipe.start()
        pipe.settles_at(30)
        worker.send_signal(signal.SIGSTOP)
        pipe.send([Raw(completed(f"f{n}", now_us()), partition=1) for n in range(30)])  # the client may have fetched them
        pipe.send([Raw(completed(f"g{n}", now_us()), partition=1) for n in range(50)])
        pipe.delete_before(1, 90)
        worker.send_signal(signal.SIGCONT)
        pipe.send([Raw(completed("h", now_us()), partition=1)])
        pipe.eventually(lambda: bool(losses(pipe)))
        ((partition, first, last),) = losses(pipe)
        assert (partition, last) == (1, 89) and first >= 30
        pipe.settles_at(first + 21)
        assert pipe.events_counted() == first + 20 + 1
        assert stop(worker) == 0


def test_late_first_reader_of_a_truncated_log_has_lost_nothing_it_ever_had(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, tick_idle_s=60) as pipe:
        pipe.send([Raw(completed(f"e{n}", now_us())) for n in range(20)])
        pipe.delete_before(0, 5)
        pipe.start()
        pipe.settles_at(15)
        assert (pipe.events_counted(), losses(pipe)) == (15, [])


def test_silence_is_put_on_the_log_and_what_is_missing_is_noticed(stack: Stack, tmp_path: Path) -> None:
    from schemas.topics import EVENTS, VIOLATIONS

    with pipeline(stack, tmp_path, tick_idle_s=0.1, lateness_s=0.1, idle_s=0.5) as pipe:
        pipe.send([Raw(event("step.started", now_us(), "e", step="a"))])
        pipe.start()
        pipe.eventually(lambda: any(True for _ in pipe.read(VIOLATIONS)))
        (found,) = [orjson.loads(message.value() or b"") for message in pipe.read(VIOLATIONS)]
        assert (found["type"], found["step"], found["execution"]) == ("step.missing", "a", "e")
        ticks = [message for message in pipe.read(EVENTS) if dict(message.headers() or []).get("flowchain-tick")]
        assert ticks
        assert {message.partition() for message in ticks} == {0}, "a partition that never held a record stays empty"
        assert [x.status for x in pipe.executions()] == ["incomplete"]


def test_names_with_separators_of_keys_neither_stop_the_worker_nor_the_one_after_it(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, source_partitions=1, tick_idle_s=60, idle_s=1, lateness_s=0.1) as pipe:
        bad = [completed("bad", now_us(), "a\x1fb"), completed("bad", now_us(), user="a\x1fb"), completed("b\x1fad", now_us())]
        open_ = event("execution.started", now_us(), "open")
        pipe.send([Raw(value) for value in (*bad, open_, completed("good", now_us()))])
        pipe.start()
        pipe.settles_at(2)
        assert stop(pipe.workers[-1]) == 0
        pipe.start()
        pipe.send([Raw(completed("after", now_us() + 5_000 * MS))])
        pipe.settles_at(3)
        pipe.eventually(lambda: "open" in {x.execution for x in pipe.executions()})
        assert stop(pipe.workers[-1]) == 0
        assert [letter.letter.stage for letter in pipe.dead_letters()] == ["validate"] * 3


def test_what_a_rebalance_callback_raises_is_told(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, source_partitions=1) as pipe:
        pipe.send([Raw(completed("e", now_us()))])
        pipe.start()
        pipe.settles_at(1)
        assert stop(pipe.workers[-1]) == 0
        pipe.put(OPEN_EXECUTIONS, {b"p": b"no state"})
        assert pipe.start().wait(60) == 1
        assert "SystemError" not in pipe.log().read_text()
        assert pipe.log().read_text().rstrip().splitlines()[-1].startswith("msgspec.DecodeError")
