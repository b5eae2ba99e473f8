"""What one transaction adds to the health windows: the additive pieces that ingest hands to the analysis.

Every event passes here, so a series (a step of a chain, run by a component) is looked up once and then asked for its
window; the hot path only notes what happened, and sums, maxima and histograms are made when a slice of event time ends
or the transaction is taken.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from mypy_extensions import mypyc_attr

from schemas.internal import Delta, EdgeDelta, Slice
from streams.histogram import buckets
from streams.rules import ChainRules
from streams.units import Edge

N = TypeVar("N", int, float)
SeriesKey = tuple[str, str, str, str]
"""(tenant, chain, step, component)"""
EdgeKey = tuple[str, str, str, str, str, str, int]
"""(tenant, chain, kind, source, target, topic, window start in µs)"""
KnownEdge = tuple[str, str, str, str, str, str]
"""(tenant, chain, kind, source, target, topic)"""
OVERFLOW = "~overflow"
"""Stands for every chain beyond the cardinality limit, and for every tenant that has only such."""
SAMPLE = 8
"""Executions and users named per delta and per window."""
MAX_INDICATORS = 64
"""Distinct indicators in one Delta; of more the first by name are kept."""


@mypyc_attr(acyclic=True)
class Window:
    """What has been noted of a series in one window, `start_us` <= time < `end_us`, since the last cut."""

    __slots__ = (
        "affected", "affected_executions", "broker_us", "clean_units", "cpu_us", "durations_us", "end_us", "events",
        "failed", "first_offset", "first_violation_us", "gaps_us", "indicators", "io_wait_us", "last_offset",
        "memory_max_bytes", "own_us", "samples", "start_us", "started", "units", "users", "violations",
    )  # fmt: skip

    def __init__(self, start_us: int, end_us: int, offset: int) -> None:
        self.start_us = start_us
        self.end_us = end_us
        self.first_offset = offset
        self.last_offset = offset
        self.events = 0
        self.started = 0
        self.failed = 0
        self.durations_us: list[int] = []
        """One per step or execution that ended; so those that did not fail were completed."""
        self.cpu_us = 0
        self.io_wait_us = 0
        self.memory_max_bytes = 0
        self.broker_us: list[int] = []
        self.violations: dict[str, int] = {}
        self.first_violation_us = 0
        self.affected_executions = 0
        self.affected: list[str] = []
        self.users: list[str] = []
        self.units = 0
        self.clean_units = 0
        self.own_us: list[int] = []
        self.gaps_us: list[int] = []
        self.indicators: dict[str, int] = {}
        self.samples: dict[str, tuple[int, int, float]] = {}

    def violated(self, violation_type: str, time_us: int) -> None:
        """Note a violation."""
        self.violations[violation_type] = self.violations.get(violation_type, 0) + 1
        if not self.first_violation_us or time_us < self.first_violation_us:
            self.first_violation_us = time_us

    def hurt(self, execution: str, user: str) -> None:
        """Note an execution whose first violation this is."""
        self.affected_executions += 1
        keep_smallest(self.affected, [execution])
        if user:
            keep_smallest(self.users, [user])

    def sampled(self, name: str, value: float) -> None:
        """Note a sample of a resource."""
        count, total, largest = self.samples.get(name, (0, 0, value))
        self.samples[name] = (count + 1, total + round(value * sample_unit(name)), max(largest, value))

    def indicated(self, indicator: str) -> None:
        """Note that an indicator was present in a unit."""
        self.indicators[indicator] = self.indicators.get(indicator, 0) + 1

    def delta(self, key: SeriesKey) -> Delta:
        """Return what was noted, added up."""
        return Delta(
            *key, self.start_us, self.first_offset, self.last_offset, self.events, self.started,
            len(self.durations_us) - self.failed, self.failed, sum(self.durations_us), max(self.durations_us, default=0),
            buckets(self.durations_us), self.cpu_us, self.io_wait_us, self.memory_max_bytes, len(self.broker_us),
            sum(self.broker_us), max(self.broker_us, default=0), self.violations, self.first_violation_us,
            self.affected_executions, self.affected, self.users, self.units, self.clean_units,
            first_by_name(self.indicators, MAX_INDICATORS),
            buckets(self.own_us), buckets(self.gaps_us), self.samples,
        )  # fmt: skip


@mypyc_attr(acyclic=True)
class EdgeWindow:
    """What has been noted of an edge in one window since the last cut."""

    __slots__ = ("failed", "latencies_us")

    def __init__(self) -> None:
        self.latencies_us: list[int] = []
        self.failed = 0

    def delta(self, key: EdgeKey) -> EdgeDelta:
        """Return what was noted, added up."""
        latencies_us = self.latencies_us
        return EdgeDelta(*key, len(latencies_us), self.failed, sum(latencies_us), max(latencies_us))


NO_WINDOW = Window(0, 0, 0)
"""Holds no time: whoever asks it has to ask the book."""


@mypyc_attr(acyclic=True)
class Series:
    """A step of a chain, run by a component; "" as in HealthWindow. `window` is the one that was booked last."""

    __slots__ = ("component", "key", "window", "windows")

    def __init__(self, key: SeriesKey) -> None:
        self.key = key
        self.component = key[3]
        self.window = NO_WINDOW
        self.windows: dict[int, Window] = {}
        """Those of the current slice, by their start."""


@mypyc_attr(acyclic=True)
class Chain:
    """A tenant's chain: the rules by effective time, the latest first, and its series by step, with the component that was seen first."""

    __slots__ = ("edges", "name", "rules", "series", "tenant")

    def __init__(self, tenant: str, name: str, rules: tuple[ChainRules, ...]) -> None:
        self.tenant = tenant
        self.name = name
        self.rules = rules
        self.series: dict[str, Series] = {}
        self.edges: dict[tuple[str, str, str, str, int], EdgeWindow] = {}
        """By (kind, source, target, topic, window start in µs), those of the current slice."""


