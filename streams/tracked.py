"""What ingest holds of an execution, and what one transaction has to say."""

import msgspec
from mypy_extensions import mypyc_attr

from schemas import internal
from schemas.internal import Slice
from schemas.violations import Violation
from streams.booking import Chain, KnownEdge, SeriesKey
from streams.rules import ChainRules
from streams.runs import Execution
from streams.timers import NEVER_US

ExecutionKey = tuple[str, str]
"""(tenant, execution id)"""
RunKey = tuple[int, int]
"""(first offset, ordinal): an execution that comes again after it was forgotten is another one."""


@mypyc_attr(acyclic=True)
class Tracked:
    """An execution that is open or remembered, and what is known of it beside what is published.

    Most are remembered and never heard of again. So one that is finished rests as the bytes that were published of it, half
    of what it takes as objects, and becomes objects again when it is asked for.
    """

    __slots__ = (
        "_execution", "_record", "armed_us", "chain", "finished_us", "in_order", "key", "logged", "run", "touched",
    )  # fmt: skip

    def __init__(self, key: ExecutionKey, execution: Execution, chain: Chain) -> None:
        self._execution: Execution | None = execution
        self._record = b""
        self.key = key
        self.run: RunKey = (execution.first_offset, execution.ordinal)
        self.finished_us = execution.finished_us
        """The watermark when it was finished; 0 = open."""
        self.chain = chain
        self.armed_us = NEVER_US
        """Event time at which an open one is looked at next."""
        self.in_order = True
        """So far every step of it came once, and began after those before it had ended."""
        self.logged = False
        """It stands in the changelog; kept by the shell that writes it."""
        self.touched = False
        """It is among `Output.touched`."""

    @property
    def execution(self) -> Execution:
        """Itself, as far as it is known."""
        execution = self._execution
        if execution is None:
            execution = self._execution = Execution.of(msgspec.json.decode(self._record, type=internal.Execution))
        return execution

    def rest(self, record: bytes = b"") -> None:
        """Keep a finished execution as its record: that which has just been published, or the one before if it has not changed."""
        self._record = record or self._record
        if self._record:
            self._execution = None

    @property
    def rules(self) -> ChainRules | None:
        """The rules that the execution is held to; None = followed as observed."""
        versions = self.chain.rules
        if not versions:
            return None
        start_us = self.execution.start_us
        for rules in versions:
            if rules.effective_from_us <= start_us:
                return rules
        return None


class Output:
    """What one transaction has to say about one source partition."""

    def __init__(self) -> None:
        self.slices: list[Slice] = []
        """What it adds to the windows, cut where the watermark passed a multiple of `Limits.slice_us`."""
        self.violations: list[Violation] = []
        self.finished: dict[RunKey, Tracked] = {}
        """In the order in which they finished; also those that changed after that."""
        self.touched: list[Tracked] = []
        """Executions that may have changed."""
        self.new_series: list[SeriesKey] = []
        self.new_edges: list[KnownEdge] = []
        self.told: set[str] = set()
        """Ids of the cardinality.exceeded that were said."""
        self.counts: dict[str, int] = {}

    def count(self, name: str) -> None:
        """Add one to a counter."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def touch(self, tracked: Tracked) -> None:
        """Note that an execution may have changed."""
        if not tracked.touched:
            tracked.touched = True
            self.touched.append(tracked)
