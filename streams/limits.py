"""Time and size limits of ingest and health, as the core needs them: whole numbers, times in µs of event time."""

from msgspec import Struct

from streams.timers import GRANULARITY_US

SECOND = 1_000_000


class Limits(Struct, frozen=True):
    """Each bound has a stated behaviour when it is reached; the settings of the same names say it to the user."""

    window_us: int = 10 * SECOND
    lateness_us: int = 2 * SECOND
    """A window closes, and a deadline counts as missed, when the watermark is past it by this much."""
    slice_us: int = SECOND // 5
    """In steps of so much event time the analysis sees what happened: the same steps however the log is read."""
    max_held: int = 100_000
    """Slices of source partitions that wait for others to come as far; beyond it the two oldest become one."""
    grace_us: int = 300 * SECOND
    """Older events are dead-lettered; younger ones revise their window."""
    future_us: int = 10 * SECOND
    """An event further ahead of its record's broker time is dead-lettered."""
    ahead_us: int = SECOND // 2
    """One further ahead than this counts at the broker's time, and its component's clock is reported: left as it is,
    it would move everybody's watermark. Shorter than the lateness, so that what is not corrected harms nobody."""
    idle_us: int = 60 * SECOND
    """An execution without any event for so long is closed as abandoned."""
    linger_us: int = 30 * SECOND
    """A finished execution is remembered so long, for duplicates and late events."""
    max_open: int = 200_000
    """Open executions per source partition; beyond it the oldest is closed as abandoned."""
    max_finished: int = 200_000
    """Remembered finished executions per source partition; beyond it the oldest is forgotten."""
    max_steps: int = 2_000
    """Steps tracked per execution; further ones are counted in their windows only."""
    max_series: int = 50_000
    """Distinct (tenant, chain, step, component) per source partition; further ones are booked under ~overflow."""
    max_logs: int = 32
    """Distinct log statements kept per step."""
    max_evidence: int = 500_000
    """Characters of log statements, error messages and further parents per execution; more is left out."""
    skew_us: int = 10_000
    """Clocks of two services may differ by this much before their order is doubted."""

    def slice_end_us(self, watermark_us: int) -> int:
        """Return the end of the slice that a watermark is in."""
        return watermark_us - watermark_us % self.slice_us + self.slice_us

    def remembered_since_us(self, watermark_us: int) -> int:
        """Return the finishing time of the oldest execution that may still be remembered at a watermark."""
        return watermark_us - self.linger_us - self.lateness_us - GRANULARITY_US
