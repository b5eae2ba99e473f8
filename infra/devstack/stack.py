"""Starting, looking at and stopping the engines of one folder."""

import os
import signal
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.devstack import engines as kinds
from infra.devstack import processes, state
from infra.devstack.downloads import default_cache, fetch
from infra.devstack.model import ALL, DevstackError, Engine, EngineName, Stack, engine_name, engine_names
from infra.devstack.processes import Proc
from infra.devstack.state import Record, Records


def up(
    home: Path, *, detached: bool, ports: Mapping[str, int] | None = None, engines: Collection[str] = ALL,
    console: Console | None = None, external: Mapping[str, str] | None = None, cache: Path | None = None,
    kafka_heap: str = "512m",
) -> Stack:  # fmt: skip
    """Starts what does not run yet and returns when every engine answers.

    `detached` engines outlive this process; the others end with it, even when it is killed.
    `external` has the addresses of servers to use instead: "host:port" for Kafka, DSNs for the others.
    `ports` may fix "kafka", "kafka_controller", "postgres", "clickhouse" and "clickhouse_http".
    """
    home, cache = home.resolve(), cache or default_cache()
    names = engine_names(engines)
    given = _given(home, external or {})
    fetch(cache, console, [name for name in names if name not in given])
    with state.locked(home):
        records = state.load(home)
        missing = [name for name in names if name not in given and not _usable(records.get(name))]
        _end([records[name] for name in (*given, *missing) if name in records])  # replaced, or does not answer
        records |= given
        settings = kinds.Settings(home, cache, kafka_heap, kinds.choose_ports(ports or {}, missing, records))
        owner = None if detached else Proc.of(os.getpid())
        _start_missing(home, records, missing, settings, owner)
    if detached:
        _say_what_stays_owned([records[name] for name in names], console or Console(stderr=True))
    return Stack(tuple(records[name].engine for name in names))


def _given(home: Path, external: Mapping[str, str]) -> Records:
    """The servers to use instead; the address of an engine of ours is not another's."""
    known = state.load(home)
    ours = {name: (record.engine.host, record.engine.port) for name, record in known.items() if record.command}
    others = {name: external[name] for name in engine_names(external)}
    return {
        name: kinds.external(name, address, home)
        for name, address in others.items()
        if kinds.place(name, address) != ours.get(name)
    }


def _say_what_stays_owned(records: Collection[Record], console: Console) -> None:
    for record in records:
        if record.owner:
            console.print(f"{record.engine.name} belongs to process {record.owner.pid} and ends with it.")


def status(home: Path) -> Stack | None:
    """The stack of that folder with the health of each engine, or None where there is none."""
    records = state.load(home.resolve())
    if not records:
        return None
    with ThreadPoolExecutor() as pool:
        health = list(pool.map(kinds.answers, records.values()))
    return Stack(tuple(replace(r.engine, healthy=ok) for r, ok in zip(records.values(), health, strict=True)))


def down(home: Path) -> None:
    """Stops every engine that is ours and forgets the stack; the data stays."""
    home = home.resolve()
    with state.locked(home):
        _end(state.load(home).values())
        state.forget(home)


def stop(home: Path, engine: str) -> None:
    """Stops one engine in good order; `start` brings it back."""
    with state.locked(home.resolve()):
        _end([_ours(home.resolve(), engine)])


def kill(home: Path, engine: str) -> None:
    """Kills one engine (SIGKILL), as a crash would; `start` brings it back."""
    with state.locked(home.resolve()):
        _end([_ours(home.resolve(), engine)], by=signal.SIGKILL)


def start(home: Path, engine: str) -> Engine:
    """Runs one stopped or killed engine again: same ports, same data, same owner."""
    home = home.resolve()
    with state.locked(home):
        record, records = _ours(home, engine), state.load(home)
        if not record.alive:
            if record.owner and not record.owner.alive:
                raise DevstackError(f"The owner of this {engine} has ended: start the stack again.")
            record = records[record.engine.name] = kinds.spawn(record)
            state.save(home, records)
        kinds.wait(record)
    return record.engine


@contextmanager
def running(home: Path, **options: Any) -> Iterator[Stack]:
    """A stack for as long as the block runs (options as for `up`); what ran before is left running."""
    home = home.resolve()
    before = {name for name, record in state.load(home).items() if record.alive}
    stack = up(home, detached=False, **options)
    try:
        yield stack
    finally:
        _leave(home, before)


def _leave(home: Path, before: Collection[EngineName]) -> None:
    with state.locked(home):
        records = state.load(home)
        kept = {name: record for name, record in records.items() if name in before}
        _end([record for name, record in records.items() if name not in kept])
        state.save(home, kept) if kept else state.forget(home)


def _usable(record: Record | None) -> bool:
    """Whether it is ours and answers; one that runs is given the time to."""
    if record is None or record.command is None:
        return False
    return kinds.answers_within(record, kinds.PATIENCE_SECONDS)


def _ours(home: Path, name: str) -> Record:
    record = state.load(home).get(engine_name(name))
    if record is None or record.command is None:
        raise DevstackError(f"There is no {name} of ours in {home}.")
    return record


def _end(records: Collection[Record], by: int | None = None) -> None:
    ours = [(record.proc, record.command) for record in records if record.proc and record.command]
    processes.end([(proc, command.stop_signal if by is None else by) for proc, command in ours])


def _start_missing(
    home: Path, records: Records, missing: list[EngineName], settings: kinds.Settings, owner: Proc | None
) -> None:
    started: list[Record] = []
    with ThreadPoolExecutor() as pool:
        try:
            for record in _spawn_prepared(pool, missing, settings, owner):
                started.append(record)
                records[record.engine.name] = record
                state.save(home, records)  # at once: should we be killed now, the next start knows
            list(pool.map(kinds.wait, started))
        except BaseException:  # Ctrl-C too: no half a stack
            _end(started)
            raise
    state.save(home, records)


def _spawn_prepared(
    pool: ThreadPoolExecutor, names: list[EngineName], settings: kinds.Settings, owner: Proc | None
) -> Iterator[Record]:
    """Prepares in parallel, but spawns from this thread: see processes._kernel_can_tie."""
    futures: list[Future[Record]] = [pool.submit(kinds.prepare, name, settings, owner) for name in names]
    for future in as_completed(futures):
        yield kinds.spawn(future.result())
