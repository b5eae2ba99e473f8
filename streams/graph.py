"""Who depends on whom: the dependency graph of one tenant, learned from the edges that executions show.

Counts decay with a half-life in event time, so that a dependency that is gone fades and a new one counts at once.
Kafka topics are nodes of their own, named `topic:<name>`, between those that write to them and those that read them: a
component that stops feeds nobody behind its topic. What definitions declare of topics is known before it is seen.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from schemas.internal import EdgeDelta

TOPIC_NODE = "topic:"
EdgeKey = tuple[str, str, str, str]
"""(source, target, kind, topic)"""


class GraphSettings(Struct, frozen=True):
    """Bounds and memory of the graph."""

    half_life_us: int = 3_600_000_000
    max_edges: int = 2_000
    """Per tenant; beyond it an eighth of the edges is forgotten, those not seen for longest."""
    max_chains: int = 32
    """Chains remembered per edge; further ones are not named."""


DEFAULTS = GraphSettings()


class Edge(Struct):
    """One dependency; counts are decayed to `last_us`."""

    source: str
    target: str
    kind: str
    topic: str
    first_us: int
    last_us: int
    count: float = 0.0
    failed: float = 0.0
    latency_sum_us: float = 0.0
    latency_max_us: int = 0
    chains: list[str] = []

    @property
    def latency_us(self) -> float:
        """Mean time from source's end to target's end; of a call, the target's duration."""
        return self.latency_sum_us / self.count if self.count else 0.0


