"""The registry on PostgreSQL. Every call is one transaction of a session that sees what its tenant may see.

`tenant` is whose flows are meant; None means the flows of every tenant, in a session that may see and change everything.
A tenant sees its own flows, and of the common ones those that it has none of the same name for.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg

from connectors.database import EVERY_TENANT, Database
from connectors.definitions import key_of
from connectors.registry.model import (
    CycleRefused,
    Dependency,
    Outcome,
    RegistryRefused,
    Revision,
    RevisionConflict,
    UnknownFlow,
)
from connectors.registry.observed import is_of, seen_of
from connectors.registry.rows import chain_rows, definition_row, dependency_rows, records
from schemas.definitions import ChainDefinition
from schemas.topics import DEFINITIONS
from streams.flows.canonical import canonical, content_id
from streams.flows.dependencies import Drift, drift
from streams.flows.diff import Change, diff
from streams.flows.versions import Version, in_force

Connection = psycopg.Connection[dict[str, Any]]
Key = tuple[str, str]
"""(tenant or "", flow)"""


class Registry:
    """Definitions of flows, their history and what depends on what. Thread-safe, as its database is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- changes --------------------------------------------------------------------------------------------------

    def apply(
        self, definitions: Sequence[ChainDefinition], tenant: str | None, author: str, *,
        expected: Mapping[str, int] | None = None, effective_us: int | None = None, dry_run: bool = False,
    ) -> list[Outcome]:  # fmt: skip
        """Store definitions, all or none; return what became of each. What is the same as before stays as it is.

        A definition without a tenant becomes the one of `tenant`. `expected`: {flow: the revision it must be at, 0 = it must
        not be there}. `effective_us` is when changes take effect (µs since 1970 UTC); where neither it nor the definition
        says so, at once, for running executions too. Publishes nothing: `relay_outbox` does.

        Raises RegistryRefused: RevisionConflict, CycleRefused, or for a flow that is not the tenant's, is given twice, or
        requires one that is not there.
        """
        flows = [canonical(_owned(definition, tenant)) for definition in definitions]
        _refuse_twice(flows)
        with self._session(tenant, author) as connection, connection.transaction(force_rollback=dry_run), _cycles_refused():
            _lock(connection, {flow.tenant or "" for flow in flows})
            outcomes, changed = [], []
            for flow in flows:
                newest = _newest(connection, flow.tenant or "", flow.name)
                _expect(flow.name, newest, expected)
                outcome, stamped = _outcome(flow, newest, effective_us)
                outcomes.append(outcome)
                if stamped is not None:
                    _store(connection, stamped, outcome, author)
                    changed.append((stamped, outcome.revision))
            _declare(connection, changed)
            return outcomes

    def delete(self, name: str, tenant: str | None, author: str, *, expected: int | None = None) -> Outcome:
        """Delete a flow, which is a revision too: nobody is held to it any more. Raises UnknownFlow, RevisionConflict, and
        RegistryRefused while others require it."""
        with self._session(tenant, author) as connection:
            _lock(connection, {tenant or ""})
            newest = _newest(connection, tenant or "", name)
            _expect(name, newest, None if expected is None else {name: expected})
            if newest is None or newest.deleted:
                raise UnknownFlow(f"there is no flow {name!r}{_whose(tenant)}")
            revision = newest.revision + 1
            key = (tenant or "", name)
            _publish(connection, key, Version(revision, 0, deleted=True), b"")
            connection.execute(_INSERT_DEFINITION, definition_row(newest.definition, revision, newest.id, author, deleted=True))
            connection.execute("DELETE FROM flow_dependencies WHERE provenance = 'declared' AND tenant = %s AND flow = %s", key)
            for other, _ in _lost(connection):
                raise RegistryRefused(f"flow {name!r} is required by {other!r}")
            return Outcome("deleted", tenant, name, newest.id, revision)

    def publish_anew(self) -> int:
        """Put all versions in force of everybody's flows into the outbox once more, for a topic that was lost; return how many."""
        with self._session(None) as connection:
            _lock(connection, {found["tenant"] for found in connection.execute(_KEPT)})
            rows = [row for found in connection.execute(_KEPT).fetchall() for row in _in_force_of(connection, found["tenant"], found["name"])]
            with connection.cursor() as cursor:
                cursor.executemany(_INSERT_OUTBOX, rows)
        return len(rows)

    # -- what is there --------------------------------------------------------------------------------------------

    def get(
        self, name: str, tenant: str | None, *, revision: int | None = None, id: str | None = None, at_us: int | None = None
    ) -> Revision:
        """Return a flow: its newest revision, a given one, the one with a content address, or the one that holds executions
        which began at a time. A deleted one only by its revision. Raises UnknownFlow."""
        with self._session(tenant) as connection:
            owner = _owner(connection, tenant or "", name)
            if at_us is not None:
                revision = _holding(connection, (owner, name), at_us)
            found = _newest(connection, owner, name, revision=revision, id=id)
        if found is None or (found.deleted and revision is None):
            given = revision is not None or id is not None or at_us is not None
            raise UnknownFlow(f"there is no {'such revision of ' if given else ''}flow {name!r}{_whose(tenant)}")
        return found

    def flows(self, tenant: str | None = None, *, after: tuple[str, str] = ("", ""), limit: int = 10_000) -> list[Revision]:
        """Return the newest revisions of the flows that are there, by name and tenant, at most `limit` of those after
        (name, tenant): a tenant's own and the common ones, or everybody's."""
        with self._session(tenant) as connection:
            return [Revision.of(row) for row in connection.execute(_CURRENT, [*after, limit])]

    def history(self, name: str, tenant: str | None) -> list[Revision]:
        """Return all revisions of a flow, the newest first: of the tenant's own, else of the common one; [] = none."""
        with self._session(tenant) as connection:
            owner = _owner(connection, tenant or "", name)
            return [Revision.of(row) for row in connection.execute(f"{_REVISIONS} ORDER BY revision DESC", (owner, name))]

    def diff(self, name: str, tenant: str | None, old: int, new: int) -> list[Change]:
        """Return what differs between two revisions. Raises UnknownFlow."""
        before, after = (self.get(name, tenant, revision=revision) for revision in (old, new))
        return diff(before.definition, after.definition)

    def dependencies(self, tenant: str | None = None, flow: str | None = None) -> list[Dependency]:
        """Return the dependencies, declared and observed, of one flow or of all that the tenant sees."""
        with self._session(tenant) as connection:
            return [Dependency(**{**row, "tenant": row["tenant"] or None}) for row in connection.execute(_DEPENDENCIES, {"flow": flow})]

    def drift(self, tenant: str | None = None, flow: str | None = None) -> list[tuple[Revision, Drift]]:
        """Return where what was observed differs from what definitions declare, each with the definition that it is about.

        A definition of every tenant is held against what was seen of all tenants that have none of their own.
        """
        flows = [found for found in self.flows(tenant) if flow in (None, found.name)]
        own = {(found.tenant, found.name) for found in flows}
        observed = [x for x in self.dependencies(tenant, flow) if x.provenance == "observed"]
        return [
            (found, difference)
            for found in flows
            for difference in drift(found.definition, seen_of(x for x in observed if is_of(x, found, own)))
        ]

    def _session(self, tenant: str | None, actor: str = "registry") -> Any:
        return self._database.session(tenant or EVERY_TENANT, actor)


