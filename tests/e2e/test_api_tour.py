"""The tour of docs/api.md on the whole system: a tenant, a key, a flow, an execution through the SDK, read back over HTTP and WebSocket."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from connectors.database import EVERY_TENANT, Database
from connectors.http.app import create_app
from connectors.keys import create_key
from connectors.settings import Settings
from infra.devstack import Stack
from infra.local import addresses
from infra.preparing import prepare
from infra.supervisor import API, WORKERS, is_ready, workers

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tour(stack: Stack, tmp_path: Path) -> None:
    given: dict[str, Any] = addresses(stack) | {"postgres_schema": "tour", "clickhouse_database": "tour", "source_partitions": 2, "analysis_partitions": 2}
    settings = Settings(**given)
    prepare(settings)
    database = Database(settings)
    with database.session(EVERY_TENANT, "test") as connection:
        key, _ = create_key(connection, EVERY_TENANT, "tour", "admin", "test")
    database.close()
    tour = next(block for block in re.findall(r"^```python\n(.*?)^```$", (DOCS / "api.md").read_text(), re.M | re.S) if "flowchain.init" in block)
    (tmp_path / "tour.py").write_text(tour)
    with workers(tmp_path, settings.environment(*given), (*WORKERS, API)) as supervisor:
        [api] = supervisor.of(API)
        while not all(is_ready(child.port) for child in supervisor.children):
            assert supervisor.restarts < 3, [child.log.read_text()[-2000:] for child in supervisor.children]
        environment = {
            **os.environ, "FLOWCHAIN_API": f"http://127.0.0.1:{api.port}", "FLOWCHAIN_API_KEY": key, "FLOWCHAIN_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        }  # fmt: skip
        done = subprocess.run([sys.executable, str(tmp_path / "tour.py")], env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "'outcome': 'created', 'revision': 1" in done.stdout
    assert re.search(r"progress \{'current_steps': \['charge'\], 'completed_steps': \['take'\], 'progress_ratio': 0\.33", done.stdout), done.stdout
    assert re.search(r"ended    \S+ completed", done.stdout), done.stdout
    assert re.search(r"trace    \[\('take', 'completed', \d+\), \('charge', 'completed', \d+\), \('ship', 'completed', \d+\)\]", done.stdout), done.stdout
    assert "flowchart LR" in done.stdout
    assert re.search(r"metrics  \{.*: \(1, \d+", done.stdout), done.stdout
    assert "'executions': 1, 'completed': 1" in done.stdout, done.stdout


def test_the_api_lists_at_least_35_operations() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    assert sum(len(methods) for methods in paths.values()) >= 35
    flows = [f"{method} {path}" for path, methods in paths.items() for method in methods if path.startswith("/v1/flows")]
    assert len(flows) >= 15
