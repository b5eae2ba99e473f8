"""`flowchain-instrument`: names of services, what it leaves alone, and what a process finds when it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowchain.integrations.command import service_name

SDK = str(Path(__file__).parents[2] / "sdk")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("uvicorn shop.orders:app --port 80", "orders"),
        ("uvicorn --host 0.0.0.0 --log-level warning orders:create_app", "orders"),
        ("gunicorn -w 4 -b 0.0.0.0:80 shop.main:app", "shop"),
        ("python -m uvicorn payments:app", "payments"),
        ("python /srv/run_billing.py --port 1", "run_billing"),
        ("faust -A shop.stock.app worker -l info", "stock"),
        ("python -m shop.mailer", "mailer"),
        ("orders-server --port 1", "orders-server"),
        ("uvicorn main:app", "checkout"),
    ],
)
def test_a_service_is_named_after_what_it_runs(
    command: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert service_name(command.split()) == expected


def run(code: str, *arguments: str, path: str = "") -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, SDK]))}
    command = [sys.executable, "-m", "flowchain.integrations.command", *arguments, sys.executable, "-c", code]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_no_framework_is_imported_for_it() -> None:
    libraries = "fastapi starlette httpx requests aiohttp grpc flask django aiokafka kafka faust quixstreams opentelemetry"
    code = f"import sys; print([name for name in {libraries.split()} if name in sys.modules], 'flowchain' in sys.modules)"
    assert run(code) == "[] True"


def test_a_process_and_those_it_starts_report_as_they_are_told() -> None:
    code = (
        "import subprocess, sys, flowchain; t = flowchain._tracker; print(t.service, t.tenant, flush=True);"
        "len(sys.argv) > 1 or subprocess.run([sys.executable, '-c', sys.orig_argv[2], 'child'])"
    )
    assert run(code, "--service", "shop", "--tenant", "acme").split("\n") == ["shop acme", "shop acme"]


def test_the_host_s_own_sitecustomize_runs_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('its own')\n")
    code = "import sitecustomize, flowchain; print(sitecustomize.__file__, flowchain._publisher is not None)"
    of_the_command, *of_the_host = run(code, path=str(tmp_path)).split("\n")
    assert of_the_command == "its own" and of_the_host == ["its own", f"{tmp_path}/sitecustomize.py True"]


def test_what_is_wrapped_works_as_before_and_its_module_looks_as_before() -> None:
    code = "import httpx; print(httpx.__spec__.loader.__class__.__name__, httpx.Client.send.__name__, httpx.Client.send._flowchain)"
    assert run(code) == "SourceFileLoader send True"


def test_a_broken_start_is_told_and_the_host_runs(tmp_path: Path) -> None:
    (tmp_path / "flowchain").mkdir()
    (tmp_path / "flowchain" / "__init__.py").write_text("raise RuntimeError('broken')\n")
    site = str(Path(SDK) / "flowchain" / "integrations" / "site")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([site, str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", "print('host')"], env=environment, check=False, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("host\n", 0)
    assert "not instrumented" in done.stderr and "broken" in done.stderr


def test_a_command_that_is_not_there_is_said() -> None:
    command = [sys.executable, "-m", "flowchain.integrations.command"]
    environment = {**os.environ, "PYTHONPATH": SDK}
    done = subprocess.run([*command, "no-such-command"], env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "flowchain-instrument: no-such-command: not found\n")
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 2
