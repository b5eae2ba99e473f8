"""The interface of root-cause readers: each scores components of one tenant and says why in one sentence."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from streams.graph import Graph
from streams.rootcause.memory import Context, Memory


class Finding(Struct, frozen=True):
    """What one reader holds against one component."""

    component: str
    score: float
    """ln of the odds that this component, rather than chance, made what was seen (nats)."""
    reader: str
    reason: str
    step: str = ""
    since_us: int = 0
    """Onset of the change that counted most; 0 = unknown, or before what is remembered."""


def never(context: Context, start_us: int) -> bool:
    """Return that nothing was in trouble."""
    return False


class Scene(Struct, frozen=True):
    """What a reader may look at: one tenant at one time."""

    memory: Memory
    graph: Graph
    ill: Callable[[Context, int], bool] = never
    """Was a context in trouble in the window that starts then? Such windows do not serve as a baseline."""
    hurt: tuple[str, ...] = ()
    """Components known to be hurt."""
    silent: frozenset[str] = frozenset()
    """Components that do not answer: that calls to them are missing is not their callers' doing."""


class Reader(Protocol):
    """One way to look for the cause."""

    name: str

    def read(self, scene: Scene) -> list[Finding]:
        """Return findings, at most one per component, strongest first."""


def ordered(findings: list[Finding]) -> list[Finding]:
    """Return findings strongest first, ties by name: the order must not depend on that of the input."""
    return sorted(findings, key=lambda finding: (-finding.score, finding.component))


def clock(time_us: int) -> str:
    """Return a time of day for a sentence: HH:MM:SS UTC."""
    second = time_us // 1_000_000 % 86_400
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
