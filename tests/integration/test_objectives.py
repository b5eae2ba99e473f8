"""Real analysis workers with objectives and tiers that come while they run; what they say outlives them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_ingest import MS, Pipeline, Raw, event, now_us, pipeline

from connectors.definitions import key_of, publish_definitions
from connectors.objectives import ObjectiveReader, objective_of, slo_book
from connectors.settings import Settings
from connectors.tenants import TenantReader, publish_tenants, read_tenants, tenant_book
from infra.devstack import Stack
from schemas import topics
from schemas.definitions import SLO, ChainDefinition, ChainStep
from schemas.slo import SloStatus
from schemas.tenants import LimitReached, Tenant, TierLimits
from streams.burn import SECOND, SloRule


def definition(chain: str, tenant: str | None = None, **more: Any) -> ChainDefinition:
    return ChainDefinition(name=chain, tenant=tenant, steps=(ChainStep(name="a", component="A", optional=True),), **more)


def executions(count: int, tenant: str, failed: int = 0, begin_us: int | None = None) -> list[Raw]:
    """So many executions that end one millisecond after the other."""
    begin_us, found = begin_us or now_us(), []
    for number in range(count):
        key = f"{tenant}-{begin_us}-{number}"
        failure = {"error_type": "Timeout"} if number < failed else {}
        kind = "execution.failed" if failure else "execution.completed"
        found.append(Raw(event(kind, begin_us + number * MS, key, "order", tenant=tenant, duration_us=MS, **failure), key.encode(), number % 2))
    return found


@pytest.fixture
def running(stack: Stack, tmp_path: Path) -> Iterator[Pipeline]:
    """Ingest and analysis, with windows of a second."""
    with pipeline(stack, tmp_path, window_s=1.0, lateness_s=0.2, settle_interval_s=0.2, tick_idle_s=0.1) as pipe:
        pipe.start("ingest")
        pipe.start("analysis")
        yield pipe


def limits(pipe: Pipeline) -> list[LimitReached]:
    return [LimitReached.decode(message.value() or b"") for message in pipe.read(topics.LIMITS)]


def statuses(pipe: Pipeline) -> dict[bytes, SloStatus]:
    return {message.key() or b"": SloStatus.decode(message.value() or b"") for message in pipe.read(topics.SLO)}


def test_objectives_and_limits_are_told_and_outlive_a_kill(running: Pipeline) -> None:
    publish_tenants(running.settings, [Tenant(tenant="acme", tier="free", limits=TierLimits(max_executions_per_day=50, max_chains=1))])
    publish_definitions(running.settings, [definition("order", slo=SLO(objective=0.9))])
    second_us = now_us() // SECOND * SECOND  # all in one window: of what comes in a second one, the next word is a minute away
    running.send(executions(45, "acme", 3, second_us) + executions(100, "globex", 50, second_us))
    running.eventually(lambda: len(limits(running)) >= 3)
    running.eventually(lambda: len(statuses(running)) == 2)
    found = statuses(running)
    assert (found[b'["acme","order"]'].state, found[b'["globex","order"]'].state) == ("ok", "exhausted")
    assert (found[b'["acme","order"]'].good, found[b'["acme","order"]'].bad, found[b'["acme","order"]'].objective) == (42, 3, 0.9)

    running.workers[1].kill()
    running.workers[1].wait(10)
    running.start("analysis")
    running.send(executions(10, "acme"))
    running.eventually(lambda: len(limits(running)) >= 4)
    said = [(record.limit, record.ratio, record.revision, record.used) for record in limits(running)]
    assert sorted(said)[:2] == [("max_chains", 0.8, 0, 1), ("max_chains", 1.0, 0, 1)]
    ahead, at = sorted(said)[2:]
    assert ahead[:3] == ("max_executions_per_day", 0.8, 0) and 40 <= ahead[3] <= 45
    assert at[:3] == ("max_executions_per_day", 1.0, 0) and 50 <= at[3] <= 55
    assert {record.tenant for record in limits(running)} == {"acme"}


def test_the_newest_record_of_each_tenant_and_definition_is_in_force(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path, default_tier="free", slo_objective=0.5) as pipe:
        tenants, slos = tenant_book(pipe.settings), slo_book(pipe.settings)
        publish_tenants(pipe.settings, [Tenant(tenant="acme", tier="pro"), Tenant(tenant="acme", tier="enterprise")])
        publish_definitions(pipe.settings, [definition("order", slo=SLO(objective=0.99)), definition("order", "acme", error_budget_ratio=0.25)])
        pipe.put(topics.TENANTS, {b"acme": b'{"tenant":"acme"}'})  # refused: it stays as it was
        readers = TenantReader(pipe.settings, tenants), ObjectiveReader(pipe.settings, slos)
        assert [tenants.find(name)[0] for name in ("acme", "globex")] == ["enterprise", "free"]
        assert tenants.find("globex")[1].max_executions_per_day == 1_000
        assert [slos.find(name, "order", 1) for name in ("acme", "globex")] == [SloRule(0.75), SloRule(0.99)]
        assert slos.find("globex", "other", 1) == SloRule(0.5)

        pipe.put(topics.TENANTS, {b"acme": b""})
        pipe.put(topics.DEFINITIONS, {key_of("acme", "order", 0): b""})
        publish_tenants(pipe.settings, [Tenant(tenant="globex", tier="pro")])

        def has_come() -> bool:
            for reader in readers:
                reader.poll()
            return "globex" in tenants and slos.find("acme", "order", 1) == SloRule(0.99)

        pipe.eventually(has_come)
        assert tenants.find("acme")[0] == "free"
        assert "globex" in read_tenants(pipe.settings) and "acme" not in read_tenants(pipe.settings)
        for reader in readers:
            reader.close()


def test_what_comes_behind_the_end_of_the_topic_is_read_as_well(stack: Stack, tmp_path: Path) -> None:
    """The client tells the end of a partition between records: one that is already behind it may come in the same batch."""
    with pipeline(stack, tmp_path) as pipe:
        tenants = tenant_book(pipe.settings)
        reader = TenantReader(pipe.settings, tenants)
        names = [f"t{number}" for number in range(3)]
        for name in names:
            publish_tenants(pipe.settings, [Tenant(tenant=name, tier="pro")])
            time.sleep(0.7)  # longer than a fetch waits: the record is there, and the end behind it

        def have_come() -> bool:
            reader.poll()
            return all(name in tenants for name in names)

        pipe.eventually(have_come)
        reader.close()


@pytest.mark.parametrize(
    ("declared", "rule"),
    [
        ({}, None),
        ({"error_budget_ratio": 0.0}, None),
        ({"error_budget_ratio": 0.01}, SloRule(0.99, 7)),
        ({"slo": SLO(objective=0.95, window_days=28, latency_ms=1.5), "error_budget_ratio": 0.01}, SloRule(0.95, 28, 1_500)),
    ],
)
def test_what_a_definition_declares(declared: dict[str, Any], rule: SloRule | None) -> None:
    assert objective_of(definition("order", **declared), Settings(slo_window_days=7).slo_window_days) == rule
