"""What the local stack is made of, as its callers see it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

EngineName = Literal["kafka", "postgres", "clickhouse"]
ALL: tuple[EngineName, ...] = get_args(EngineName)

HOST = "127.0.0.1"


class DevstackError(RuntimeError):
    """Something the user can act upon; its message is one sentence."""


@dataclass(frozen=True)
class Engine:
    """One engine of the stack; `pid` is None where the server was there already and is not ours to stop."""

    name: EngineName
    address: str
    host: str
    port: int
    http_port: int | None
    pid: int | None
    created: float | None
    log: Path
    healthy: bool = True

    @property
    def shown_address(self) -> str:
        """The address without the password that a given one may hold."""
        return re.sub(r"(//[^:/@]*):[^/]*@", r"\1:********@", self.address)


@dataclass(frozen=True)
class Stack:
    """The engines that were asked for, with the addresses clients need."""

    engines: tuple[Engine, ...]

    def engine(self, name: str) -> Engine:
        """The engine of that name."""
        for engine in self.engines:
            if engine.name == name:
                return engine
        raise DevstackError(f"The local stack has no {name}.")

    @property
    def healthy(self) -> bool:
        """Whether every engine answers."""
        return all(engine.healthy for engine in self.engines)

    @property
    def bootstrap_servers(self) -> str:
        """Kafka's address, as its clients take it."""
        return self.engine("kafka").address

    @property
    def postgres_dsn(self) -> str:
        """PostgreSQL's address, as psycopg takes it."""
        return self.engine("postgres").address

    @property
    def clickhouse_dsn(self) -> str:
        """ClickHouse's native address, as clickhouse-driver takes it."""
        return self.engine("clickhouse").address


def engine_names(names: Iterable[str]) -> tuple[EngineName, ...]:
    """The names, checked, in the order in which engines are listed."""
    wanted = set(names)
    if unknown := wanted - set(ALL):
        raise DevstackError(f"No such engine: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}.")
    return tuple(name for name in ALL if name in wanted)


def engine_name(name: str) -> EngineName:
    """The name, checked."""
    return engine_names([name])[0]
