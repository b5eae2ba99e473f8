"""The local stack beside what is configured: whatever server is configured explicitly is used instead of a local one."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from connectors.settings import Settings
from infra import devstack
from infra.devstack import EngineName, Stack

SETTING: dict[EngineName, str] = {
    "kafka": "bootstrap_servers",
    "postgres": "postgres_dsn",
    "clickhouse": "clickhouse_dsn",
}
"""Which setting has an engine's address."""


def configured() -> dict[str, str]:
    """Return {engine: address} of the servers that the environment or the .env file name."""
    explicit, settings = Settings.explicit(), Settings()
    return {engine: _plain(getattr(settings, name)) for engine, name in SETTING.items() if name in explicit}


def addresses(stack: Stack) -> dict[str, str]:
    """Return {setting: address} of a stack's engines."""
    return {SETTING[engine.name]: engine.address for engine in stack.engines}


def load_settings(home: Path, **given: Any) -> Settings:
    """Return the settings; where addresses are not configured, those of the local stack of `home` if it runs."""
    settings = Settings(**given)
    stack = devstack.status(home) if home.exists() else None
    missing = {
        name: address
        for name, address in (addresses(stack) if stack else {}).items()
        if name not in settings.model_fields_set
    }
    return Settings(**{**missing, **given}) if missing else settings


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value
