"""The registry as commands and programs reach it: with the engines that are there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict

from connectors.database import Database, TenantRefused
from connectors.definitions import publish_definitions
from connectors.registry import Registry, relay_outbox
from connectors.settings import Settings
from schemas.definitions import ChainDefinition


class RegistryAway(Exception):
    """PostgreSQL cannot be used as the registry: why, in one sentence."""


@contextmanager
def registry(settings: Settings) -> Iterator[tuple[Registry, Database]]:
    """Give the registry of the configured PostgreSQL; raises RegistryAway where it does not answer or has no tables."""
    database = Database(settings)
    try:
        yield Registry(database), database
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction) as error:
        raise RegistryAway(f"PostgreSQL has no registry in the schema {settings.postgres_schema}: `flowchain migrate` makes it") from error
    except psycopg.OperationalError as error:
        parts = conninfo_to_dict(settings.postgres_dsn.get_secret_value())
        where = f"{parts.get('host', 'the local socket')}:{parts.get('port', 5432)}"
        raise RegistryAway(
            f"PostgreSQL does not answer at {where}: `flowchain up` starts a local one, FLOWCHAIN_POSTGRES_DSN names another"
        ) from error
    except TenantRefused as error:
        raise RegistryAway(str(error)) from error
    finally:
        database.close()


def put_in_force(settings: Settings, definitions: Sequence[ChainDefinition], author: str) -> None:
    """Register definitions and publish them. Raises RegistryAway, RegistryRefused, KafkaException."""
    with registry(settings) as (flows, database):
        flows.apply(definitions, None, author)
        relay_outbox(settings, database)


def put_in_force_anywhere(settings: Settings, definitions: Sequence[ChainDefinition], author: str) -> None:
    """Register definitions where there is a registry and the topics are its own; else put them on the topic alone.

    Topics under a prefix that is not the configured one are somebody's own: the registry would not publish anew there
    what it knows already.
    """
    if settings.topic_prefix == Settings().topic_prefix:
        try:
            put_in_force(settings, definitions, author)
        except RegistryAway:
            pass  # a cluster without the databases
        else:
            return
    publish_definitions(settings, definitions)
