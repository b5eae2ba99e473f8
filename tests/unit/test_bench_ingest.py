"""The bench: what is counted and what is not, and that no process outlives it."""

import sys
from pathlib import Path

import psutil
import pytest

from infra.bench.ingest import Outcome, Reading, fresh_prefix, remove_topics, throughput
from infra.bench.processes import BenchError, python, tail
from infra.bench.stock_faust import Count


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
    assert count.report(11.5) == {"events": 1, "seconds": 0.5}


def test_document_has_the_ratio_and_the_machine() -> None:
    document = Outcome(1_000, 90_000.4, 9_000.0).document()
    assert document["ratio"] == 10.0
    assert document["events_per_s"] == 90_000
    assert document["stock_faust_events_per_s"] == 9_000
    assert set(document["machine"]) == {"cores", "python"}


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
