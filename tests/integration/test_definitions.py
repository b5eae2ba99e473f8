"""Definitions on their topic: the newest of each is in force, whoever asks."""

from pathlib import Path

from helpers_ingest import pipeline

from connectors.definitions import DefinitionReader, publish_definitions, read_definitions
from infra.devstack import Stack
from schemas.definitions import ChainDefinition, ChainStep
from streams.rules import RuleBook


def definition(version: str, tenant: str | None = None) -> ChainDefinition:
    return ChainDefinition(name="order", version=version, tenant=tenant, steps=(ChainStep(name="charge", component="payments"),))


def test_newest_definition_of_each_chain_and_tenant_is_in_force(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path) as pipe:
        publish_definitions(pipe.settings, [definition("1"), definition("2"), definition("7", "acme")])
        assert [(x.tenant, x.version) for x in read_definitions(pipe.settings)] == [(None, "2"), ("acme", "7")]
        rules = RuleBook()
        DefinitionReader(pipe.settings, rules)
        found = [rules.find(tenant, "order") for tenant in ("acme", "globex")]
        assert [rule.version for rule in found if rule] == ["7", "2"]
