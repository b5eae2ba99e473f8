"""What root-cause ranking remembers of one tenant: counts per context and window, and what is normal.

A context is (chain, step, component). Recent windows are kept one by one; a window that leaves them is added to the
decayed *normal* of its contexts, unless the context was in trouble then: an incident must not become normal.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from msgspec import Struct, field

from schemas.internal import Delta
from streams.booking import MAX_INDICATORS, first_by_name
from streams.histogram import bucket_index

Context = tuple[str, str, str]
"""(chain, step, component)"""


class MemorySettings(Struct, frozen=True):
    """Bounds of the memory of one tenant."""

    window_us: int = 10_000_000
    recent_windows: int = 30
    normal_half_life_windows: float = 2_160.0
    """6 h of 10 s windows."""
    max_contexts: int = 2_000
    """Further contexts are not ranked (they are still counted by health), until others are forgotten."""
    max_indicators: int = 128
    """Distinct indicators in normal, per context; the rarest is forgotten. A recent window holds `MAX_INDICATORS`."""
    forget_us: int = 7 * 86_400_000_000
    """A context unseen for so long is forgotten,"""
    crowded_us: int = 3_600_000_000
    """after so long while there are `max_contexts`."""


DEFAULTS = MemorySettings()


class Damage(Struct):
    """Who was hurt in one context and window, and where on the log it stands."""

    first_us: int = 0
    """Event time of the earliest violation."""
    executions: int = 0
    sample: list[str] = []
    users: list[str] = []
    ranges: dict[str, tuple[int, int]] = {}
    """`topic:partition` -> first and last offset."""

    def add(self, other: "Damage", limit: int) -> None:
        """Add another; samples are the first `limit` met."""
        if other.first_us and (not self.first_us or other.first_us < self.first_us):
            self.first_us = other.first_us
        self.executions += other.executions
        for mine, new in ((self.sample, other.sample), (self.users, other.users)):
            mine.extend([name for name in new if name not in mine][: max(0, limit - len(mine))])
        for place, (first, last) in other.ranges.items():
            low, high = self.ranges.get(place, (first, last))
            self.ranges[place] = (min(low, first), max(high, last))


class Counts(Struct):
    """Sums over units and events of one context; floats because normal is decayed."""

    chain: str
    step: str
    last_us: int = 0
    windows: float = 0.0
    events: float = 0.0
    started: float = 0.0
    completed: float = 0.0
    failed: float = 0.0
    duration_sum_us: float = 0.0
    units: float = 0.0
    clean: float = 0.0
    indicators: dict[str, float] = {}
    own: dict[int, float] = {}
    gap: dict[int, float] = {}
    cpu: dict[int, float] = {}
    """Histogram of samples of the share of a processor, in millionths; of the whole component, so in its context ("", "")."""
    violations: dict[str, float] = {}
    damage: Damage | None = None

    @property
    def ended(self) -> float:
        """Steps that ended, well or badly."""
        return self.completed + self.failed

    def add(self, delta: Delta) -> None:
        """Add what one transaction saw."""
        self.last_us = max(self.last_us, delta.window_start_unix_us)
        self.events += delta.events
        self.started += delta.started
        self.completed += delta.completed
        self.failed += delta.failed
        self.duration_sum_us += delta.duration_sum_us
        self.units += delta.units
        self.clean += delta.clean_units
        for mine, other in self._maps(delta):
            for key, count in other.items():
                mine[key] = mine.get(key, 0.0) + count
        count, total, _ = delta.samples.get("cpu_ratio", _NO_SAMPLES)
        if count:
            index = bucket_index(total // count)
            self.cpu[index] = self.cpu.get(index, 0.0) + count

    def _maps(self, delta: Delta) -> tuple[tuple[dict, dict], ...]:  # type: ignore[type-arg]
        return (
            (self.indicators, delta.indicators),
            (self.own, delta.own),
            (self.gap, delta.gap),
            (self.violations, delta.violations),
        )

    def fold(self, other: "Counts", fade: float) -> None:
        """Decay by `fade` and add one window."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) * fade + getattr(other, name))
        self.windows += 1.0
        self.last_us = max(self.last_us, other.last_us)
        for name in _MAPS:
            _fold_map(getattr(self, name), getattr(other, name), fade)


_SUMS = ("windows", "events", "started", "completed", "failed", "duration_sum_us", "units", "clean")
_MAPS = ("indicators", "own", "gap", "cpu", "violations")
_NO_SAMPLES = (0, 0, 0.0)
_FAINT = 0.01
"""Decayed counts below this are dropped, so that maps stay small."""


def _fold_map(mine: dict[str, float], other: dict[str, float], fade: float) -> None:
    for key in list(mine):
        mine[key] *= fade
        if mine[key] < _FAINT:
            del mine[key]
    for key, count in other.items():
        mine[key] = mine.get(key, 0.0) + count


