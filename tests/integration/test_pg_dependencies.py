"""Required flows have no cycle, whoever declares them and when."""

import threading
from collections.abc import Iterator

import psycopg
import pytest
from helpers_postgres import Space, space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors

from infra.devstack import Stack

pytestmark = pytest.mark.timeout(120)
Edge = tuple[str, str, str]
"""(tenant, flow, required flow)"""


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Iterator[Space]:
    with space(stack) as found:
        yield found


@pytest.fixture
def pg(shared: Space) -> Space:
    shared.ask("DELETE FROM flow_dependencies RETURNING 1")
    return shared


INSERT = "INSERT INTO flow_dependencies (tenant, provenance, kind, flow, source, target) VALUES (%s, 'declared', 'requires', %s, %s, %s)"


def require(connection: psycopg.Connection, tenant: str, source: str, *targets: str) -> None:
    for target in targets:
        connection.execute(INSERT, [tenant, source, source, target])


@pytest.mark.parametrize(("edges", "path"), [
    ([("t", "a", "a")], "a → a"),
    ([("t", "a", "b"), ("t", "b", "a")], "b → a → b"),
    ([("t", "a", "b"), ("t", "b", "c"), ("t", "c", "d"), ("t", "d", "a")], "d → a → b → c → d"),
    ([("", "a", "b"), ("t", "b", "a")], "b → a → b"),
    ([("t", "a", "b"), ("", "b", "a")], "b → a → b"),
    ([("t", "x", "a"), ("t", "a", "b"), ("t", "a", "c"), ("t", "b", "d"), ("t", "c", "d"), ("t", "d", "a")], "d → a → b → d"),
])  # fmt: skip
def test_cycle_is_refused_and_its_path_named(pg: Space, edges: list[Edge], path: str) -> None:
    with pg.owner() as connection:
        for tenant, source, target in edges[:-1]:
            require(connection, tenant, source, target)
        with pytest.raises(errors.CheckViolation, match=f": {path}\n") as caught:
            require(connection, *edges[-1])
    assert caught.value.diag.constraint_name == "flow_dependencies_acyclic"
    assert pg.ask("SELECT count(*) FROM flow_dependencies") == [(len(edges) - 1,)]


def test_what_different_tenants_declare_makes_no_cycle(pg: Space) -> None:
    with pg.owner() as connection:
        require(connection, "t", "a", "b")
        require(connection, "u", "b", "a")
        with pytest.raises(errors.CheckViolation):
            require(connection, "", "b", "a")
        require(connection, "", "c", "a", "b")


def test_one_statement_with_several_edges_is_judged_as_a_whole(pg: Space) -> None:
    values = ", ".join(f"('t', 'declared', 'requires', '{a}', '{a}', '{b}')" for a, b in ("ab", "bc", "ca"))
    with pytest.raises(errors.CheckViolation, match="c → a → b → c"):
        pg.ask(f"INSERT INTO flow_dependencies (tenant, provenance, kind, flow, source, target) VALUES {values} RETURNING 1")
    assert pg.ask("SELECT count(*) FROM flow_dependencies") == [(0,)]


def test_edge_may_be_turned_round_and_not_into_a_cycle(pg: Space) -> None:
    with pg.owner() as connection:
        require(connection, "t", "a", "b", "c")
        connection.execute("UPDATE flow_dependencies SET source = 'b', target = 'a' WHERE target = 'b'")
        with pytest.raises(errors.CheckViolation):
            connection.execute("UPDATE flow_dependencies SET target = 'b' WHERE target = 'c'")


def test_many_ways_through_the_graph_are_not_walked_one_by_one(pg: Space) -> None:
    """Forty diamonds in a row: 2^40 paths."""
    with pg.owner() as connection:
        for number in range(40):
            require(connection, "t", f"n{number}", f"l{number}", f"r{number}")
            require(connection, "t", f"l{number}", f"n{number + 1}")
            require(connection, "t", f"r{number}", f"n{number + 1}")
        with pytest.raises(errors.CheckViolation, match="n40 → n0 → l0 → n1 → "):
            require(connection, "t", "n40", "n0")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_transaction_that_would_not_see_the_others_is_refused(pg: Space, level: str) -> None:
    with pg.owner() as connection:
        connection.execute(f"SET default_transaction_isolation = '{level}'".encode())
        with pytest.raises(errors.ActiveSqlTransaction, match="READ COMMITTED"):
            require(connection, "t", "a", "b")


@pytest.mark.parametrize("length", [2, 3, 6])
def test_sessions_that_would_close_a_cycle_together_do_not_all_succeed(pg: Space, length: int) -> None:
    """Each has written and not committed when the next one begins, round the circle; again and again."""
    nodes = [f"n{number}" for number in range(length)]
    for _ in range(5):
        pg.ask("DELETE FROM flow_dependencies RETURNING 1")
        ready, outcome = threading.Barrier(length), list[str]()

        def declare(number: int, ready: threading.Barrier = ready, outcome: list[str] = outcome) -> None:
            ready.wait()
            try:
                with pg.database.session("t", "x") as session:
                    require(session, "t", nodes[number], nodes[(number + 1) % length])
                outcome.append("declared")
            except errors.CheckViolation as error:
                outcome.append(str(error.diag.message_primary).partition(": ")[2])

        threads = [threading.Thread(target=declare, args=(number,)) for number in range(length)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (path,) = [one for one in outcome if one != "declared"]
        assert outcome.count("declared") == length - 1
        assert sorted(path.split(" → ")[:-1]) == nodes


def test_second_session_waits_for_the_first_to_commit(pg: Space) -> None:
    with pg.owner() as first, pg.owner() as second:
        second.execute("SET lock_timeout = '200ms'")
        with first.transaction():
            require(first, "t", "a", "b")
            with pytest.raises(errors.LockNotAvailable):
                require(second, "t", "b", "a")
        with pytest.raises(errors.CheckViolation, match="b → a → b"):
            require(second, "t", "b", "a")


def cyclic(edges: set[tuple[str, str]]) -> bool:
    left = set(edges)
    while left:
        free = {edge for edge in left if not any(source == edge[1] for source, _ in left)}
        if not free:
            return True
        left -= free
    return False


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["", "t", "u"]), st.sampled_from("abcde"), st.sampled_from("abcde")), max_size=14, unique=True))
def test_refuses_exactly_what_would_close_a_cycle_for_some_tenant(shared: Space, edges: list[Edge]) -> None:
    held: set[Edge] = set()
    with shared.owner() as connection:
        connection.execute("DELETE FROM flow_dependencies")
        for edge in edges:
            wanted = held | {edge}
            sights = [{(s, t) for tenant, s, t in wanted if tenant in (viewer, "")} for viewer in ("t", "u")]
            if any(map(cyclic, sights)):
                with pytest.raises(errors.CheckViolation):
                    require(connection, *edge)
            else:
                require(connection, *edge)
                held = wanted
        assert set(connection.execute("SELECT tenant, source, target FROM flow_dependencies").fetchall()) == held