class Graph:
    """The edges of one tenant, with neighbours in both directions."""

    def __init__(self, settings: GraphSettings = DEFAULTS, reached: Counter[str] | None = None) -> None:
        """`reached` counts how often a bound was reached, by its name."""
        self._settings = settings
        self._reached: Counter[str] = Counter() if reached is None else reached
        self._edges: dict[EdgeKey, Edge] = {}
        self._out: dict[str, dict[EdgeKey, Edge]] = {}
        self._in: dict[str, dict[EdgeKey, Edge]] = {}
        self._dirty: set[str] = set()

    def observe(self, delta: EdgeDelta) -> None:
        """Add what one transaction saw of one edge; a declared one has a count of 0, and only one of its ends."""
        if not delta.topic:
            self._observe((delta.source, delta.target, delta.kind, ""), delta)
            return
        node = TOPIC_NODE + delta.topic
        if delta.source:
            self._observe((delta.source, node, delta.kind, delta.topic), delta)
        if delta.target:
            self._observe((node, delta.target, delta.kind, delta.topic), delta)

    def _observe(self, key: EdgeKey, delta: EdgeDelta) -> None:
        edge = self._edges.get(key)
        if edge is None:
            edge = Edge(*key, delta.window_start_unix_us, delta.window_start_unix_us)
            self._put(key, edge)
            self._evict()
        self._add(edge, delta)
        self._dirty.add(edge.source)

    def _add(self, edge: Edge, delta: EdgeDelta) -> None:
        time_us = delta.window_start_unix_us
        if time_us > edge.last_us:
            fade = 0.5 ** ((time_us - edge.last_us) / self._settings.half_life_us)
            edge.count, edge.failed, edge.latency_sum_us = (
                edge.count * fade,
                edge.failed * fade,
                edge.latency_sum_us * fade,
            )
            edge.last_us = time_us
        weight = 0.5 ** ((edge.last_us - time_us) / self._settings.half_life_us)
        edge.count += delta.count * weight
        edge.failed += delta.failed * weight
        edge.latency_sum_us += delta.latency_sum_us * weight
        edge.latency_max_us = max(edge.latency_max_us, delta.latency_max_us)
        edge.first_us = min(edge.first_us, time_us)
        if delta.chain not in edge.chains and len(edge.chains) < self._settings.max_chains:
            edge.chains.append(delta.chain)

    def _put(self, key: EdgeKey, edge: Edge) -> None:
        self._edges[key] = edge
        self._out.setdefault(edge.source, {})[key] = edge
        self._in.setdefault(edge.target, {})[key] = edge

    def __len__(self) -> int:
        return len(self._edges)

    def _evict(self) -> None:
        """Keep to the limit; many at once, because all have to be looked at to find the oldest."""
        limit = self._settings.max_edges
        if len(self._edges) > limit:
            oldest = sorted(self._edges, key=lambda key: (self._edges[key].last_us, key))
            for key in oldest[: len(self._edges) - limit + limit // 8]:
                self._forget(key)

    def _forget(self, key: EdgeKey) -> None:
        self._reached["graph_edges_over_limit"] += 1
        edge = self._edges.pop(key)
        for index, node in ((self._out, edge.source), (self._in, edge.target)):
            del index[node][key]
            if not index[node]:
                del index[node]
        self._dirty.add(edge.source)

    def outgoing(self, node: str, *kinds: str) -> list[Edge]:
        """Return edges from a component, of these kinds (all when none is given), in the order of their keys."""
        return _select(self._out.get(node, {}), kinds)

    def incoming(self, node: str, *kinds: str) -> list[Edge]:
        """Return edges to a component."""
        return _select(self._in.get(node, {}), kinds)

    def callees(self, node: str) -> list[str]:
        """Return the components that a component waits for."""
        return _names(edge.target for edge in self.outgoing(node, "call"))

    def callers(self, node: str) -> list[str]:
        """Return the components that wait for a component."""
        return _names(edge.source for edge in self.incoming(node, "call"))

    def feeders(self, node: str) -> list[tuple[str, list[str]]]:
        """Return the components whose work a component goes on with, directly or through a topic, each with the chains."""
        found = [(edge.source, edge.chains) for edge in self.incoming(node, "flow")]
        for read in self.incoming(node, "topic"):
            for written in self.incoming(read.source, "topic"):
                chains = [chain for chain in written.chains if chain in read.chains]
                if chains:
                    found.append((written.source, chains))
        return found

    def predecessors(self, node: str, chain: str = "") -> list[str]:
        """Return the components whose work a component goes on with; in one chain when given."""
        return _names(source for source, chains in self.feeders(node) if not chain or chain in chains)

    def nodes(self) -> list[str]:
        """Return components and topics."""
        return sorted(self._out.keys() | self._in.keys())

    def hurt_by(self, node: str) -> list[tuple[str, Edge]]:
        """Return what suffers next when a node is ill, with the edge there: whom it feeds, and its callers."""
        after = [(edge.target, edge) for edge in self.outgoing(node, "flow", "topic")]
        return after + [(edge.source, edge) for edge in self.incoming(node, "call")]

    def hurting(self, node: str) -> list[tuple[str, Edge]]:
        """Return what a node suffers by when that is ill, with the edge there: whom it waits for, and what feeds it."""
        before = [(edge.source, edge) for edge in self.incoming(node, "flow", "topic")]
        return before + [(edge.target, edge) for edge in self.outgoing(node, "call")]

    def distance(self, start: str, goal: str, limit: int) -> int | None:
        """Return the hops from an ill component to one that suffers by it, topics not counted; None beyond `limit`."""
        return _search(start, goal, limit, self._victims)

    def _victims(self, node: str) -> list[str]:
        """Return the components that suffer next, directly or behind a topic."""
        found: list[str] = []
        for name, _ in self.hurt_by(node):
            found += [edge.target for edge in self.outgoing(name, "topic")] if is_topic(name) else [name]
        return _names(found)

    def hurt_with(self, node: str) -> set[str]:
        """Return a component and everything that suffers when it is ill, however far away."""
        return {node} | _reach(node, lambda name: [victim for victim, _ in self.hurt_by(name)])

    def changes(self) -> Iterator[tuple[str, list[Edge] | None]]:
        """Yield (source, its edges) for sources changed since the last call; None when none is left."""
        for source in sorted(self._dirty):
            edges = self._out.get(source)
            yield source, list(edges.values()) if edges else None
        self._dirty.clear()

    def restore(self, edges: Iterable[Edge]) -> None:
        """Take back the edges of one source."""
        for edge in edges:
            self._put((edge.source, edge.target, edge.kind, edge.topic), edge)


def is_topic(node: str) -> bool:
    """Return whether a node is a topic."""
    return node.startswith(TOPIC_NODE)


def _select(edges: dict[EdgeKey, Edge], kinds: tuple[str, ...]) -> list[Edge]:
    return [edges[key] for key in sorted(edges) if not kinds or edges[key].kind in kinds]


def _names(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _reach(start: str, ahead: Callable[[str], Iterable[str]]) -> set[str]:
    """Return what can be reached from a node in one step or more."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in ahead(todo.pop()):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


def _search(start: str, goal: str, limit: int, ahead: Callable[[str], list[str]]) -> int | None:
    seen, todo = {start}, deque([(start, 0)])
    while todo:
        node, hops = todo.popleft()
        if node == goal:
            return hops
        if hops < limit:
            fresh = [name for name in ahead(node) if name not in seen]
            seen.update(fresh)
            todo.extend((name, hops + 1) for name in fresh)
    return None