class Book:
    """All series of a source partition, and what the current transaction has noted of them.

    At most `max_series` are told apart, and as many edges. What further series would hold is booked under ~overflow of
    the tenant, and `on_overflow` is told (tenant, event time) each time; a tenant without any series that is told apart is
    ~overflow himself. Further edges are counted by `on_edge_overflow` and left out.
    """

    def __init__(
        self, window_us: int, max_series: int, on_overflow: Callable[[str, int], None],
        on_edge_overflow: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._window_us = window_us
        self._max_series = max_series
        self._on_overflow = on_overflow
        self._on_edge_overflow = on_edge_overflow
        self._series: dict[SeriesKey, Series] = {}
        self._tenants: set[str] = set()
        """Those of the known series."""
        self._edges: set[KnownEdge] = set()
        self._booked: list[Series] = []
        self._linked: list[Chain] = []
        """Chains that hold edges of the current slice."""
        self._declared: list[EdgeDelta] = []
        self._slices: list[Slice] = []
        """Those of this transaction that have ended."""
        self._new: list[SeriesKey] = []
        self._new_edges: list[KnownEdge] = []
        self._overflows: dict[str, Series] = {}
        """By tenant, those of this transaction."""

    @property
    def known(self) -> Iterable[SeriesKey]:
        """The series that are told apart."""
        return self._series.keys()

    @property
    def known_edges(self) -> Iterable[KnownEdge]:
        """The edges that are told apart."""
        return self._edges

    def restore(self, known: Iterable[SeriesKey], edges: Iterable[KnownEdge] = ()) -> None:
        """Take back the series and edges that were known."""
        for key in known:
            self._series[key] = Series(key)
            self._tenants.add(key[0])
        self._edges.update(edges)

    def at(self, chain: Chain, step: str, component: str, time_us: int, offset: int) -> Window:
        """Return the window of a series that holds `time_us`, and note `offset` as evidence."""
        series = chain.series.get(step)
        if series is None or series.component != component:
            series = self._find(chain, step, component, time_us)
        window = series.window
        if not window.start_us <= time_us < window.end_us:
            window = self._turn(series, time_us, offset)
        if offset > window.last_offset:
            window.last_offset = offset
        elif offset < window.first_offset:
            window.first_offset = offset
        return window

    def knows(self, chain: Chain, step: str, component: str) -> bool:
        """Return whether a series is told apart."""
        series = chain.series.get(step)
        known = series is not None and series.component == component
        return known or (chain.tenant, chain.name, step, component) in self._series

    def edge(self, chain: Chain, edge: Edge, time_us: int) -> None:
        """Note one observed edge in the window that holds `time_us`."""
        start_us = time_us - time_us % self._window_us
        key = (edge.kind, edge.source, edge.target, edge.topic, start_us)
        noted = chain.edges.get(key)
        if noted is None:
            if not self._is_known_edge((chain.tenant, chain.name, *key[:4])):
                return
            if not chain.edges:
                self._linked.append(chain)
            noted = chain.edges[key] = EdgeWindow()
        noted.latencies_us.append(edge.latency_us)
        if edge.failed:
            noted.failed += 1

    def _is_known_edge(self, key: KnownEdge) -> bool:
        """Return whether an edge is told apart, from now on if there is room."""
        if key not in self._edges:
            if len(self._edges) >= self._max_series:
                self._on_edge_overflow()
                return False
            self._edges.add(key)
            self._new_edges.append(key)
        return True

    def declare(self, edge: EdgeDelta) -> None:
        """Note an edge that a definition declares."""
        self._declared.append(edge)

    def cut(self, end_us: int) -> None:
        """End the slice of event time up to `end_us`."""
        if not self._booked and not self._linked and not self._declared:
            return
        deltas = []
        for series in self._booked:
            deltas += [window.delta(series.key) for window in series.windows.values()]
            series.window, series.windows = NO_WINDOW, {}
        edges = self._declared
        for chain in self._linked:
            edges += [noted.delta((chain.tenant, chain.name, *edge)) for edge, noted in chain.edges.items()]
            chain.edges = {}
        self._slices.append(Slice(end_us, deltas, edges))
        self._booked, self._linked, self._declared = [], [], []

    def take(self) -> tuple[list[Slice], list[SeriesKey], list[KnownEdge]]:
        """Return the slices, the series and the edges that are new, and begin the next transaction; `cut` before."""
        taken = self._slices, self._new, self._new_edges
        self._slices, self._new, self._new_edges, self._overflows = [], [], [], {}
        return taken

    def _find(self, chain: Chain, step: str, component: str, time_us: int) -> Series:
        key = (chain.tenant, chain.name, step, component)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= self._max_series:
                return self._overflow(chain.tenant, time_us)
            series = self._series[key] = Series(key)
            self._tenants.add(chain.tenant)
            self._new.append(key)
        chain.series.setdefault(step, series)
        return series

    def _overflow(self, tenant: str, time_us: int) -> Series:
        if tenant not in self._tenants:
            tenant = OVERFLOW
        self._on_overflow(tenant, time_us)
        return self._overflows.setdefault(tenant, Series((tenant, OVERFLOW, "", "")))

    def _turn(self, series: Series, time_us: int, offset: int) -> Window:
        """Let a series book into another window."""
        windows = series.windows
        if not windows:
            self._booked.append(series)
        start_us = time_us - time_us % self._window_us
        window = windows.get(start_us)
        if window is None:
            window = windows[start_us] = Window(start_us, start_us + self._window_us, offset)
        series.window = window
        return window


def keep_smallest(sample: list[str], more: Iterable[str]) -> None:
    """Add to a sample, keeping the SAMPLE smallest: the same sample whatever the order and grouping of additions."""
    sample[:] = sorted({*sample, *more})[:SAMPLE]


def first_by_name(counts: dict[str, N], limit: int) -> dict[str, N]:
    """Return the `limit` first entries by name: the same in the end whatever the grouping of additions before."""
    return counts if len(counts) <= limit else dict(sorted(counts.items())[:limit])


def sample_unit(name: str) -> int:
    """Return by how much samples are multiplied before they are summed: whole numbers add up the same in any order."""
    return 1_000_000 if name.endswith("_ratio") else 1
