"""Fixtures that several folders of tests use: the local stack, started once."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from infra import compiling, devstack
from infra.devstack import Stack

# No test judges time. In CI the examples are the same at every run: what fails there can be repeated here.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_configure() -> None:
    """Refuse to judge code that is not what would run: a compiled module goes before its source."""
    if changed := compiling.stale():
        raise pytest.UsageError(f"changed after it was compiled: streams/{', '.join(changed)}; `make install` compiles it anew")


@pytest.fixture(scope="session")
def stack_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session's stack: what `devstack.stop`, `kill` and `start` want."""
    return tmp_path_factory.mktemp("stack").resolve()


@pytest.fixture(scope="session")
def stack(stack_home: Path) -> Iterator[Stack]:
    """Real Kafka, PostgreSQL and ClickHouse for the whole session; a test that needs them fails without them."""
    with devstack.running(stack_home) as running:
        yield running
