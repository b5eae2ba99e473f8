"""Components and their dependencies: who there is, who depends on whom, and what one's trouble would do."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from connectors.http import times
from connectors.http.parameters import Named, NameInPath
from connectors.http.problems import not_found
from connectors.http.routes.health import Metrics, metrics
from connectors.http.scope import Reader, Scope
from schemas.internal import EdgeDelta
from streams.graph import Graph, GraphSettings
from streams.impact.reach import Reached, downstream, upstream

router = APIRouter(prefix="/v1", tags=["components"])
MAX_EDGES = 5_000


class Dependency(BaseModel):
    """A dependency that was observed."""

    kind: Literal["call", "flow", "topic"] = Field(description="call: source waits for target; flow: target goes on with source's work; topic: through Kafka")
    source: str
    target: str
    topic: str
    chains: list[str] = Field(description="some of those that use it")
    first_hour_unix_us: int
    last_hour_unix_us: int
    uses: int
    failures: int
    mean_us: float
    max_us: int


class Reach(BaseModel):
    """One component or topic on the way of a fault."""

    kind: Literal["component", "topic"]
    name: str
    hops: int
    probability: float = Field(description="a rule of thumb with the right order, 0 to 1")
    delay_us: int = Field(description="until it would be felt")
    path: list[str]


class Impact(BaseModel):
    """What a component's trouble would do, and whose trouble would reach it."""

    component: str
    chains: list[str] = Field(description="that pass through it")
    downstream: list[Reach] = Field(description="whom its trouble would hurt, most probable first")
    upstream: list[Reach] = Field(description="whose trouble would hurt it, most probable first")


class ComponentHealth(BaseModel):
    """A component: its own newest window, and those of the steps that it runs."""

    component: str
    own: Metrics | None = Field(description="its resources; null where it reports none")
    steps: list[Metrics]


@router.get("/components", summary="List components")
def list_components(scope: Reader) -> list[str]:
    """Return the names of all components that were seen."""
    query = "SELECT DISTINCT component FROM flow_metrics WHERE tenant = %(tenant)s AND component <> '' ORDER BY component LIMIT 10000"
    return [row["component"] for row in scope.rows(query, tenant=scope.tenant)]


@router.get("/components/{component}", summary="Show a component")
def show_component(scope: Reader, component: NameInPath) -> ComponentHealth:
    """Return the newest windows of a component and of its steps."""
    query = "SELECT * FROM flow_metrics WHERE tenant = %(tenant)s AND component = %(component)s ORDER BY kind, chain, step LIMIT 5000"
    found = [metrics(row) for row in scope.rows(query, tenant=scope.tenant, component=component)]
    if not found:
        raise not_found(f"component {component}")
    own = next((row for row in found if row.kind == "component"), None)
    return ComponentHealth(component=component, own=own, steps=[row for row in found if row.kind == "step"])


@router.get("/components/{component}/impact", summary="What a component's trouble would do")
def show_impact(scope: Reader, component: NameInPath, stretch: times.Day) -> Impact:
    """Return whom the component's trouble would hurt and whose trouble would hurt it, by what was observed."""
    rows = _edges(scope, stretch, "")
    graph = graph_of(scope.tenant, rows)
    chains = sorted({chain for row in rows if component in (row["source"], row["target"]) for chain in row["chains"] if chain})
    if component not in graph.nodes() and not scope.rows(_KNOWN, tenant=scope.tenant, component=component):
        raise not_found(f"component {component}")
    return Impact(
        component=component, chains=chains, downstream=[_reach(x) for x in downstream(graph, component)],
        upstream=[_reach(x) for x in upstream(graph, component)],
    )  # fmt: skip


@router.get("/dependencies", summary="The dependency graph as it was observed")
def list_dependencies(scope: Reader, stretch: times.Day, chain: Named = "") -> list[Dependency]:
    """Return the edges between components, of one chain where it is named."""
    return [Dependency(**row) for row in _edges(scope, stretch, chain)]


def _edges(scope: Scope, stretch: times.Stretch, chain: str) -> list[dict[str, Any]]:
    return scope.select("edges", since_us=stretch.since_us, until_us=stretch.until_us, chain=chain)


def graph_of(tenant: str, rows: list[dict[str, Any]]) -> Graph:
    """Return the graph of edges as they are stored per hour."""
    graph = Graph(GraphSettings(max_edges=MAX_EDGES))
    for row in rows:
        for chain in row["chains"] or [""]:
            share = 1 / max(1, len(row["chains"]))
            uses = max(1, round(row["uses"] * share))
            graph.observe(
                EdgeDelta(
                    tenant, chain, row["kind"], row["source"], row["target"], row["topic"], row["last_hour_unix_us"], uses,
                    round(row["failures"] * share), round(row["mean_us"] * uses), row["max_us"],
                )
            )  # fmt: skip
    return graph


def _reach(x: Reached) -> Reach:
    return Reach(kind=x.kind, name=x.name, hops=x.hops, probability=x.probability, delay_us=x.delay_us, path=x.path)


_KNOWN = "SELECT FROM flow_metrics WHERE tenant = %(tenant)s AND component = %(component)s LIMIT 1"
