"""What `pip install ./sdk` puts into an empty environment, and that it works there."""

import json
import shutil
import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USE = """
import sys
import flowchain
assert "confluent_kafka" not in sys.modules and "asyncio" not in sys.modules and "http.client" not in sys.modules
flowchain.init("shop", channel="file", file=sys.argv[1])
with flowchain.execution("order"), flowchain.step("validate"):
    pass
assert flowchain.ChainRunner({"name": "x", "steps": [{"name": "a"}]}, {"a": str}).run(1).output == "1"
assert flowchain.shutdown(5.0)
flowchain.init("shop", "127.0.0.1:9")
with flowchain.execution("order"):
    pass
flowchain.shutdown(0.5)
assert flowchain.init("shop", channel="websocket") is None
"""


def test_the_sdk_brings_two_dependencies(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    source = tmp_path / "sdk"  # a copy: nothing is built into the tree
    shutil.copytree(ROOT / "sdk", source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", str(source)], check=True, timeout=240)
    listed = subprocess.run([*pip, "list", "--format", "json"], check=True, capture_output=True, timeout=60)
    installed = {package["name"] for package in json.loads(listed.stdout)} - {"pip", "setuptools"}
    assert installed == {"flowchain", "confluent-kafka", "orjson"}
    path = tmp_path / "events.jsonl"
    subprocess.run([str(python), "-I", "-c", USE, str(path)], check=True, timeout=60)
    assert len(path.read_bytes().splitlines()) == 8
