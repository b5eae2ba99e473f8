"""What `flowchain.init` is told: by its arguments, else by FLOWCHAIN_* of the environment, else by default."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from flowchain.counts import logger

PREFIX = "FLOWCHAIN_"
KAFKA_PREFIX = "FLOWCHAIN_KAFKA_"


class Settings(NamedTuple):
    """Each is an argument of `init`, and in capitals an environment variable FLOWCHAIN_…"""

    service: str = "unknown"
    tenant: str = "default"
    channel: str = "kafka"
    bootstrap_servers: str = "localhost:9092"
    topic: str = "flowchain.events.v1"
    topic_prefix: str = ""
    url: str = "http://localhost:8080"
    api_key: str = ""
    file: str = "flowchain-events.jsonl"
    queue_size: int = 100_000
    queue_bytes: int = 64_000_000
    sample_rate: float = 1.0
    slow_ms: float = 500.0
    metrics: str = ""
    disabled: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> "Settings":
        """Return the settings; a value of the environment that cannot be read is told in the log and passed over."""
        found = {}
        for field, default in cls._field_defaults.items():
            if given.get(field) is not None:
                found[field] = given[field]
            elif text := environment.get(PREFIX + field.upper()):
                found[field] = _read(field, text, default)
        return cls(**found)


def kafka_settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return further librdkafka settings: FLOWCHAIN_KAFKA_SECURITY_PROTOCOL is `security.protocol`."""
    return {
        key.removeprefix(KAFKA_PREFIX).lower().replace("_", "."): value
        for key, value in environment.items()
        if key.startswith(KAFKA_PREFIX)
    }


def _read(field: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return type(default)(text)
    except (ValueError, KeyError):
        logger.warning("flowchain: %s%s is none of its kind: %r; %r is taken", PREFIX, field.upper(), text, default)
        return default
