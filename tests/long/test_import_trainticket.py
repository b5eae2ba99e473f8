"""A minute of a real system's traces and logs, with times years ago, through the whole pipeline."""

from pathlib import Path

import pytest
from helpers_import import DATA, complete, run_import

from infra.devstack import Stack


@pytest.mark.timeout(300)
def test_a_normal_minute_of_the_trainticket_set(stack: Stack, tmp_path: Path) -> None:
    archive = DATA / "nezha-trainticket.tar.xz"
    if not archive.exists():
        pytest.skip(f"the public data set {archive.name} is not there: an import of real traces was left out")
    arguments = ("--day", "2023-01-30", "--inputs", "traces,logs", "--prefix", "e2e-trainticket.")
    document = complete(run_import(stack, tmp_path, str(archive), *arguments))
    assert document["logs"]
