"""The registry on real engines: revisions, locks, cycles, the outbox after crashes and beside itself, a worker that takes a change."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from helpers_ingest import Pipeline, completed, now_us, pipeline
from helpers_ingest import Raw as Record

from connectors import producers as producers_module
from connectors.database import Database
from connectors.definitions import DefinitionReader, read_definitions
from connectors.migrate import migrate_postgres
from connectors.registry import CycleRefused, Registry, RegistryRefused, RevisionConflict, UnknownFlow, relay_outbox
from connectors.registry import outbox as outbox_module
from connectors.settings import Settings
from infra.devstack import Stack
from schemas.definitions import ChainDefinition
from streams.rules import RuleBook


class World:
    """A registry with a schema and topics of its own."""

    def __init__(self, settings: Settings, pipe: Pipeline) -> None:
        self.settings, self.pipe = settings, pipe
        self.database = Database(settings)
        self.registry = Registry(self.database)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask as the owner of the tables."""
        with psycopg.connect(self.settings.postgres_dsn.get_secret_value(), autocommit=True) as connection:
            connection.execute(f"SET search_path TO {self.settings.postgres_schema}")
            return connection.execute(statement).fetchall()  # type: ignore[arg-type]

    def relay(self) -> int:
        return relay_outbox(self.settings, self.database)

    def published(self) -> list[tuple[str | None, str, str, int]]:
        return [(x.tenant, x.name, x.version, x.effective_from_unix_us) for x in read_definitions(self.settings)]


@pytest.fixture(scope="module")
def whole(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    schema = f"r{uuid.uuid4().hex[:12]}"
    with pipeline(stack, tmp_path_factory.mktemp("registry"), postgres_dsn=stack.postgres_dsn, postgres_schema=schema) as pipe:
        migrate_postgres(stack.postgres_dsn, schema)
        found = World(pipe.settings, pipe)
        yield found
        found.database.close()


@pytest.fixture
def world(whole: World) -> World:
    """The same registry, emptied: what stands on the topic stays."""
    with psycopg.connect(whole.settings.postgres_dsn.get_secret_value(), autocommit=True) as connection:
        connection.execute(f"SET search_path TO {whole.settings.postgres_schema}")  # type: ignore[arg-type]
        connection.execute("TRUNCATE flow_definitions, flow_chains, flow_dependencies, registry_outbox")
    return whole


def flow(name: str, *steps: str, **more: Any) -> ChainDefinition:
    listed = [{"name": step, "component": step.upper()} for step in steps or ("a", "b")]
    return ChainDefinition.model_validate({"name": name, "steps": listed, **more}, strict=False)


def test_every_change_is_a_revision_and_the_same_again_is_none(world: World) -> None:
    registry = world.registry
    [first] = registry.apply([flow("order")], None, "ann")
    assert (first.status, first.revision, first.id[:7]) == ("created", 1, "sha256:")
    [same] = registry.apply([flow("order", edges=[{"source": "a", "target": "b"}])], None, "ann")
    assert (same.status, same.revision, same.id) == ("unchanged", 1, first.id)
    [second] = registry.apply([flow("order", version="2")], None, "bob")
    assert (second.status, second.revision) == ("changed", 2)
    history = registry.history("order", None)
    assert [(x.revision, x.author, x.definition.version, x.deleted) for x in history] == [(2, "bob", "2", False), (1, "ann", "1", False)]
    assert registry.get("order", None).revision == 2
    assert registry.get("order", None, id=first.id).revision == 1
    assert [str(change) for change in registry.diff("order", None, 1, 2)] == ["version added: 2"]
    gone = registry.delete("order", None, "ann")
    assert (gone.status, gone.revision) == ("deleted", 3)
    with pytest.raises(UnknownFlow, match="'order'"):
        registry.get("order", None)
    assert registry.flows() == []
    [again] = registry.apply([flow("order")], None, "ann")
    assert (again.status, again.revision, again.id) == ("created", 4, first.id)
    assert [row[0] for row in world.query("SELECT actor FROM audit_log WHERE object_type = 'flow' ORDER BY id DESC LIMIT 4")] == ["ann", "ann", "bob", "ann"]


def test_steps_and_dependencies_are_those_of_the_newest_revision(world: World) -> None:
    world.registry.apply([flow("base"), flow("order", "a", "b", "c", requires=["base"])], None, "ann")
    world.registry.apply([flow("order", "a", "c")], None, "ann")
    assert [(x.kind, x.source, x.target, x.revision) for x in world.registry.dependencies(None, "order")] == [("step", "A", "C", 2)]
    rows = world.query("SELECT revision, step, after_steps FROM flow_chains WHERE chain = 'order' ORDER BY revision, position")
    assert rows == [(1, "a", []), (1, "b", ["a"]), (1, "c", ["b"]), (2, "a", []), (2, "c", ["a"])]


def test_only_the_revision_that_was_seen_is_replaced(world: World) -> None:
    registry = world.registry
    registry.apply([flow("order")], None, "ann", expected={"order": 0})
    with pytest.raises(RevisionConflict, match="at revision 1, not at 0"):
        registry.apply([flow("order", version="2")], None, "bob", expected={"order": 0})
    with pytest.raises(RevisionConflict):
        registry.delete("order", None, "bob", expected=2)
    assert registry.get("order", None).revision == 1


def test_of_many_at_once_exactly_one_replaces_the_revision_that_all_saw(world: World) -> None:
    world.registry.apply([flow("order")], None, "ann")

    def change(number: int) -> str:
        try:
            return world.registry.apply([flow("order", version=f"v{number}")], None, "all", expected={"order": 1})[0].status
        except RevisionConflict:
            return "conflict"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(change, range(8)))
    assert sorted(outcomes) == ["changed", *["conflict"] * 7]