# -- changes ----------------------------------------------------------------------------------------------------------


def _owned(definition: ChainDefinition, tenant: str | None) -> ChainDefinition:
    if tenant is None or definition.tenant == tenant:
        return definition
    if definition.tenant is not None:
        raise RegistryRefused(f"flow {definition.name!r} is one of {definition.tenant}, not of {tenant}")
    return definition.model_copy(update={"tenant": tenant})


def _whose(tenant: str | None) -> str:
    return f" of {tenant}" if tenant else ""


def _refuse_twice(flows: Iterable[ChainDefinition]) -> None:
    seen: set[tuple[str | None, str]] = set()
    for flow in flows:
        if (flow.tenant, flow.name) in seen:
            raise RegistryRefused(f"flow {flow.name!r}{_whose(flow.tenant)} is given twice")
        seen.add((flow.tenant, flow.name))
        if b"\\u0000" in flow.encode():
            raise RegistryRefused(f"flow {flow.name!r} holds a NUL character, which PostgreSQL does not store")


def _lock(connection: Connection, tenants: Iterable[str]) -> None:
    """Let changes of a tenant's flows wait for each other, until the transaction ends; in one order, so that nobody deadlocks."""
    for tenant in sorted(tenants):
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.registry/' || %s, 0))", [tenant])