class ComponentMemory(Struct):
    """All contexts of one component."""

    normal: dict[tuple[str, str], Counts] = field(default_factory=dict)
    recent: dict[int, dict[tuple[str, str], Counts]] = field(default_factory=dict)
    """window start -> (chain, step) -> counts"""

    def contexts(self) -> list[tuple[str, str]]:
        """Return the (chain, step) pairs known, sorted."""
        found = set(self.normal)
        for window in self.recent.values():
            found.update(window)
        return sorted(found)


class Memory:
    """The contexts of one tenant."""

    def __init__(self, settings: MemorySettings = DEFAULTS, reached: Counter[str] | None = None) -> None:
        """`reached` counts how often a bound was reached, by its name."""
        self.settings = settings
        self._reached: Counter[str] = Counter() if reached is None else reached
        self.components: dict[str, ComponentMemory] = {}
        self.newest_us = 0
        """Start of the newest window seen."""
        self._known: set[Context] = set()
        self._dirty: dict[tuple[str, int | None], None] = {}

    def observe(self, delta: Delta) -> Counts | None:
        """Add what one transaction saw; return the counts of its context and window, None if it is not remembered."""
        context = (delta.chain, delta.step, delta.component)
        start = delta.window_start_unix_us
        if start <= self.newest_us - self.settings.recent_windows * self.settings.window_us:
            return None
        self.newest_us = max(self.newest_us, start)
        if context not in self._known and not self._admit(context):
            return None
        memory = self.components.setdefault(delta.component, ComponentMemory())
        counts = memory.recent.setdefault(start, {}).get(context[:2])
        if counts is None:
            counts = memory.recent[start][context[:2]] = Counts(delta.chain, delta.step)
        counts.add(delta)
        counts.indicators = first_by_name(counts.indicators, MAX_INDICATORS)
        self._dirty[delta.component, start] = None
        return counts

    def context_count(self) -> int:
        """Return how many contexts are remembered."""
        return len(self._known)

    def _admit(self, context: Context) -> bool:
        if len(self._known) >= self.settings.max_contexts:
            self._reached["contexts_over_limit"] += 1
            return False
        self._known.add(context)
        return True

    def window_starts(self) -> list[int]:
        """Return the starts of the recent windows, oldest first, without gaps."""
        starts = [start for memory in self.components.values() for start in memory.recent]
        if not starts:
            return []
        return list(range(min(starts), max(starts) + 1, self.settings.window_us))

    def fold(self, ill: Callable[[Context, int], bool]) -> None:
        """Move windows that are no longer recent into normal, except those of contexts that were `ill` then."""
        horizon = self.newest_us - (self.settings.recent_windows - 1) * self.settings.window_us
        for name, memory in list(self.components.items()):
            for start in sorted(start for start in memory.recent if start < horizon):
                for key, counts in memory.recent.pop(start).items():
                    if not ill((*key, name), start):
                        self._learn(name, memory, key, counts)
                self._dirty[name, start] = None
                self._dirty[name, None] = None
            self._forget(name, memory)
        self._known = {(*key, name) for name, memory in self.components.items() for key in memory.contexts()}

    def _learn(self, name: str, memory: ComponentMemory, key: tuple[str, str], counts: Counts) -> None:
        normal = memory.normal.get(key)
        if normal is None:
            normal = memory.normal[key] = Counts(*key)
        elapsed = max(1.0, (counts.last_us - normal.last_us) / self.settings.window_us) if normal.last_us else 1.0
        normal.fold(counts, 0.5 ** (min(elapsed, 360.0) / self.settings.normal_half_life_windows))
        while len(normal.indicators) > self.settings.max_indicators:
            del normal.indicators[min(normal.indicators, key=lambda item: (normal.indicators[item], item))]

    def _forget(self, name: str, memory: ComponentMemory) -> None:
        crowded = len(self._known) >= self.settings.max_contexts
        limit = self.newest_us - (self.settings.crowded_us if crowded else self.settings.forget_us)
        for key in [key for key, counts in memory.normal.items() if counts.last_us < limit]:
            del memory.normal[key]
            self._dirty[name, None] = None
        if not memory.normal and not memory.recent:
            del self.components[name]

    def changes(self) -> Iterator[tuple[str, int | None, list[Counts] | None]]:
        """Yield (component, window start or None for normal, counts) changed since the last call; None = forgotten."""
        for name, start in self._dirty:
            memory = self.components.get(name, ComponentMemory())
            entry = memory.normal if start is None else memory.recent.get(start)
            yield name, start, list(entry.values()) if entry else None
        self._dirty = {}

    def restore(self, component: str, start: int | None, counts: list[Counts]) -> None:
        """Take back one entry."""
        memory = self.components.setdefault(component, ComponentMemory())
        entry = {(item.chain, item.step): item for item in counts}
        if start is None:
            memory.normal = entry
        else:
            memory.recent[start] = entry
            self.newest_us = max(self.newest_us, start)
        self._known.update((*key, component) for key in entry)
