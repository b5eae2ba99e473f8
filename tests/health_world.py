"""Health windows straight from partials, for tests: slices put them in order, and moments come when they are due."""

from collections.abc import Iterator
from typing import Any

from schemas.internal import Delta, EdgeDelta, Partial, Slice
from streams.health import Closed, HealthStage
from streams.limits import Limits
from streams.slices import SliceStage


def piece(
    partition: int, watermark_us: int, deltas: list[Delta], edges: list[EdgeDelta], end_us: int = 0, **more: Any
) -> Partial:
    """A partial of one slice, which ends at `end_us`, or where the partition's watermark is."""
    slices = [Slice(end_us or watermark_us, deltas, edges)] if deltas or edges else []
    return Partial("events", partition, watermark_us, 99, slices, **more)


class Health:
    """The two stages, one behind the other."""

    def __init__(self, limits: Limits) -> None:
        self.slices = SliceStage(limits)
        self.health = HealthStage(limits)

    @property
    def watermark_us(self) -> int:
        return self.slices.watermark_us

    @property
    def open_windows(self) -> int:
        return self.health.open_windows

    def apply(self, partial: Partial) -> Closed:
        """All that came of one partial."""
        self.slices.take(partial)
        found = Closed(0, "")
        while (moment := self.slices.next(self.health.due_us)) is not None:
            closed = self.health.apply(moment)
            for name in ("windows", "dependencies", "violations", "losses"):
                getattr(found, name).extend(getattr(closed, name))
        return found

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        for name, stage in (("slices", self.slices), ("health", self.health)):
            yield from ((f"{name}/{key}", value) for key, value in stage.changes())

    def restore(self, key: str, value: bytes) -> None:
        name, _, rest = key.partition("/")
        (self.slices if name == "slices" else self.health).restore(rest, value)
