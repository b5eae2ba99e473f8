"""Public data sets, where present: `<name>.tar.xz` in the folder that FLOWCHAIN_TEST_DATA names."""

import os
import tarfile
from pathlib import Path

import pytest

DATA = Path(os.environ.get("FLOWCHAIN_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def unpacked(name: str, folder: Path) -> Path:
    """Unpack a set into a folder and return its directory; skips the test, saying what it leaves out, without it."""
    archive = DATA / f"{name}.tar.xz"
    if not archive.exists():
        pytest.skip(f"data set absent: {archive}; set FLOWCHAIN_TEST_DATA")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / name
