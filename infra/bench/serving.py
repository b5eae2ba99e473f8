"""An API of a measurement's own, and a key for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from connectors.database import EVERY_TENANT, Database
from connectors.keys import create_key
from connectors.settings import Settings
from infra.bench.processes import python, until
from infra.supervisor import free_port, is_ready


@contextmanager
def served(settings: Settings, home: Path, tenant: str) -> Iterator[tuple[int, str]]:
    """Serve the API from a process of its own; yields its port and a viewer's key of the tenant once it is ready."""
    database = Database(settings)
    with database.session(EVERY_TENANT, "bench") as connection:
        key, _ = create_key(connection, tenant, "bench", "viewer", "bench")
    database.close()
    port, log = free_port(), home / "api.log"
    environment = settings.environment("bootstrap_servers", "postgres_dsn", "clickhouse_dsn") | {"FLOWCHAIN_API_PORT": str(port), "FLOWCHAIN_LOG_LEVEL": "warning"}
    with python("infra.cli", "worker", "api", log=log, environment=environment):
        until(lambda: is_ready(port), f"the API was not ready; its log is {log}")
        yield port, key
