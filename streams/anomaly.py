"""The anomaly stage: health windows in, anomalies out; one ensemble of detectors per key.

A key is (tenant, chain, step, component).

Per key, windows count once, in order: the entry holds the last window start it has applied, and a window at
or before it is skipped, so that applying an input again changes nothing. Late corrections (revision > 0) are
not scored. A key that has gone quiet must be given to the stage as windows of zero events: what is not there
cannot be judged.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from schemas.analysis import Anomaly, FeatureContribution
from schemas.health import HealthWindow
from streams.detectors import make
from streams.detectors.base import State
from streams.detectors.ensemble import Contribution, Ensemble, Verdict
from streams.detectors.features import measured
from streams.detectors.novelty import PeakHold
from streams.detectors.pooling import Pool
from streams.ids import derived_id, key_of

FORMAT = 1
"""Of the saved entries."""

Frozen: TypeAlias = Callable[[HealthWindow], bool]
"""Whether an open incident touches the window: then nothing is learned from it."""


@dataclass(frozen=True)
class AnomalySettings:
    """What can be set, with the unit in the name. The defaults are for windows of 10 s.

    threshold: surprise, -log10 p, that two detectors must reach. hold_us: alert-once, a score passes only if
    it is the highest in this time (0: every anomalous window is reported). max_frozen_windows: an incident
    that stays open longer is the new normal, and learning goes on. max_doubtful_windows: windows with half
    the threshold are not learned, so that a fault missed at first is not taken for normal, but no more than
    so many on end. max_keys: beyond it, keys without windows for crowded_us are forgotten; while there are none, a
    further key is not followed (counted in `reached`). forget_us: a key without windows for so long starts anew.
    """

    detectors: tuple[str, ...] = ("novelty", "robust_z", "rates", "seasonal", "trees")
    warm_up_windows: int = 30
    threshold: float = 4.0
    hold_us: int = 300_000_000
    max_frozen_windows: int = 360
    max_doubtful_windows: int = 10
    max_keys: int = 5000
    crowded_us: int = 3_600_000_000
    forget_us: int = 7 * 86_400_000_000

    @property
    def version(self) -> str:
        """What an anomaly and a saved entry name as their detectors: the format and the detectors."""
        return f"{FORMAT}:{'+'.join(self.detectors)}"

    def score(self, surprise: float) -> float:
        """Map surprise (0..) to 0..1, keeping order; the threshold becomes 2/3."""
        return surprise / (surprise + self.threshold / 2)


class Entry:
    """What is kept of one key."""

    __slots__ = ("doubtful", "ensemble", "frozen", "hold", "learned", "mark_us", "pool")

    def __init__(self, settings: AnomalySettings) -> None:
        self.pool = Pool()
        self.ensemble = Ensemble(make(settings.detectors))
        self.hold = PeakHold(settings.hold_us, floor=settings.score(settings.threshold) * (1 - 1e-9))
        self.mark_us, self.learned, self.frozen, self.doubtful = -1, 0, 0, 0

    def save(self, version: str) -> bytes:
        """Return the entry as MessagePack."""
        counts = [self.mark_us, self.learned, self.frozen, self.doubtful]
        return msgspec.msgpack.encode(
            [version, counts, self.hold.save(), self.pool.save(), self.ensemble.save()]
        )

    def load(self, counts: list[int], hold: State, pool: State, ensemble: State) -> None:
        """Take back what `save` gave, without the version."""
        self.mark_us, self.learned, self.frozen, self.doubtful = counts
        self.hold.load(hold)
        self.pool.load(pool)
        self.ensemble.load(ensemble)


class AnomalyStage:
    """Judges every health window against what its key has shown before. See streams/stage.py for when what is
    called.
    """

    def __init__(self, settings: AnomalySettings | None = None) -> None:
        self.settings = settings or AnomalySettings()
        self.reached: Counter[str] = Counter()
        """See Stage; detectors_over_limit: windows of keys beyond max_keys."""
        self.outdated = 0
        """Restored entries of other detectors than are set now; their keys started anew."""
        self._entries: dict[str, Entry] = {}
        self._changed: dict[str, bool] = {}
        self._next_sweep_us = 0

    def __len__(self) -> int:
        return len(self._entries)

    def apply(self, windows: Sequence[HealthWindow], frozen: Frozen) -> list[Anomaly]:
        """Judge, then learn, window after window; return the anomalies in that order."""
        found = (self._apply_one(window, frozen) for window in windows if window.revision == 0)
        return [anomaly for anomaly in found if anomaly]

    def restore(self, key: str, value: bytes) -> None:
        """See Stage. An entry that other detectors saved is left out and counted: its key starts anew."""
        entry = Entry(self.settings)
        try:
            version, *saved = msgspec.msgpack.decode(value)
            if isinstance(version, str) and version != self.settings.version:
                self.outdated += 1
                self._changed[key] = True
                return
            entry.load(*saved)
        except (msgspec.DecodeError, TypeError, ValueError, KeyError, IndexError) as error:
            raise ValueError(f"not an entry of the anomaly stage: {error}") from error
        self._entries[key] = entry

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See Stage."""
        changed, self._changed = self._changed, {}
        for key in changed:
            entry = self._entries.get(key)
            yield key, entry.save(self.settings.version) if entry else None

    def _apply_one(self, window: HealthWindow, frozen: Frozen) -> Anomaly | None:
        key = key_of(window.tenant, window.chain, window.step, window.component)
        entry = self._entry(key, window.window_start_unix_us)
        if entry is None or window.window_start_unix_us <= entry.mark_us:
            return None
        self._changed[key] = True
        entry.mark_us = window.window_start_unix_us
        natural = measured(window)
        features = entry.pool.add(natural)
        verdict = (
            entry.ensemble.judge(features)
            if entry.learned >= self.settings.warm_up_windows
            else Verdict(0.0, [])
        )
        anomaly = self._reported(window, entry, verdict)
        if self._may_learn(entry, frozen(window), verdict.surprise >= self.settings.threshold / 2):
            entry.ensemble.learn_one(features)
            entry.pool.learn_one(natural)
            entry.learned += 1
        return anomaly

    def _may_learn(self, entry: Entry, frozen: bool, doubtful: bool) -> bool:
        """Tell whether to learn: not during an incident, nor at once from what may be the start of one."""
        entry.frozen = entry.frozen + 1 if frozen else 0
        entry.doubtful = entry.doubtful + 1 if doubtful else 0
        if frozen:
            return entry.frozen > self.settings.max_frozen_windows
        return not doubtful or entry.doubtful > self.settings.max_doubtful_windows

    def _reported(self, window: HealthWindow, entry: Entry, verdict: Verdict) -> Anomaly | None:
        """Return the anomaly if the score is high enough and new; takes note of the score in any case."""
        score = self.settings.score(verdict.surprise)
        new = entry.hold.passes(window.window_start_unix_us, score)
        entry.hold.add(window.window_start_unix_us, score)
        if verdict.surprise < self.settings.threshold or not (new or self.settings.hold_us == 0):
            return None
        return _anomaly(window, self.settings, verdict, entry.learned)

    def _entry(self, key: str, at_us: int) -> Entry | None:
        """Return the entry of a key, a fresh one for a new or long silent key, None if there are too many."""
        entry = self._entries.get(key)
        if entry is not None and entry.mark_us >= at_us - self.settings.forget_us:
            return entry
        if entry is None and not self._has_room(at_us):
            self.reached["detectors_over_limit"] += 1
            return None
        entry = self._entries[key] = Entry(self.settings)
        return entry

    def _has_room(self, at_us: int) -> bool:
        if len(self._entries) >= self.settings.max_keys and at_us > self._next_sweep_us:
            self._forget_before(at_us - self.settings.crowded_us)
        return len(self._entries) < self.settings.max_keys

    def _forget_before(self, mark_us: int) -> None:
        """Forget stale keys. Marks only grow, so nothing gets stale before the oldest one left does."""
        for key in [key for key, entry in self._entries.items() if entry.mark_us < mark_us]:
            del self._entries[key]
            self._changed[key] = True
        oldest = min((entry.mark_us for entry in self._entries.values()), default=mark_us)
        self._next_sweep_us = oldest + self.settings.crowded_us


def _anomaly(window: HealthWindow, settings: AnomalySettings, verdict: Verdict, learned: int) -> Anomaly:
    names = (window.tenant, window.chain, window.step, window.component)
    return Anomaly(
        id=derived_id("anomaly", *names, window.window_start_unix_us),
        tenant=window.tenant,
        chain=window.chain,
        step=window.step,
        component=window.component,
        window_start_unix_us=window.window_start_unix_us,
        window_end_unix_us=window.window_end_unix_us,
        score=settings.score(verdict.surprise),
        threshold=settings.score(settings.threshold),
        direction=_direction(verdict.contributions),
        features=[_feature(row) for row in verdict.contributions],
        learned_windows=learned,
        detectors_version=settings.version,
    )


def _feature(row: Contribution) -> FeatureContribution:
    return FeatureContribution(
        feature=row.feature,
        detector=row.detector,
        value=row.value,
        expected=row.expected,
        contribution=row.share,
    )


def _direction(rows: list[Contribution]) -> Literal["higher", "lower", "other"]:
    """Return higher or lower, of the strongest contribution that knows what to expect."""
    for row in rows:
        if row.expected is not None and row.value != row.expected:
            return "higher" if row.value > row.expected else "lower"
    return "other"
