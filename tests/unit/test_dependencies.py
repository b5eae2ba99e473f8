"""Every declared dependency is used: by an import, or for the reason that stands here."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("schemas", "streams", "connectors", "agents", "infra")
NOT_IMPORTED = {"aiokafka": "the client under Faust", "cramjam": "codecs that aiokafka loads by itself"}
DECLARED = [
    re.split(r"[\[<>=; ]", line)[0] for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
]
IMPORTED = {
    module
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    for module in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
}


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


@pytest.mark.parametrize("name", [name for name in DECLARED if name not in NOT_IMPORTED])
def test_dependency_is_imported(name: str) -> None:
    provided = {module for module, owners in packages_distributions().items() if name in map(normal, owners)}
    assert provided & IMPORTED
