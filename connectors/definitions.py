"""Definitions on their compacted topic: published by the registry, followed by workers while they run."""

from collections.abc import Iterable

import msgspec
import orjson
import structlog
from pydantic import ValidationError

from connectors.follow import Follower
from connectors.log import read_topic
from connectors.producers import publish
from connectors.settings import Settings
from connectors.telemetry import LIMIT_REACHED
from schemas.definitions import ChainDefinition
from schemas.topics import DEFINITIONS
from streams.rules import RuleBook

log = structlog.get_logger("definitions")


def key_of(tenant: str, name: str, effective_from_us: int) -> bytes:
    """Return the key of a version of a flow: of versions for the same time the newest counts. tenant "" = every tenant's."""
    return orjson.dumps([tenant, name, effective_from_us])


def publish_definitions(settings: Settings, definitions: Iterable[ChainDefinition]) -> int:
    """Publish definitions past the registry; return how many. Raises KafkaException when the brokers do not take one."""
    versions = ((key_of(x.tenant or "", x.name, x.effective_from_unix_us), x.encode()) for x in definitions)
    return publish(settings, DEFINITIONS, versions)


def read_definitions(settings: Settings) -> list[ChainDefinition]:
    """Return all versions that the topic holds, in the order in which they were published; what is not valid is passed over,
    as the workers do."""
    newest: dict[bytes, ChainDefinition] = {}
    for message in read_topic(settings, settings.topic(DEFINITIONS.name)):
        key, value = message.key() or b"", message.value()
        newest.pop(key, None)
        try:
            if value:
                newest[key] = ChainDefinition.decode(value)
        except ValidationError as error:
            log.error("definition refused", offset=message.offset(), reason=str(error.errors()[0]["msg"]))
    return list(newest.values())


def version_of(key: bytes) -> tuple[str, str, int] | None:
    """Return the (tenant, flow, effective from in µs) of a key; None if it is none of ours."""
    try:
        return _KEY.decode(key)
    except msgspec.DecodeError:
        log.warning("not a key of ours", key=key[:200].decode(errors="replace"))
        return None


class DefinitionReader(Follower):
    """Puts every definition on the topic in force, and takes back what is deleted: all at the start, then each as it comes."""

    def __init__(self, settings: Settings, rules: RuleBook) -> None:
        super().__init__(settings, DEFINITIONS, lambda key, value: put_in_force(rules, key, value))


def put_in_force(rules: RuleBook, key: bytes, value: bytes | None) -> None:
    """Put what a record of the topic says in force, or take back what was deleted; raises ValidationError."""
    if value is None:
        if (version := version_of(key)) is not None:
            rules.remove(*version)
        return
    refused = rules.refused
    rules.add(ChainDefinition.decode(value))
    LIMIT_REACHED.labels("definitions_over_limit").inc(rules.refused - refused)


_KEY = msgspec.json.Decoder(tuple[str, str, int])