def test_cycle_of_required_flows_is_refused_with_its_path_and_nothing_is_stored(world: World) -> None:
    world.registry.apply([flow("a"), flow("b", requires=["a"]), flow("c", requires=["b"])], None, "ann")
    with pytest.raises(CycleRefused, match="a → c → b → a") as caught:
        world.registry.apply([flow("new"), flow("a", requires=["c"])], None, "ann")
    assert caught.value.path == ("a", "c", "b", "a")
    assert [x.name for x in world.registry.flows()] == ["a", "b", "c"]
    # What forms no cycle once all of it is there may be turned round in one go.
    outcomes = world.registry.apply([flow("a", requires=["c"]), flow("b"), flow("c", requires=["b"])], None, "ann")
    assert [outcome.status for outcome in outcomes] == ["changed", "changed", "unchanged"]


def test_required_flow_must_be_there_and_stays(world: World) -> None:
    with pytest.raises(RegistryRefused, match="'b' requires 'a', which is not there"):
        world.registry.apply([flow("b", requires=["a"])], None, "ann")
    world.registry.apply([flow("b", requires=["a"]), flow("a")], None, "ann")
    with pytest.raises(RegistryRefused, match="'a' is required by 'b'"):
        world.registry.delete("a", None, "ann")
    world.registry.delete("b", None, "ann")
    world.registry.delete("a", None, "ann")


def test_dry_run_says_what_would_become_of_it_and_stores_nothing(world: World) -> None:
    [outcome] = world.registry.apply([flow("order")], None, "ann", dry_run=True)
    assert outcome.status == "created"
    assert world.registry.flows() == []
    assert world.query("SELECT count(*) FROM registry_outbox") == [(0,)]


def test_tenants_have_their_own_flows_beside_the_common_ones(world: World) -> None:
    registry = world.registry
    registry.apply([flow("order"), flow("ship")], None, "admin")
    registry.apply([flow("order", version="acme's")], "acme", "ann")
    assert [(x.tenant, x.name) for x in registry.flows("acme")] == [(None, "order"), ("acme", "order"), (None, "ship")]
    assert [(x.tenant, x.name) for x in registry.flows("globex")] == [(None, "order"), (None, "ship")]
    assert registry.get("order", "acme").definition.version == "acme's"
    assert registry.get("order", "globex").tenant is None
    with pytest.raises(UnknownFlow):
        registry.delete("ship", "acme", "ann")
    with pytest.raises(RegistryRefused, match="one of globex, not of acme"):
        registry.apply([flow("order", tenant="globex")], "acme", "ann")
    registry.delete("order", "acme", "ann")
    assert registry.get("order", "acme").tenant is None


def test_tenants_whose_names_could_be_taken_for_each_other_publish_apart(world: World) -> None:
    world.registry.apply([flow("b/c")], "a", "ann")
    world.registry.apply([flow("c")], "a/b", "ann")
    world.relay()
    world.registry.delete("b/c", "a", "ann")
    world.relay()
    assert ("a/b", "c", "1", 0) in world.published()
    assert ("a", "b/c", "1", 0) not in world.published()


def test_a_change_takes_effect_for_executions_that_begin_from_then_on(world: World) -> None:
    registry = world.registry
    registry.apply([flow("order")], None, "ann")
    [second] = registry.apply([flow("order", version="2")], None, "ann", effective_us=2_000)
    [same] = registry.apply([flow("order", version="2")], None, "ann", effective_us=3_000)
    assert (same.status, same.revision) == ("unchanged", second.revision)
    assert [registry.get("order", None, at_us=time).definition.version for time in (0, 1_999, 2_000)] == ["1", "1", "2"]
    world.relay()
    rules = RuleBook()
    reader = DefinitionReader(world.settings, rules)
    assert [rule.version for time in (1_999, 2_000) if (rule := rules.find("t", "order", time))] == ["1", "2"]
    registry.apply([flow("order", version="3", effective_from_unix_us=1_000)], None, "ann")
    world.relay()
    world.pipe.eventually(lambda: reader.poll() is None and getattr(rules.find("t", "order", 5_000), "version", "") == "3")
    assert [x for x in world.published() if x[1] == "order"] == [(None, "order", "1", 0), (None, "order", "3", 1_000)]
    registry.delete("order", None, "ann")
    world.relay()
    world.pipe.eventually(lambda: reader.poll() is None and rules.find("t", "order", 5_000) is None)
    assert [x for x in world.published() if x[1] == "order"] == []


