"""Definitions on their topic: the newest for each effective time is in force, whoever asks."""

import time
from pathlib import Path

from helpers_ingest import pipeline

from connectors.definitions import DefinitionReader, key_of, publish_definitions, read_definitions
from infra.devstack import Stack
from schemas import topics
from schemas.definitions import ChainDefinition, ChainStep
from streams.rules import RuleBook


def definition(version: str, tenant: str | None = None, effective_us: int = 0) -> ChainDefinition:
    steps = (ChainStep(name="charge", component="payments"),)
    return ChainDefinition(name="order", version=version, tenant=tenant, steps=steps, effective_from_unix_us=effective_us)


def test_newest_definition_of_each_chain_and_tenant_is_in_force(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path) as pipe:
        given = [definition("1"), definition("2"), definition("7", "acme"), definition("3", effective_us=9)]
        publish_definitions(pipe.settings, given)
        assert [(x.tenant, x.version) for x in read_definitions(pipe.settings)] == [(None, "2"), ("acme", "7"), (None, "3")]
        rules = RuleBook()
        reader = DefinitionReader(pipe.settings, rules)
        found = [rules.find(tenant, "order", at) for tenant, at in (("acme", 9), ("globex", 8), ("globex", 9))]
        assert [rule.version for rule in found if rule] == ["7", "2", "3"]
        pipe.put(topics.DEFINITIONS, {b"acme/order": None, key_of("", "order", 9): None})  # type: ignore[dict-item]
        pipe.eventually(lambda: reader.poll() is None and getattr(rules.find("globex", "order", 9), "version", "") == "2")
        assert [(x.tenant, x.version) for x in read_definitions(pipe.settings)] == [(None, "2"), ("acme", "7")]


def test_definition_that_comes_after_the_end_was_met_is_taken(stack: Stack, tmp_path: Path) -> None:
    """The end of the partition waits to be read when the next definition arrives, so one batch holds both."""
    with pipeline(stack, tmp_path) as pipe:
        rules = RuleBook()
        reader = DefinitionReader(pipe.settings, rules)

        def holds(version: str) -> bool:
            reader.poll()
            return getattr(rules.find("t", "order", 0), "version", "") == version

        publish_definitions(pipe.settings, [definition("1")])
        pipe.eventually(lambda: holds("1"))
        time.sleep(1.5)  # the client fetches by itself: the end of the partition,
        publish_definitions(pipe.settings, [definition("2")])
        time.sleep(1.5)  # and behind it the next definition
        pipe.eventually(lambda: holds("2"))
