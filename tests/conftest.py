"""Fixtures that several folders of tests use: the local stack, started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import devstack
from infra.devstack import Stack


@pytest.fixture(scope="session")
def stack_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session's stack: what `devstack.stop`, `kill` and `start` want."""
    return tmp_path_factory.mktemp("stack").resolve()


@pytest.fixture(scope="session")
def stack(stack_home: Path) -> Iterator[Stack]:
    """Real Kafka, PostgreSQL and ClickHouse for the whole session; a test that needs them fails without them."""
    with devstack.running(stack_home) as running:
        yield running
