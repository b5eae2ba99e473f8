"""`flowchain up`, `status`, `simulate`, `down` as a user runs them, on engines of their own; and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.devstack import Stack
from infra.simulator import FAULT_KINDS
from infra.supervisor import API, INTAKE, WORKERS

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
FLOWCHAIN = (sys.executable, "-m", "infra.cli")


def environment(**more: str) -> dict[str, str]:
    """The variables of this process without settings of FlowChain but those given."""
    bare = {name: value for name, value in os.environ.items() if not name.upper().startswith("FLOWCHAIN_")}
    return {**bare, **more}


def flowchain(home: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*FLOWCHAIN, *arguments], cwd=home, env=environment(**more), capture_output=True, text=True, check=False
    )


def eventually(true: Callable[[], bool], seconds: float = 90.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.2)
    return true()


def running_in(home: Path) -> list[psutil.Process]:
    """Every process that works in that folder."""
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        cwd, status = process.info["cwd"], process.info["status"]
        if cwd and status != psutil.STATUS_ZOMBIE and Path(cwd).is_relative_to(home):
            found.append(process)
    return found


def supervisors(home: Path) -> list[int]:
    return [process.pid for process in running_in(home) if "infra.background" in process.cmdline()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which `flowchain up` was called twice at the same time."""
    home = tmp_path_factory.mktemp("up").resolve()
    both = [
        subprocess.Popen([*FLOWCHAIN, "up", "--json"], cwd=home, env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    try:
        assert [process.returncode for process in both] == [0, 0]
        assert json.loads(said[0]) == json.loads(said[1])
        yield home
    finally:
        done = flowchain(home, "down", "--json")
    assert (done.returncode, done.stdout) == (0, '{"stopped":true}\n')
    assert running_in(home) == []
    assert flowchain(home, "status").returncode == 1


def test_two_starts_at_once_make_one_supervisor(home: Path) -> None:
    assert len(supervisors(home)) == 1
    workers = [process for process in running_in(home) if "worker" in process.cmdline()]
    assert len(workers) == len((*WORKERS, INTAKE, API))


def test_simulate_tells_the_truth_and_status_what_came_of_it(home: Path) -> None:
    faults = [argument for kind in FAULT_KINDS for argument in ("--fault", f"{kind}:trading-engine:1:2:acme")]
    done = flowchain(home, "simulate", "--rate", "40", "--seconds", "4", "--seed", "7", *faults, "--truth", "t.json", "--json")
    assert done.returncode == 0, done.stderr
    summary, truth = json.loads(done.stdout), json.loads((home / "t.json").read_text())
    assert [fault["kind"] for fault in truth["faults"]] == list(FAULT_KINDS)
    assert summary["events_produced"] == truth["events_produced"] == truth["events_delivered"] > 100
    assert summary["poison_records"] > 0
    assert [fault["executions"] for fault in summary["faults"]] == [len(fault["executions"]) for fault in truth["faults"]]
    rows: dict[str, dict[str, object]] = {}

    def refused_and_settled() -> bool:
        rows.update({row["worker"]: row for row in json.loads(flowchain(home, "status", "--json").stdout)["workers"]})
        return (rows["ingest"]["dead_letters"] or 0) >= summary["poison_records"]  # type: ignore[operator]

    assert eventually(refused_and_settled)
    assert set(rows) == {*WORKERS, INTAKE, API}
    for row in rows.values():
        assert {"lag", "watermark_unix_us", "last_settled_age_s", "windows_open", "dead_letters", "restarts", "ready", "pid"} <= set(row)
        assert row["ready"] is True and row["live"] is True and row["restarts"] == 0
    assert rows["ingest"]["watermark_unix_us"] and rows["analysis"]["watermark_unix_us"]
    assert rows["analysis"]["windows_open"] is not None and rows["ingest"]["windows_open"] is None


def test_status_has_a_row_for_every_worker(home: Path) -> None:
    done = flowchain(home, "status", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    words = set(done.stdout.split())
    assert {"worker", "ready", "lag", "watermark", "settled", "windows", "open", "dead", "letters", "restarts"} <= words
    assert {*WORKERS, INTAKE, API} <= words


def test_names_of_topics_are_whole(home: Path) -> None:
    names = [topic["name"] for topic in json.loads(flowchain(home, "topics", "list", "--json").stdout)]
    shown = flowchain(home, "topics", "list", COLUMNS="80").stdout
    assert all(f"{name}  " in shown for name in names)


def test_a_killed_supervisor_takes_its_workers_along_and_up_brings_them_back(home: Path) -> None:
    [supervisor] = supervisors(home)
    workers = psutil.Process(supervisor).children(recursive=True)
    os.kill(supervisor, signal.SIGKILL)
    assert eventually(lambda: not any(worker.is_running() for worker in workers))
    status = flowchain(home, "status", "--json")
    assert (status.returncode, json.loads(status.stdout)["workers"]) == (1, [])
    assert "no workers run here" in status.stderr
    assert flowchain(home, "up").returncode == 0
    assert flowchain(home, "status").returncode == 0


def test_engines_that_exist_are_used_instead(stack: Stack, tmp_path: Path) -> None:
    given = {
        "FLOWCHAIN_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "FLOWCHAIN_POSTGRES_DSN": stack.postgres_dsn.replace("postgres@", "postgres:hunter2@"),
        "FLOWCHAIN_CLICKHOUSE_DSN": stack.clickhouse_dsn,
        "FLOWCHAIN_TOPIC_PREFIX": "given.",
    }
    done = flowchain(tmp_path, "up", "--engines-only", "--json", **given)
    assert done.returncode == 0, done.stderr
    addresses = json.loads(done.stdout)
    assert addresses["kafka"] == stack.bootstrap_servers
    assert addresses["clickhouse"] == stack.clickhouse_dsn
    assert addresses["postgres"].endswith(f"postgres:********@127.0.0.1:{stack.engine('postgres').port}/postgres")
    assert running_in(tmp_path) == []
    assert flowchain(tmp_path, "down").returncode == 0
    assert "given.flowchain.alerts.v1" in flowchain(tmp_path, "topics", "list", **given).stdout


def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    script = (
        "import time; from pathlib import Path; from infra import demo\n"
        "with demo.running(Path('demo')): print('up', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(PYTHONPATH=str(ROOT)), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout and owner.stdout.readline() == "up\n"
        children = psutil.Process(owner.pid).children(recursive=True)
        assert sum("worker" in child.cmdline() for child in children) == len(WORKERS)
        owner.kill()
    assert eventually(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
