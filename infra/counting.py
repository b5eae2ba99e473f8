"""What has arrived at the ends of the pipeline, counted: for comparing it with what was put in."""

import orjson
import psycopg

from connectors.clickhouse import client
from connectors.log import read_topic
from connectors.settings import Settings
from schemas.topics import HEALTH, TRACES

CLICKHOUSE_TABLES = ("chain_health_metrics", "chain_execution_traces", "chain_dependency_events", "chain_anomalies")
POSTGRES_TABLES = ("flow_executions", "flow_metrics", "flow_dependencies", "flow_incidents", "flow_alerts")


def counted_events(settings: Settings) -> int:
    """Return the sum of the events over the newest revision of every health window."""
    newest: dict[str, tuple[int, int]] = {}
    for message in read_topic(settings, settings.topic(HEALTH.name)):
        window = orjson.loads(message.value() or b"")
        newest[window["id"]] = max(newest.get(window["id"], (-1, 0)), (window["revision"], window["events"]))
    return sum(events for _, events in newest.values())


def clickhouse_rows(settings: Settings) -> dict[str, int]:
    """Return the rows per table."""
    with client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database) as server:
        return {table: server.execute(f"SELECT count() FROM {table} FINAL")[0][0] for table in CLICKHOUSE_TABLES}


def clickhouse_counts(settings: Settings) -> tuple[int, int]:
    """Return (executions, steps) of the settings' prefix that have a row in ClickHouse."""
    query = (
        "SELECT uniqExactIf((tenant, execution), record_kind = 'execution'), "
        "uniqExactIf((tenant, execution, span), record_kind = 'step') "
        "FROM chain_execution_traces WHERE source_topic = %(topic)s"
    )
    with client(settings.clickhouse_dsn.get_secret_value(), settings.clickhouse_database) as server:
        executions, steps = server.execute(query, {"topic": settings.topic(TRACES.name)})[0]
        return executions, steps


def postgres_rows(settings: Settings) -> dict[str, int]:
    """Return the rows per table."""
    with psycopg.connect(settings.postgres_dsn.get_secret_value()) as connection:
        schema = settings.postgres_schema
        return {
            table: connection.execute(
                psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(schema, table))
            ).fetchone()[0]  # type: ignore[index]
            for table in POSTGRES_TABLES
        }
