"""How far an execution is, asked of a real worker over HTTP and with the command."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from helpers_ingest import MS, ROOT, Raw, completed, event, now_us, pipeline

from connectors.definitions import publish_definitions
from infra.background import STATE
from infra.devstack import Stack
from infra.devstack.processes import Proc
from infra.supervisor import free_port
from schemas.definitions import ChainDefinition, ChainStep

pytestmark = pytest.mark.timeout(120)
DECLARED = ChainDefinition(
    name="declared",
    steps=(
        ChainStep(name="a", component="A", expected_duration_ms=25),
        ChainStep(name="b", component="B", expected_duration_ms=60_000),
        ChainStep(name="c", component="C", expected_duration_ms=15_000),
    ),
)


def show(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where the state file of a supervisor says which worker runs."""
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", "executions", "show", *arguments], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "1000"}, check=False,
    )  # fmt: skip


def test_progress_of_open_and_finished_executions(stack: Stack, tmp_path: Path) -> None:
    port = free_port()
    with pipeline(stack, tmp_path, source_partitions=2, http_port=port, tick_idle_s=60) as pipe:
        publish_definitions(pipe.settings, [DECLARED])
        at_us, odd = now_us() - 20_000 * MS, "e/1 ü?"
        pipe.send(
            [
                Raw(event("step.completed", at_us, odd, "declared", step="a", component="A", duration_us=5 * MS)),
                Raw(event("step.started", at_us + 5 * MS, odd, "declared", step="b", component="B")),
                *(Raw(completed(f"seen {n}", at_us - 9 * MS), partition=1) for n in range(3)),
                *(Raw(event("execution.completed", at_us, f"seen {n}", duration_us=40_000 * MS), partition=1) for n in range(3)),
                Raw(event("execution.started", at_us, "observed"), partition=1),
                Raw(event("step.started", at_us + 10_000 * MS, "moves the clock", "other", step="a"), partition=1),
            ]
        )
        pipe.start()
        pipe.settles_at(10)

        def get(path: str) -> httpx.Response:
            return httpx.get(f"http://127.0.0.1:{port}/executions/{path}", timeout=30)

        declared = get("default/e%2F1%20%C3%BC%3F")
        assert (declared.status_code, declared.headers["content-type"]) == (200, "application/json")
        found = declared.json()
        assert (found["execution"], found["status"], found["current_steps"], found["done_steps"]) == (odd, "open", ["b"], ["a"])
        assert (found["remaining_us"], found["basis"]) == (75_000 * MS, "declared durations")
        assert found["ratio"] == 25 / 75_025

        observed = get("default/observed").json()
        assert (observed["basis"], observed["ratio"], observed["remaining_us"]) == ("duration of earlier executions", 0.25, 30_000 * MS)
        assert (get("default/seen%200").json()["status"], get("default/seen%200").json()["ratio"]) == ("completed", 1)

        nothing = get("acme/observed")
        assert (nothing.status_code, nothing.headers["content-type"]) == (404, "application/problem+json")
        assert nothing.json()["status"] == 404
        assert get("acme").status_code == 404

        with ThreadPoolExecutor(8) as threads:  # while the loop changes what is asked for
            asked = [threads.submit(get, "default/observed") for _ in range(100)]
            pipe.send([Raw(event("step.started", at_us + 10_000 * MS, f"more {n}", "other", step="a"), partition=n % 2) for n in range(20_000)])
            assert {answer.result().status_code for answer in asked} == {200}

        home = tmp_path / ".flowchain"
        home.mkdir()
        running = [("ingest", free_port()), ("analysis", 1), ("ingest", port)]
        workers = [{"name": name, "port": at, "log": "", "pid": None, "restarts": 0} for name, at in running]
        supervisor = asdict(Proc.of(os.getpid()))
        (home / STATE).write_text(json.dumps({"supervisor": supervisor, "workers": workers}))
        shown = show(tmp_path, "default", odd, "--json")
        assert (shown.returncode, json.loads(shown.stdout)["done_steps"]) == (0, ["a"])
        assert "declared durations" in show(tmp_path, "default", odd).stdout
        (home / STATE).write_text(json.dumps({"supervisor": supervisor, "workers": workers[2:]}))
        unknown = show(tmp_path, "default", "unknown")
        assert (unknown.returncode, "neither open nor has it ended lately" in unknown.stderr) == (1, True)
