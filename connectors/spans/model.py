"""What both readers yield, before it becomes chain events: spans, log lines and resource samples."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

AttributeValue = str | bool | int | float
Kind = Literal["", "internal", "server", "client", "producer", "consumer"]
Input = Literal["traces", "metrics", "logs"]
ALL_INPUTS: frozenset[Input] = frozenset(("traces", "metrics", "logs"))


class SpanImportError(Exception):
    """An import that cannot go on; its text is one sentence naming the file, row and field."""


class ParentRef(NamedTuple):
    """What caused a span: its parent, or a link."""

    span_id: str
    trace_id: str = ""
    """Empty: the span's own trace."""


class KafkaRecord(NamedTuple):
    """The record that a consumer span worked on."""

    topic: str
    partition: int
    offset: int


@dataclass(slots=True)
class Span:
    """One span. Times are unix nanoseconds."""

    trace_id: str
    span_id: str
    service: str
    operation: str
    start_ns: int
    end_ns: int
    parents: tuple[ParentRef, ...] = ()
    """The parent first, then the links."""
    kind: Kind = ""
    failed: bool = False
    error_type: str = ""
    error_message: str = ""
    tenant: str = ""
    user: str = ""
    attempt: int = 1
    consumed: KafkaRecord | None = None
    attributes: dict[str, AttributeValue] | None = None
    chain: str = ""
    """Of the execution, where the span itself names it; else the trace does."""
    execution: str = ""
    """Where the span names one that is not its trace: it was begun, and ends, elsewhere."""
    joins: bool = False
    """The SDK of FlowChain is among its callers."""


@dataclass(slots=True)
class LogLine:
    """One log statement of a span. Time is unix microseconds."""

    time_us: int
    service: str
    level: str
    template: str
    trace_id: str = ""
    span_id: str = ""
    identity: bytes = b""
    """Two lines with the same one are the same line; empty = never a repetition."""


@dataclass(slots=True)
class Sample:
    """What one instance used at a moment. Time is unix microseconds; None = not measured."""

    time_us: int
    service: str
    instance: str
    cpu_ratio: float | None = None
    memory_ratio: float | None = None
    memory_bytes: int | None = None
    network_receive_bytes_per_s: float | None = None
    network_transmit_bytes_per_s: float | None = None


Item = Span | LogLine | Sample


@dataclass(frozen=True)
class Options:
    """What is read, and how it is named."""

    days: frozenset[str] | None = None
    """TrainTicket: names of day folders; None = all."""
    minutes: frozenset[str] | None = None
    """TrainTicket: names HH_MM of trace and log files outside `normal`; None = all. No cut in metric rows."""
    normal: Literal["include", "exclude", "only"] = "include"
    """TrainTicket: the fault-free part of a day."""
    inputs: frozenset[Input] = ALL_INPUTS
    chain_by: Literal["root", "entry"] = "root"
    """A chain is named after the root span; `entry`: after the first span outside the root's service (for a
    gateway whose root operation is the same for everything)."""
    tenant: str = "default"
    """Where the data names none."""
    tenant_attribute: str = "tenant.id"
    """OTLP: resource attribute (else span attribute) that holds the tenant."""
    from_unix_us: int | None = None
    """Leave out executions, logs and samples that end before this moment; executions stay whole."""
    until_unix_us: int | None = None
    """Leave out executions, logs and samples that end at or after this moment."""
    strict: bool = False
    """Raise at the first row that cannot be used, instead of counting it."""
    max_items: int = 4_000_000
    """Spans, log lines and samples held in memory (about 0.6 kB each); more is an error."""


DEFAULT_OPTIONS = Options()


@dataclass
class Audit:
    """Where the readers are, and what they could not use or had to mend: nothing is left out silently."""

    strict: bool = False
    file: str = ""
    row: int = 0
    files: int = 0
    rows: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    first_seen: dict[str, str] = field(default_factory=dict)
    """Reason -> file and row of its first case."""

    def open(self, file: str) -> None:
        """Begin a file."""
        self.file, self.row = file, 0
        self.files += 1

    def where(self) -> str:
        """Return the current file and row, for messages."""
        return f"{self.file} row {self.row}"

    def skip(self, reason: str) -> None:
        """Count the current row as unusable; raises SpanImportError when strict."""
        if self.strict:
            raise SpanImportError(f"{self.where()}: {reason}.")
        self._count(self.skipped, reason, 1, self.where())

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count rows that are as they should be, but become no event (repeated, not asked for)."""
        self._count(self.skipped, reason, count, self.where())

    def repair(self, what: str, where: str = "") -> None:
        """Count something in the current row (or at another place) that was mended."""
        self._count(self.repaired, what, 1, where or self.where())

    def _count(self, counts: dict[str, int], reason: str, count: int, where: str) -> None:
        counts[reason] = counts.get(reason, 0) + count
        self.first_seen.setdefault(reason, where)


def numbered(rows: Iterator[list[str]], audit: Audit) -> Iterator[list[str]]:
    """Yield rows while keeping the audit's position."""
    for row in rows:
        audit.row += 1
        yield row


def first_text(values: Mapping[str, AttributeValue], *names: str) -> str:
    """Return the first of the named values that is there, as text, else ""."""
    for name in names:
        if (value := values.get(name)) is not None and value != "":
            return str(value)
    return ""
