"""What lies at a path, and its items: folders, single files, and archives as the data sets come."""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

from connectors.spans import otlp_json, trainticket
from connectors.spans.model import Audit, Item, Options, SpanImportError

Format = Literal["otlp_json", "trainticket"]
_ARCHIVES = (".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the path itself, or for an archive a temporary folder with its contents."""
    if not (path.is_file() and path.name.endswith(_ARCHIVES)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="flowchain-import-") as folder:
        try:
            _extract(path, Path(folder))
        except (tarfile.TarError, EOFError, OSError) as error:
            raise SpanImportError(f"{path}: cannot be unpacked ({error}).") from error
        yield Path(folder)


def _extract(archive: Path, folder: Path) -> None:
    """Write the plain files of an archive; links, devices and paths that lead outside are left."""
    with tarfile.open(archive) as members:
        for member in members:
            name = PurePosixPath(member.name)
            if not member.isfile() or name.is_absolute() or ".." in name.parts:
                continue
            content = members.extractfile(member)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file)  # type: ignore[arg-type]  # a plain file always has contents


def detect_format(path: Path) -> Format:
    """Return which layout lies at an unpacked path; raises SpanImportError when it is neither."""
    if not path.exists():
        raise SpanImportError(f"{path}: no such file or folder.")
    if path.is_dir() and trainticket.day_folders(path):
        return "trainticket"
    for file in otlp_json.files(path):
        if _looks_like_otlp(file):
            return "otlp_json"
    raise SpanImportError(
        f"{path}: neither OTLP/JSON traces (objects with resourceSpans) "
        "nor days of CSV files (<day>/trace/HH_MM.csv)."
    )


def _looks_like_otlp(file: Path) -> bool:
    """Return whether resourceSpans stands near the beginning; what is wrong later the reader will say."""
    with file.open("rb") as content:
        return b'"resourceSpans"' in content.read(1 << 16)


def read_items(path: Path, options: Options, audit: Audit) -> Iterator[Item]:
    """Yield the items at an unpacked path as they stand there."""
    reader = trainticket.read if detect_format(path) == "trainticket" else otlp_json.read
    return reader(path, options, audit)
