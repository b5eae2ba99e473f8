"""What the stack does with every kind of engine: ports, preparation, start, health."""

import socket
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from infra.devstack import clickhouse, downloads, kafka, postgres, processes
from infra.devstack.model import HOST, DevstackError, Engine, EngineName
from infra.devstack.processes import Command, Proc
from infra.devstack.state import Record, Records

PATIENCE_SECONDS = 5.0
START_SECONDS = 60.0
PORTS: dict[EngineName, tuple[str, ...]] = {
    "kafka": ("kafka", "kafka_controller"),
    "postgres": ("postgres",),
    "clickhouse": ("clickhouse", "clickhouse_http"),
}
USUAL_PORTS: dict[EngineName, int] = {"kafka": 9092, "postgres": 5432, "clickhouse": 9000}
ADDRESSES: dict[EngineName, str] = {
    "kafka": f"{HOST}:{{}}",
    "postgres": f"postgresql://postgres@{HOST}:{{}}/postgres",
    "clickhouse": f"clickhouse://default@{HOST}:{{}}/default",
}
HEALTHY: dict[EngineName, Callable[[Engine], bool]] = {
    "kafka": kafka.healthy,
    "postgres": postgres.healthy,
    "clickhouse": clickhouse.healthy,
}


@dataclass(frozen=True)
class Settings:
    """What engines are prepared from."""

    home: Path
    cache: Path
    kafka_heap: str
    ports: Mapping[str, int]


def prepare(name: EngineName, settings: Settings, owner: Proc | None) -> Record:
    """Makes the engine's folder and configuration where needed; it is not running yet."""
    log = settings.home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    port, http_port = settings.ports[name], settings.ports.get(f"{name}_http")
    address = ADDRESSES[name].format(port)
    engine = Engine(name, address, HOST, port, http_port, None, None, log)
    return Record(engine, _command(name, settings), owner)


def _command(name: EngineName, settings: Settings) -> Command:
    data, ports = settings.home / "data" / name, settings.ports
    if name == "kafka":
        jars = downloads.kafka_jars(settings.cache)
        return kafka.prepare(data, jars, ports["kafka"], ports["kafka_controller"], settings.kafka_heap)
    if name == "postgres":
        return postgres.prepare(data, ports["postgres"])
    library = downloads.chdb_library(settings.cache)
    return clickhouse.prepare(data, library, ports["clickhouse"], ports["clickhouse_http"])


def external(name: EngineName, address: str, home: Path) -> Record:
    """A server that exists already, so there is nothing to prepare or to stop."""
    host, port = place(name, address)
    record = Record(Engine(name, address, host, port, None, None, None, home / "logs" / f"{name}.log"))
    if not answers_within(record, PATIENCE_SECONDS):
        raise DevstackError(f"The given {name} cannot be reached at {host}:{port}.")
    return record


def place(name: EngineName, address: str) -> tuple[str, int]:
    """The (first) host of an address and its port."""
    first, *_ = address.split(",")
    try:
        parts = urlsplit(f"//{first}" if name == "kafka" else first)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None:  # the address may hold a password, so it is not quoted
        raise DevstackError(f"The address of {name} is not like {ADDRESSES[name].format(USUAL_PORTS[name])}.")
    return (HOST if host == "localhost" else host), port or USUAL_PORTS[name]


def spawn(record: Record) -> Record:
    """Runs a prepared or stopped engine."""
    assert record.command is not None
    if record.engine.name == "postgres":
        postgres.drop_lock_of_zombie(record.engine.log.parents[1] / "data" / "postgres")
    return record.at(processes.spawn(record.command, record.engine.log, record.owner))


def answers(record: Record) -> bool:
    """Whether the engine speaks its protocol; of a server that is not ours, whether it takes connections."""
    engine = record.engine
    if not record.alive or not _connects(engine):
        return False
    return record.command is None or HEALTHY[engine.name](engine)


def _connects(engine: Engine) -> bool:
    try:
        socket.create_connection((engine.host, engine.port), timeout=2).close()
    except OSError:
        return False
    return True


def answers_within(record: Record, seconds: float) -> bool:
    """Whether the engine answers before the time is over; one that has ended will not."""
    deadline = time.monotonic() + seconds
    while record.alive and time.monotonic() < deadline:
        if answers(record):
            return True
        time.sleep(0.05)
    return False


def wait(record: Record) -> None:
    """Returns when the engine answers."""
    if not answers_within(record, START_SECONDS):
        engine = record.engine
        how = "was started but does not answer" if record.alive else "ended at its start"
        raise DevstackError(f"{engine.name} {how}; {engine.log} ends with:\n{_tail(engine.log)}")


def _tail(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def choose_ports(given: Mapping[str, int], names: Collection[EngineName], known: Records) -> dict[str, int]:
    """The given ports where they are free, the ones had before where they still are, else free ones."""
    wanted = [port for name in names for port in PORTS[name]]
    before = _ports_had(known)
    ports: dict[str, int] = {}
    with ExitStack() as held:  # all at once, so that none is chosen twice
        for name in wanted:
            ports[name] = _hold(held, name, given.get(name), before.get(name))
    return ports


def _ports_had(known: Records) -> dict[str, int]:
    had: dict[str, int] = {}
    for name, record in known.items():
        had[name] = record.engine.port
        if record.engine.http_port is not None:
            had[f"{name}_http"] = record.engine.http_port
    return had


def _hold(held: ExitStack, name: str, given: int | None, before: int | None) -> int:
    if given is not None:
        if (port := _bind(held, given)) is None:
            raise DevstackError(f"Port {given}, wanted for {name}, is taken.")
        return port
    port = _bind(held, before) if before else None
    return port or _bind(held, 0) or 0


def _bind(held: ExitStack, port: int) -> int | None:
    server = held.enter_context(socket.socket())
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((HOST, port))
    except OSError:
        return None
    return int(server.getsockname()[1])
