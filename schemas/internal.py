"""Records between our own stages: batches, encoded with msgspec because ingest writes them in its hot path.

`flowchain.partials.v1` holds Partials, `flowchain.traces.v1` TraceBatches, `flowchain.executions.open.v1` the state of
executions (Execution) that were open at a commit, plus one PartitionState per partition. Fields at their default are left out of the JSON.
"""

import msgspec

COMPLETED, FAILED, STARTED, HEARD_OF = "completed", "failed", "started", "heard_of"
"""Status of a step. heard_of: only log statements told of it so far."""
OPEN_EXECUTION, KNOWN_SERIES, KNOWN_EDGE = "e", "s", "d"
"""First part of the keys of `flowchain.executions.open.v1`; the other parts say which (`streams.ids.key_of`)."""
PARTITION_STATE = b"p"
"""Key of the partition's own state there."""


class Delta(msgspec.Struct, omit_defaults=True, gc=False):
    """What one slice of a transaction adds to one window of one key; every field is additive, or a maximum, or evidence.

    Key: (tenant, chain, step, component, window_start_unix_us). "" as in HealthWindow.
    """

    tenant: str
    chain: str
    step: str
    component: str
    window_start_unix_us: int
    first_offset: int
    last_offset: int
    events: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    duration_sum_us: int = 0
    duration_max_us: int = 0
    durations: dict[int, int] = {}
    cpu_us: int = 0
    io_wait_us: int = 0
    memory_max_bytes: int = 0
    broker_count: int = 0
    broker_sum_us: int = 0
    broker_max_us: int = 0
    violations: dict[str, int] = {}
    first_violation_unix_us: int = 0
    """Event time of the earliest violation; 0 = none."""
    affected_executions: int = 0
    """Executions whose first violation was booked here."""
    affected: list[str] = []
    """Some of them."""
    users: list[str] = []
    """Some users of theirs."""
    units: int = 0
    """Handlings of one call by the component that began with this step (root-cause contexts)."""
    clean_units: int = 0
    """Units without an error in them or below them."""
    indicators: dict[str, int] = {}
    """Units in which an event was present, per event (`streams/units.py` names them)."""
    own: dict[int, int] = {}
    """Histogram of the units' own time: without the time spent waiting for callees."""
    gap: dict[int, int] = {}
    """Histogram of the edge gap: the caller's client span minus this unit; charged to this, the callee's, context."""
    samples: dict[str, tuple[int, int, float]] = {}
    """Resource samples: (count, sum, maximum) per resource; the sum in millionths for ratios, else in whole units."""


class EdgeDelta(msgspec.Struct, omit_defaults=True, gc=False):
    """What one slice of a transaction adds to one edge of the dependency graph in one window; fields as in DependencyWindow.

    A count of 0: only declared by a definition, at window start 0, with "" for the end that it does not name.
    """

    tenant: str
    chain: str
    kind: str
    source: str
    target: str
    topic: str
    window_start_unix_us: int
    count: int = 0
    failed: int = 0
    latency_sum_us: int = 0
    latency_max_us: int = 0


class Slice(msgspec.Struct, omit_defaults=True):
    """What one transaction adds to a stretch of event time, of the fixed length `Limits.slice_us`.

    Everything here came while the source partition's watermark was in the stretch, so the slices of a partition hold
    the same in the end however its log was cut into transactions. It is complete once the watermark has reached its end.
    """

    end_unix_us: int
    deltas: list[Delta] = []
    edges: list[EdgeDelta] = []


class Partial(msgspec.Struct, omit_defaults=True):
    """One transaction's additions from one source partition, for the tenants of one partition of the partials topic.

    Sent to every partition of the partials topic, also when it adds nothing, because it carries the watermark.
    """

    source_topic: str
    source_partition: int
    watermark_unix_us: int
    """No event older than this minus the allowed lateness is expected any more from the source partition."""
    last_offset: int
    slices: list[Slice] = []
    """Oldest first."""
    waiting_for: list[int] = []
    """Source partitions that hold records nobody has read yet: no window may close before they report."""
    idle: bool = False
    """The source partition was read to its end and holds no event: it holds no window back."""


class Step(msgspec.Struct, omit_defaults=True, gc=False):
    """One run of a step in an execution."""

    span: str
    step: str
    component: str
    offset: int
    attempt: int = 1
    parents: list[tuple[str, str, str]] = []
    """(span, execution or "", component or "")."""
    status: str = STARTED
    start_us: int = 0
    """Event time; 0 = unknown."""
    end_us: int = 0
    duration_us: int = 0
    saw_started: bool = False
    id: str = ""
    error_type: str = ""
    error_message: str = ""
    cpu_us: int = 0
    memory_bytes: int = 0
    io_wait_us: int = 0
    topic: str = ""
    """The Kafka record it consumed: topic, partition, offset, time in the broker."""
    topic_partition: int = 0
    topic_offset: int = 0
    broker_us: int = 0
    logs: list[str] = []
    """Distinct log statements, `LEVEL template`."""


class Execution(msgspec.Struct, omit_defaults=True, gc=False):
    """One run of a chain, as ingest knows it."""

    tenant: str
    chain: str
    execution: str
    first_offset: int
    last_offset: int
    user: str = ""
    tier: str = ""
    chain_version: str = ""
    status: str = "open"
    """open, completed, failed, incomplete (a declared step never came), abandoned (silence)."""
    start_us: int = 0
    """Event time of its first event's beginning."""
    last_us: int = 0
    """Event time of its last event."""
    ended_us: int = 0
    """Event time of execution.completed or execution.failed; 0 = not seen."""
    duration_us: int = 0
    component: str = ""
    error_type: str = ""
    error_message: str = ""
    steps: dict[str, Step] = {}
    pending: int = 0
    """Steps begun and not ended."""
    missing: list[str] = []
    """Declared steps reported as step.missing."""
    ends: dict[str, int] = {}
    """Event time at which each declared step last ended."""
    violations: int = 0
    saw: int = 0
    """Bits of the execution events seen: 1 started, 2 completed, 4 failed."""
    revision: int = 0
    finished_us: int = 0
    """The partition's watermark when it was finished; 0 = open."""
    ordinal: int = 0
    """How many executions had begun in its first record before it: a record may hold several events."""
    evidence: int = 0
    """How much it keeps of what only has a bound in sum: see `streams/evidence.py`."""


class PartitionState(msgspec.Struct, omit_defaults=True):
    """What ingest knows of a source partition beside its executions, as of a commit."""

    watermark_unix_us: int
    next_offset: int
    clock_unix_us: int = 0
    """The watermark when the last record that is no clock.tick came; a tick's time goes on from here."""
    clock_broker_us: int = 0
    """The broker's time of that record."""
    trace_batches: int = 0
    """How many trace batches of the partition were published."""
    recent_records: int = 0
    """How many of the worker's last records, over which the share of refused ones is limited, are the partition's."""
    recent_refused: int = 0
    """How many of them were refused."""


class TraceBatch(msgspec.Struct, omit_defaults=True):
    """Executions finished (or changed after they had been) in one transaction; partition = the source's."""

    source_topic: str
    source_partition: int
    watermark_unix_us: int
    executions: list[Execution]
    number: int = 0
    """Counts the batches of the source partition, from 1: whoever takes over sees whether one is still hidden."""
