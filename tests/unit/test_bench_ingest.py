"""The bench: what is counted and what is not, and that no process outlives it."""

import sys
from pathlib import Path

import orjson
import psutil
import pytest

from infra.bench.commits import Reading, throughput
from infra.bench.counting import Count
from infra.bench.ingest import Outcome, Run
from infra.bench.loading import fresh_prefix, pack, remove_topics
from infra.bench.processes import BenchError, python, tail


def readings(*pairs: tuple[float, int]) -> list[Reading]:
    return [Reading(at_s, events) for at_s, events in pairs]


def test_clock_runs_from_the_first_commit_to_the_first_reading_at_the_end() -> None:
    seen = readings((0, 0), (5, 0), (6, 1_000), (7, 50_000), (8, 101_000), (9, 101_000))
    assert throughput(seen, 101_000) == 50_000


def test_all_in_one_commit_is_no_measurement() -> None:
    with pytest.raises(BenchError, match="too few"):
        throughput(readings((0, 0), (1, 10)), 10)


def test_worker_that_ends_early_is_an_error() -> None:
    with pytest.raises(BenchError, match="before it had read everything"):
        throughput(readings((0, 0), (1, 5), (2, 9)), 10)


def test_faust_is_counted_after_its_first_second() -> None:
    count = Count(seconds=2.0, events=1_000)
    assert [count.finished(at_s) for at_s in (100.0, 100.5, 101.0, 102.0, 103.0)] == [False] * 4 + [True]
    assert count.report(103.0) == {"events": 3, "seconds": 2.0}


def test_faust_ends_when_all_is_read() -> None:
    count = Count(seconds=60.0, events=2)
    assert [count.finished(at_s) for at_s in (10.0, 11.5)] == [False, True]
    assert count.report(11.5) == {"events": 1, "seconds": 1.5}


def test_document_has_the_first_ratio_on_top_and_all_of_them_below() -> None:
    runs = [
        Run("worker", 1, 1, 90_000.4), Run("faust", 1, 1, 9_000.0), Run("streams", 1, 1, None, "no JDK"),
        Run("worker", 1, 2, 100_000.0), Run("streams", 1, 2, 80_000.0),
    ]  # fmt: skip
    document = Outcome(1_000, runs).document()
    assert document["ratio"] == 10.0
    assert document["events_per_s"] == 90_000
    assert document["stock_faust_events_per_s"] == 9_000
    assert [run["ratio"] for run in document["runs"]] == [None, 10.0, None, None, 1.25]
    assert document["runs"][2]["why"] == "no JDK"
    assert {"cores", "python", "load_1m"} <= set(document["machine"])


def test_without_faust_its_figure_is_left_open() -> None:
    document = Outcome(1_000, [Run("worker", 10, 1, 5.0)]).document()
    assert (document["events_per_s"], document["stock_faust_events_per_s"], document["ratio"]) == (5, None, None)


def test_messages_hold_so_many_events_and_no_execution_is_in_two_partitions() -> None:
    events = [(b"e%d" % (number % 7), b"%d" % number) for number in range(100)]
    messages = list(pack(events, 10, 3))
    assert sum(size for *_, size in messages) == 100
    assert max(size for *_, size in messages) == 10
    held = {number: partition for _, value, partition, _ in messages for number in orjson.loads(value)}
    assert sorted(held) == list(range(100))
    for number in range(7):
        assert len({held[other] for other in range(number, 100, 7)}) == 1


def test_one_event_per_message_keeps_key_and_value() -> None:
    assert [(key, value, size) for key, value, _, size in pack([(b"k", b"v")], 1, 3)] == [(b"k", b"v", 1)]


@pytest.mark.skipif(sys.platform == "win32", reason="the local stack is for POSIX")
def test_process_ends_with_its_block_and_its_log_is_told(tmp_path: Path) -> None:
    log, pids = tmp_path / "child.log", []

    def interrupted() -> None:
        with python("http.server", "0", log=log) as process:
            pids.append(process.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not psutil.pid_exists(pids[0])
    assert tail(log)


def test_topics_are_removed_only_under_a_prefix() -> None:
    from connectors.settings import Settings

    assert fresh_prefix() != fresh_prefix()
    with pytest.raises(ValueError, match="prefix"):
        remove_topics(Settings(topic_prefix=""))
