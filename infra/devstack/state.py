"""The state file: which engines a folder's stack has, and by which processes they run."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from infra.devstack.model import DevstackError, Engine, EngineName, engine_name
from infra.devstack.processes import Command, Proc


@dataclass(frozen=True)
class Record:
    """An engine as the state file keeps it: `command` is None for a server that is not ours."""

    engine: Engine
    command: Command | None = None
    owner: Proc | None = None

    @property
    def proc(self) -> Proc | None:
        """Its process, dead or alive."""
        pid, created = self.engine.pid, self.engine.created
        return None if pid is None or created is None else Proc(pid, created)

    @property
    def alive(self) -> bool:
        """Whether its process runs; a server that is not ours is taken to."""
        return self.proc is None or self.proc.alive

    def at(self, proc: Proc) -> "Record":
        """The same engine, run by that process."""
        return replace(self, engine=replace(self.engine, pid=proc.pid, created=proc.created))


Records = dict[EngineName, Record]


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Only one process at a time starts or stops the engines of a folder."""
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "stack.lock"):
        yield


def load(home: Path) -> Records:
    """What the state file says; nothing where there is none."""
    try:
        raw = json.loads((home / "stack.json").read_text())
        return {engine_name(name): _record(record) for name, record in raw.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise DevstackError(f"{home / 'stack.json'} cannot be read ({error!r}): delete it.") from error


def save(home: Path, records: Records) -> None:
    """Replaces the state file in one step; for its user only: given addresses may hold passwords."""
    fresh = home / "stack.json.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({name: asdict(record) for name, record in records.items()}, file, indent=2, default=str)
    fresh.replace(home / "stack.json")


def forget(home: Path) -> None:
    """There is no stack any more."""
    (home / "stack.json").unlink(missing_ok=True)


def _record(raw: dict[str, Any]) -> Record:
    return Record(
        engine=Engine(**(raw["engine"] | {"log": Path(raw["engine"]["log"])})),
        command=_command(raw["command"]) if raw["command"] else None,
        owner=Proc(**raw["owner"]) if raw["owner"] else None,
    )


def _command(raw: dict[str, Any]) -> Command:
    return Command(**(raw | {"argv": tuple(raw["argv"]), "prefix": tuple(raw["prefix"])}))