def _newest(connection: Connection, tenant: str, name: str, *, revision: int | None = None, id: str | None = None) -> Revision | None:
    """Return the newest revision of a flow, or of those of a number or content address; of the latter no deletion."""
    query = f"{_REVISIONS} AND (%s::int IS NULL OR revision = %s) AND (%s::text IS NULL OR id = %s AND NOT deleted) ORDER BY revision DESC LIMIT 1"
    row = connection.execute(query, (tenant, name, revision, revision, id, id)).fetchone()
    return None if row is None else Revision.of(row)


def _owner(connection: Connection, tenant: str, name: str) -> str:
    """Return whose flow a tenant means by a name: its own, unless it has deleted it or has none and there is a common one."""
    rows = {row["tenant"]: row["deleted"] for row in connection.execute(_OWNERS, (name, tenant))}
    return tenant if rows.get(tenant) is False or "" not in rows else ""


def _versions(connection: Connection, key: Key) -> list[Version]:
    rows = connection.execute(_VERSIONS, key)
    return [Version(row["revision"], row["effective_from_us"], row["deleted"]) for row in rows]


def _holding(connection: Connection, key: Key, time_us: int) -> int:
    """Return the revision that holds executions which began at a time; 0 = none does."""
    held = [version for version in in_force(_versions(connection, key)) if version.effective_from_us <= time_us]
    return held[-1].revision if held else 0


def _expect(name: str, newest: Revision | None, expected: Mapping[str, int] | None) -> None:
    found = 0 if newest is None or newest.deleted else newest.revision
    if expected is not None and name in expected and expected[name] != found:
        raise RevisionConflict(name, expected[name], found)


def _outcome(flow: ChainDefinition, newest: Revision | None, effective_us: int | None) -> tuple[Outcome, ChainDefinition | None]:
    """Return what becomes of a definition, and how it is stored if it is."""
    there = newest is not None and not newest.deleted
    if newest is not None and there:
        told = effective_us is None and "effective_from_unix_us" in flow.model_fields_set
        same = flow if told else _effective(flow, newest.definition.effective_from_unix_us)
        if content_id(same) == newest.id:
            return Outcome("unchanged", flow.tenant, flow.name, newest.id, newest.revision), None
    stamped = flow if effective_us is None else _effective(flow, effective_us)
    revision = 1 if newest is None else newest.revision + 1
    return Outcome("changed" if there else "created", flow.tenant, flow.name, content_id(stamped), revision), stamped


def _effective(flow: ChainDefinition, time_us: int) -> ChainDefinition:
    return flow.model_copy(update={"effective_from_unix_us": time_us})


def _store(connection: Connection, flow: ChainDefinition, outcome: Outcome, author: str) -> None:
    new = Version(outcome.revision, flow.effective_from_unix_us)
    _publish(connection, (flow.tenant or "", flow.name), new, flow.encode())
    connection.execute(_INSERT_DEFINITION, definition_row(flow, outcome.revision, outcome.id, author))
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT_CHAIN, list(chain_rows(flow, outcome.revision)))


def _publish(connection: Connection, key: Key, new: Version, value: bytes) -> None:
    """Put into the outbox what a new revision says to the topic; call before the revision is stored."""
    rows = records(*key, _versions(connection, key), new, value)
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT_OUTBOX, rows)


