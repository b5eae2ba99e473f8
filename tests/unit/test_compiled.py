"""The compiled hot path says, byte for byte, what its sources say, and a source that was changed after it is noticed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra import compiling
from infra.simulator import generate

SAY = """
import sys
from hashlib import blake2b
import msgspec
from infra.simulator import definitions
from streams import runs
from streams.events import decode_chunk
from streams.limits import Limits
from streams.rules import RuleBook
from streams.tracker import Tracker
lines = open(sys.argv[1], "rb").read().split(b"\\n")
tracker = Tracker("events", 0, RuleBook(definitions()[:3]), Limits(max_open=60, max_series=40, linger_us=100_000))
said, encode, at = blake2b(), msgspec.json.encode, 0
for start in range(0, len(lines), 997):
    events = decode_chunk(lines[start : start + 997]).events
    broker_us = [getattr(event, "time_unix_us", 0) for event in events]
    said.update(encode(tracker.apply(events, list(range(at, at + len(events))), broker_us)))
    at += len(events)
    out = tracker.take()
    said.update(encode([out.slices, [x.execution.record() for x in out.finished.values()], out.new_series, out.new_edges, sorted(out.counts.items())]))
    for tracked in out.finished.values():
        tracked.rest(encode(tracked.execution.record()))
    said.update(b"".join(found.encode() for found in out.violations))
    said.update(encode(tracker.executions))
print(runs.__file__.rpartition(".")[2], at, len(out.violations) > 0, said.hexdigest())
"""


def say(log: Path, *paths: Path) -> list[str]:
    """What the tracker made of a log in a process of its own that looks for modules in `paths` first."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SAY, str(log)], env=environment, cwd=log.parent, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout.split()


def test_compiled_and_as_they_are_the_sources_say_the_same(tmp_path: Path) -> None:
    assert compiling.compiled(), "not compiled: `make install` does it"
    values = [value for _, value in generate(30_000, seed=7)]
    for number in range(0, len(values), 50):  # what breaks promises: failures, long waits, second deliveries, poison
        values[number] = values[number].replace(b'"type":"step.completed"', b'"type":"step.failed","error_type":"Boom"')
        values[number - 7] = values[number - 20]
        values[number - 9] = b"{}"
        values[number - 11] = values[number - 11].replace(b'"duration_us":', b'"duration_us":9')
    log = tmp_path / "events"
    log.write_bytes(b"\n".join(values))
    shutil.copytree(compiling.ROOT / "streams", tmp_path / "pure" / "streams", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    kind, *as_they_are = say(log, tmp_path / "pure", compiling.ROOT, compiling.ROOT / "sdk")
    assert kind == "py"
    assert as_they_are[:2] == ["30000", "True"]
    assert say(log, compiling.ROOT, compiling.ROOT / "sdk") == ["so", *as_they_are]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "streams").mkdir()
    for path in compiling.sources(tmp_path):
        path.touch()
        os.utime(path, (100, 100))
    return tmp_path


def test_sources_that_were_changed_after_they_were_compiled_are_named(tree: Path) -> None:
    assert compiling.stale(tree) == []
    for name in ("runs.so", "tracker.so"):
        (tree / "streams" / name).touch()
        os.utime(tree / "streams" / name, (200, 200))
    assert compiling.stale(tree) == []
    os.utime(tree / "streams" / "units.py", (300, 300))
    assert compiling.stale(tree) == ["units.py"]
    compiling.clean(tree)
    assert compiling.stale(tree) == []
    assert compiling.sources(tree)[0].exists()


def test_without_a_compiler_the_sources_are_left_as_they_are(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(tree / "no-such-compiler"))
    assert compiling.compile_all(tree) == "there is no C compiler"


def test_code_that_does_not_compile_says_so(tree: Path) -> None:
    shutil.copy(compiling.ROOT / "pyproject.toml", tree)
    (tree / "streams" / "units.py").write_text("def broken(number: int) -> str:\n    return number\n")
    why = compiling.compile_all(tree)
    assert why.startswith("mypyc failed:")
    assert "units.py:2" in why
