"""All readers together: suspects with probabilities and one sentence each, or none where the evidence is thin."""

from collections.abc import Sequence
from math import exp

import msgspec
from msgspec import Struct

from schemas.analysis import Suspect
from streams.rootcause.base import Finding, Reader, Scene
from streams.rootcause.executions import ExecutionReader
from streams.rootcause.faults import FaultReader
from streams.rootcause.silence import unanswering
from streams.rootcause.windows import WindowReader


class RankingSettings(Struct, frozen=True):
    """How findings become probabilities."""

    cap: float = 25.0
    """Most that one reader may say against a component (nats): beyond it, it is sure."""
    least: float = 6.0
    """Below this total nobody is named; it is also the weight of "none of these"."""
    temperature: float = 3.0
    """Nats per e-fold of probability: readers look at the same units, so their sum is over-confident."""
    max_suspects: int = 5
    min_probability: float = 0.01


DEFAULTS = RankingSettings()


class Ranking:
    """Adds up what the readers found."""

    def __init__(self, readers: Sequence[Reader] | None = None, settings: RankingSettings = DEFAULTS) -> None:
        self._readers = readers if readers is not None else (FaultReader(), ExecutionReader(), WindowReader())
        self._settings = settings

    def suspects(self, scene: Scene) -> list[Suspect]:
        """Return the suspects, most likely first; empty when the evidence is thin."""
        scene = msgspec.structs.replace(scene, silent=frozenset(unanswering(scene).silent))
        findings: dict[str, list[Finding]] = {}
        for reader in self._readers:
            for finding in reader.read(scene):
                if finding.component:
                    findings.setdefault(finding.component, []).append(finding)
        totals = {name: self._total(found) for name, found in findings.items()}
        strong = {name: total for name, total in totals.items() if total >= self._settings.least}
        if not strong:
            return []
        odds = {name: exp((total - max(strong.values())) / self._settings.temperature) for name, total in strong.items()}
        whole = sum(odds.values()) + exp((self._settings.least - max(strong.values())) / self._settings.temperature)
        order = sorted(strong, key=lambda name: (-strong[name], name))
        named = [_suspect(findings[name], strong[name], odds[name] / whole) for name in order]
        return [s for s in named if s.probability >= self._settings.min_probability][: self._settings.max_suspects]

    def _total(self, findings: list[Finding]) -> float:
        return sum(min(self._settings.cap, finding.score) for finding in findings)


def _suspect(findings: list[Finding], total: float, probability: float) -> Suspect:
    best = max(findings, key=lambda finding: finding.score)
    step = best.step or next((finding.step for finding in findings if finding.step), "")
    return Suspect(
        component=best.component,
        step=step,
        score=round(total, 3),
        probability=round(min(1.0, probability), 4),
        reader=best.reader,
        reason=best.reason[:512],
    )


def blend(before: Sequence[dict[str, object]], now: Sequence[Suspect], weight: float, settings: RankingSettings) -> list[Suspect]:
    """Return suspects whose probabilities keep `weight` of what was believed before; words are the newest."""
    believed = {suspect.component: suspect for suspect in map(Suspect.model_validate, before)}
    seen = {suspect.component: suspect for suspect in now}
    mixed = []
    for name in believed.keys() | seen.keys():
        old = believed[name].probability if name in believed else 0.0
        new = seen[name].probability if name in seen else 0.0
        probability = round(weight * old + (1 - weight) * new, 4)
        if probability >= settings.min_probability:
            suspect = seen[name] if name in seen else believed[name]
            mixed.append(suspect.model_copy(update={"probability": probability}))
    return sorted(mixed, key=lambda suspect: (-suspect.probability, suspect.component))[: settings.max_suspects]
