"""Compiles the hot path of ingest to C, beside its sources: the same code, the same results, twice as fast.

    python -m infra.compiling            compile what is missing or older than its source
    python -m infra.compiling --clean    remove it: the sources run as they are

mypyc compiles typed Python; what it makes are extension modules that Python imports before the source of the same name. So a
source that was changed after them would be ignored: `stale` names such ones, and the tests refuse to begin with them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("booking", "conformance", "evidence", "histogram", "lifecycle", "observations", "rules", "runs", "steps", "structure", "timers", "tracked", "tracker", "units")
"""Of `streams`: what every event passes. In one group, so that they call each other without looking anything up."""
GROUP = "flowchain"
SUFFIX = "*.so"


def sources(root: Path = ROOT) -> list[Path]:
    """Return the files that are compiled."""
    return [root / "streams" / f"{name}.py" for name in MODULES]


def compiled(root: Path = ROOT) -> list[Path]:
    """Return the extension modules that exist, with the library that they share."""
    return [*(root / "streams").glob(SUFFIX), *root.glob(f"{GROUP}__mypyc{SUFFIX}")]


def stale(root: Path = ROOT) -> list[str]:
    """Return the names of sources that are newer than what was compiled of them; none when nothing is compiled."""
    made = [path.stat().st_mtime for path in compiled(root)]
    return [path.name for path in sources(root) if made and path.stat().st_mtime > min(made)]


def clean(root: Path = ROOT) -> None:
    """Remove what was compiled."""
    for path in compiled(root):
        path.unlink()


def compile_all(root: Path = ROOT) -> str:
    """Compile everything; return "" or, where that is not possible, why: the sources do as well, more slowly."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        return "there is no C compiler"
    clean(root)
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-c", _SETUP, scratch, GROUP, *(str(path.relative_to(root)) for path in sources(root))],
            cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
    return "" if not done.returncode else f"mypyc failed:\n{done.stdout[-4_000:]}{done.stderr[-4_000:]}"


_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import Distribution
scratch, group, *paths = sys.argv[1:]
made = mypycify(["--config-file=pyproject.toml", *paths], opt_level="3", debug_level="0", group_name=group, target_dir=scratch)
distribution = Distribution({"name": group, "ext_modules": made})
command = distribution.get_command_obj("build_ext")
command.inplace, command.build_temp, command.parallel = True, scratch, 2
distribution.run_command("build_ext")
"""
"""In a process of its own: setuptools and mypy keep state."""


def main(arguments: list[str]) -> int:
    """Do what is asked; return the exit code."""
    if arguments == ["--clean"]:
        clean()
        return 0
    if arguments:
        print("python -m infra.compiling [--clean]", file=sys.stderr)
        return 2
    if len(compiled()) == len(MODULES) + 1 and not stale():
        return 0
    why = compile_all()
    if why:
        print(f"the hot path of ingest is not compiled, and ingest half as fast: {why}", file=sys.stderr)
    return 1 if "mypyc failed" in why else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