def _in_force_of(connection: Connection, tenant: str, name: str) -> list[tuple[Any, ...]]:
    """Return the records that say which versions of a flow hold executions."""
    revisions = [Revision.of(row) for row in connection.execute(f"{_REVISIONS} ORDER BY revision", (tenant, name))]
    of = {x.revision: x.definition for x in revisions}
    held = in_force(Version(x.revision, x.definition.effective_from_unix_us, x.deleted) for x in revisions)
    return [(tenant, DEFINITIONS.name, key_of(tenant, name, x.effective_from_us), of[x.revision].encode()) for x in held]


def _declare(connection: Connection, changed: Sequence[tuple[ChainDefinition, int]]) -> None:
    """Replace what the changed flows declare; the old is gone before the new comes, so that only what will be forms a cycle."""
    with connection.cursor() as cursor:
        for flow, _ in changed:
            cursor.execute(
                "DELETE FROM flow_dependencies WHERE provenance = 'declared' AND tenant = %s AND flow = %s", (flow.tenant or "", flow.name)
            )
        for flow, revision in changed:
            cursor.executemany(_INSERT_DEPENDENCY, list(dependency_rows(flow, revision)))
    _refuse_lost(connection)


def _refuse_lost(connection: Connection) -> None:
    """Raise RegistryRefused where a flow requires one that is not there."""
    for source, target in _lost(connection):
        raise RegistryRefused(f"flow {source!r} requires {target!r}, which is not there")


def _lost(connection: Connection) -> Iterable[tuple[str, str]]:
    """Yield (flow, what it requires and is not there)."""
    return ((row["source"], row["target"]) for row in connection.execute(_LOST))


class _cycles_refused:
    """Turns the database's refusal of a cycle into CycleRefused."""

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Raise CycleRefused in place of the database's error."""
        if isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name == "flow_dependencies_acyclic":
            path = (error.diag.message_primary or "").partition(": ")[2]
            raise CycleRefused(path.split(" → ")) from error


# -- statements -------------------------------------------------------------------------------------------------------

_FIELDS = "tenant, name, revision, id, definition::text AS text, author, created_at, deleted"
_REVISIONS = f"SELECT {_FIELDS} FROM flow_definitions WHERE tenant = %s AND name = %s"
_CURRENT = f"SELECT {_FIELDS} FROM flow_definitions_current WHERE (name, tenant) > (%s, %s) ORDER BY name, tenant LIMIT %s"
_OWNERS = """
    SELECT DISTINCT ON (tenant) tenant, deleted FROM flow_definitions WHERE name = %s AND tenant IN (%s, '')
    ORDER BY tenant, revision DESC"""
_KEPT = "SELECT tenant, name FROM flow_definitions_current ORDER BY tenant, name"
_VERSIONS = """
    SELECT revision, deleted, coalesce((definition ->> 'effective_from_unix_us')::bigint, 0) AS effective_from_us
    FROM flow_definitions WHERE tenant = %s AND name = %s ORDER BY revision"""
_INSERT_DEFINITION = """
    INSERT INTO flow_definitions (tenant, name, revision, id, kind, version, description, definition, steps, effective_from, deleted, author)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
_INSERT_CHAIN = """
    INSERT INTO flow_chains (tenant, chain, revision, position, step, component, after_steps, expected_duration_us, deadline_us, optional,
                             repeated, input_type, output_type)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
_INSERT_DEPENDENCY = """
    INSERT INTO flow_dependencies (tenant, provenance, kind, flow, source, target, topic, revision)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"""
_INSERT_OUTBOX = "INSERT INTO registry_outbox (tenant, topic, key, value) VALUES (%s, %s, %s, %s)"
_DEPENDENCIES = """
    SELECT tenant, provenance, kind, flow, source, target, topic, events, failed, revision, first_seen_at, last_seen_at
    FROM flow_dependencies WHERE %(flow)s::text IS NULL OR flow = %(flow)s
    ORDER BY tenant, flow, provenance, kind, source, target, topic"""
_LOST = """
    SELECT d.source, d.target FROM flow_dependencies d
    WHERE d.kind = 'requires' AND NOT EXISTS (
        SELECT FROM flow_definitions_current c WHERE c.name = d.target AND c.tenant IN (d.tenant, ''))
    ORDER BY d.tenant, d.source, d.target"""