# -- the outbox -------------------------------------------------------------------------------------------------------


def test_relay_publishes_once_and_in_order(world: World) -> None:
    world.registry.apply([flow("one"), flow("two")], None, "ann")
    world.registry.apply([flow("one", version="2")], None, "ann")
    assert world.relay() == 3
    assert world.relay() == 0
    assert [x for x in world.published() if x[1] in ("one", "two")] == [(None, "two", "1", 0), (None, "one", "2", 0)]


def test_what_a_relay_had_published_when_it_died_is_published_again_and_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.registry.apply([flow("crash"), flow("crash-too")], None, "ann")
    world.registry.apply([flow("crash", version="2")], None, "ann")
    publish = outbox_module._publish

    def die(*given: Any) -> None:
        publish(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(outbox_module, "_publish", die)
    with pytest.raises(KeyboardInterrupt):
        world.relay()
    monkeypatch.undo()
    assert world.query("SELECT count(*) FROM registry_outbox WHERE published_at IS NULL") == [(3,)]
    before = [x for x in world.published() if x[1].startswith("crash")]
    assert world.relay() == 3
    assert [x for x in world.published() if x[1].startswith("crash")] == before == [(None, "crash-too", "1", 0), (None, "crash", "2", 0)]


def test_relays_at_once_publish_everything_once(world: World) -> None:
    for number in range(5):
        world.registry.apply([flow(f"at-once-{number}")], None, "ann")
    start = threading.Barrier(4)

    def run(_: int) -> int:
        start.wait()
        return world.relay()

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(run, range(4)))
    assert sum(counts) == 5
    assert len([x for x in world.published() if x[1].startswith("at-once-")]) == 5


def test_nothing_of_a_relay_that_was_overtaken_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay stands still before its commit, its database connection is lost, another one goes on: the first one is fenced."""
    world.registry.apply([flow("fenced")], None, "ann")
    producers: list[Any] = []

    class Stopped(Exception):
        pass

    class Halting(producers_module.Producer):  # type: ignore[misc]
        def commit_transaction(self, *given: Any) -> None:
            producers.append(self)
            raise Stopped

    monkeypatch.setattr(producers_module, "Producer", Halting)
    with pytest.raises(Stopped):
        world.relay()
    monkeypatch.undo()
    world.registry.apply([flow("fenced", version="2")], None, "ann")
    assert world.relay() == 2
    with pytest.raises(outbox_module.KafkaException):
        super(Halting, producers[0]).commit_transaction(10)
    assert [x for x in world.published() if x[1] == "fenced"] == [(None, "fenced", "2", 0)]


# -- drift and workers ------------------------------------------------------------------------------------------------


def test_drift_tells_what_is_seen_and_what_is_declared_apart(world: World) -> None:
    world.registry.apply([flow("order", "a", "b", "c")], None, "ann")
    world.query(
        "INSERT INTO flow_dependencies (tenant, provenance, kind, flow, source, target, events, first_seen_at, last_seen_at) VALUES"
        " ('acme', 'observed', 'flow', 'order', 'A', 'B', 3, '2026-01-01', '2026-01-02'),"
        " ('acme', 'observed', 'flow', 'order', 'A', 'Z', 2, '2026-01-01', '2026-01-02'),"
        " ('globex', 'observed', 'flow', 'order', 'A', 'Z', 1, '2025-12-31', '2026-01-01') RETURNING 1"
    )
    found = [(d.what, d.source, d.target, d.events) for _, d in world.registry.drift(None, "order")]
    assert found == [("undeclared", "A", "Z", 3), ("never seen", "B", "C", 0)]
    [undeclared, _] = [d for _, d in world.registry.drift("acme", "order")]
    assert (undeclared.events, undeclared.last_unix_us - undeclared.first_unix_us) == (2, 86_400_000_000)
    assert {x.provenance for x in world.registry.dependencies("acme", "order")} == {"declared", "observed"}


def test_running_worker_takes_a_change_without_restart(world: World) -> None:
    world.registry.apply([flow("c", "a", "b")], None, "ann")
    world.relay()
    pipe = world.pipe
    pipe.start("ingest")
    start = now_us()
    pipe.send([Record(completed("e1", start, "a"), b"e1"), Record(completed("e1", start + 1, "b"), b"e1")])
    pipe.eventually(lambda: {x.execution for x in pipe.executions()} == {"e1"})
    world.registry.apply([flow("c", "a", version="2")], None, "ann")
    world.relay()

    def is_over_after_one_step() -> bool:
        """By the old definition it would wait for the other one."""
        time_us = now_us()
        pipe.send([Record(completed(f"g{time_us}", time_us, "a"), b"g")])
        return any(x.execution.startswith("g") and x.status == "completed" for x in pipe.executions())

    pipe.eventually(is_over_after_one_step)
