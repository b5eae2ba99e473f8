"""Events as ingest decodes them: msgspec Structs with the verdict of the pydantic contract in `schemas/events.py`.

A message holds one event, or an array of them.

Why twice: a Struct decodes 3 to 5 times faster than a pydantic model, and this is the one place where every event of
every service passes. A property test holds both to the same verdict on any input.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, count, repeat
from operator import add, attrgetter, itemgetter
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec
import pydantic
from msgspec import Meta, Struct

from schemas.base import YEAR_2100_UNIX_US
from schemas.events import CHAIN_EVENT

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Id = Annotated[str, Meta(min_length=1, max_length=64)]
TopicName = Annotated[str, Meta(min_length=1, max_length=249)]
Time = Annotated[int, Meta(ge=0, le=YEAR_2100_UNIX_US)]
Bytes = Annotated[int, Meta(ge=0, le=2**60)]
Message = Annotated[str, Meta(max_length=2048)]
Share = Annotated[float, Meta(ge=0, le=1e6)]
Rate = Annotated[float, Meta(ge=0, le=1e18)]
Attributes = Annotated[dict[Annotated[str, Meta(max_length=128)], str | bool | int | float], Meta(max_length=32)]


class Parent(Struct, forbid_unknown_fields=True, gc=False):
    span: Id
    execution: Id | None = None
    component: Name | None = None


class Resources(Struct, forbid_unknown_fields=True, gc=False):
    cpu_us: Time = 0
    memory_bytes: Bytes = 0
    io_wait_us: Time = 0


class ConsumedRecord(Struct, forbid_unknown_fields=True, gc=False):
    topic: TopicName
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    broker_us: Time = 0


class _Event(Struct, forbid_unknown_fields=True, gc=False, tag_field="type", kw_only=True):
    chain: Name
    execution: Id
    time_unix_us: Time
    tenant: Name = "default"
    component: Name | None = None
    id: Id | None = None
    user: Name | None = None
    tier: Name | None = None
    chain_version: Id | None = None
    traceparent: Annotated[str, Meta(max_length=128)] | None = None
    attributes: Attributes | None = None


class _StepEvent(_Event, kw_only=True):
    step: Name
    span: Id | None = None
    parents: Annotated[list[Parent], Meta(max_length=256)] | None = None
    attempt: Annotated[int, Meta(ge=1, le=10_000)] = 1


class StepStarted(_StepEvent, tag="step.started", kw_only=True):
    pass


class _EndedStep(_StepEvent, kw_only=True):
    duration_us: Time | None = None
    resources: Resources | None = None
    consumed: ConsumedRecord | None = None


class StepCompleted(_EndedStep, tag="step.completed", kw_only=True):
    pass


class StepFailed(_EndedStep, tag="step.failed", kw_only=True):
    error_type: Name
    error_message: Message | None = None
    error_category: Name | None = None


class ExecutionStarted(_Event, tag="execution.started", kw_only=True):
    pass


class ExecutionCompleted(_Event, tag="execution.completed", kw_only=True):
    duration_us: Time | None = None


class ExecutionFailed(_Event, tag="execution.failed", kw_only=True):
    error_type: Name
    duration_us: Time | None = None
    error_message: Message | None = None
    error_category: Name | None = None


class LogObserved(Struct, forbid_unknown_fields=True, gc=False, tag_field="type", tag="log.observed", kw_only=True):
    component: Name
    level: Literal["trace", "debug", "info", "warn", "error", "fatal"]
    template: Annotated[str, Meta(min_length=1, max_length=512)]
    time_unix_us: Time
    tenant: Name = "default"
    chain: Name | None = None
    execution: Id | None = None
    step: Name | None = None
    span: Id | None = None
    id: Id | None = None


class ResourceSampled(Struct, forbid_unknown_fields=True, gc=False, tag_field="type", tag="resource.sampled", kw_only=True):
    component: Name
    time_unix_us: Time
    tenant: Name = "default"
    instance: Name | None = None
    cpu_ratio: Share | None = None
    memory_ratio: Share | None = None
    memory_bytes: Bytes | None = None
    io_wait_ratio: Share | None = None
    network_receive_bytes_per_s: Rate | None = None
    network_transmit_bytes_per_s: Rate | None = None


class ClockTick(Struct, forbid_unknown_fields=True, gc=False, tag_field="type", tag="clock.tick"):
    time_unix_us: Time


StepEvent = StepStarted | StepCompleted | StepFailed
ExecutionEvent = ExecutionStarted | ExecutionCompleted | ExecutionFailed
Event = (
    StepStarted
    | StepCompleted
    | StepFailed
    | ExecutionStarted
    | ExecutionCompleted
    | ExecutionFailed
    | LogObserved
    | ResourceSampled
    | ClockTick
)


class Refused(Struct, gc=False):
    """A record that is no event: the reason names the field and never holds a value of it."""

    stage: Literal["decode", "validate", "oversize", "null", "late", "future"]
    reason: str


_UNKNOWN_TYPE = re.compile(r"^Invalid value '.*'(?= - at `\$\.type`)", re.DOTALL)
"""msgspec quotes the value here, and a reason holds no values."""

MAX_RECORD_BYTES = 262_144
"""A larger record is refused: with 32 attributes and 256 parents an event stays below a tenth of this, and an array of some
hundred events too."""
_EMPTY = Refused("validate", "the array holds no event")

_OPENING, _CLOSING, _OBJECT = frozenset(b"{["), frozenset(b"}]"), frozenset(b"{")
_BLANKS = b" \t\r\n"
_first, _last = itemgetter(0), itemgetter(-1)

_decode_lines: Callable[[bytes], list[Event | list[Event]]] = msgspec.json.Decoder(Event | list[Event]).decode_lines
_decode_one: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode
_split: Callable[[bytes], list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw]).decode
T = TypeVar("T")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPED = re.compile(rb"\\(?:[bfnrt]|u00[0-7])")
"""What may stand for a control character below U+0020, which JSON holds as an escape only."""
_ESCAPED_OR_DELETE = re.compile(rb"\\(?:[bfnrt]|u00[0-7])|\x7f")
_NAMED = (Name, Id, TopicName, Name | None, Id | None)
_NAMES: dict[type, tuple[str, ...]] = {
    kind: tuple(field for field, hint in get_type_hints(kind, include_extras=True).items() if hint in _NAMED)
    for kind in (Parent, ConsumedRecord, *get_args(Event))
}
"""The fields of each kind that the contract allows no control characters in."""
_PLACES: dict[type, str] = {Parent: "parents[...].", ConsumedRecord: "consumed."}
_texts: dict[type, Callable[[Any], Iterable[str | None]]] = {
    kind: attrgetter(*fields) if fields else lambda _: () for kind, fields in _NAMES.items()
}


class Decoded(NamedTuple):
    """What the values of a chunk hold: their events in order, refusals in their places."""

    events: list[Event | Refused]
    sizes: list[int] | None
    """How many of each value; None = one each."""

    def spread(self, of_values: list[T]) -> list[T]:
        """Return what belongs to each value once per event of it."""
        return of_values if self.sizes is None else list(chain.from_iterable(map(repeat, of_values, self.sizes)))


def decode_chunk(values: Sequence[bytes | None]) -> Decoded:
    """Return the events of the values, each an event or an array of events, and the reason in the place of each that is none.

    The whole chunk is decoded in one call, a line per value; only when that fails, value by value. The line end between a
    value that ends with } or ] and one that begins with { or [ can lie inside of no JSON: so every value holds whole
    documents, and as many documents as values mean one each.
    """
    try:
        joined = b"\n".join(values)  # type: ignore[arg-type]
        found: list[Any] = _decode_lines(joined)
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError, RecursionError):
        return _flat([decode_message(value) for value in values])
    if len(found) != len(values) or not (openings := _openings(values)):  # type: ignore[arg-type]
        return _flat([decode_message(value) for value in values])
    _refuse_controls(found, values, joined)  # type: ignore[arg-type]
    if openings == _OBJECT:
        return Decoded(found, None)
    return _flat([(events or [_EMPTY]) if type(events) is list else [events] for events in found])


def _flat(of_values: list[list[Event | Refused]]) -> Decoded:
    sizes = list(map(len, of_values))
    return Decoded(list(chain.from_iterable(of_values)), None if sizes.count(1) == len(sizes) else sizes)


def _refuse_controls(found: list[Any], values: Sequence[bytes], joined: bytes) -> None:
    """Put refusals in place of the events that hold a control character in a name or an id.

    Only values that hold an escape are looked at: a pattern on every field would cost more than decoding does.
    """
    if b"\\" not in joined and b"\x7f" not in joined:
        return
    search = _pattern(joined).search
    match = search(joined)
    if match is None:
        return
    ends = list(map(add, accumulate(map(len, values)), count(1)))
    while match is not None:
        index = bisect_right(ends, match.start())
        events = found[index]
        found[index] = list(map(_checked, events)) if type(events) is list else _checked(events)
        match = search(joined, ends[index])


def _pattern(value: bytes) -> re.Pattern[bytes]:
    return _ESCAPED_OR_DELETE if b"\x7f" in value else _ESCAPED


def _checked(event: Event) -> Event | Refused:
    """Return the event, or its refusal where a name or an id holds a control character."""
    for part in (event, *(getattr(event, "parents", None) or ()), getattr(event, "consumed", None)):
        if part is None or (text := "".join(filter(None, _texts[type(part)](part)))).isprintable():
            continue
        if _CONTROL.search(text):
            field = next(name for name in _NAMES[type(part)] if _CONTROL.search(getattr(part, name) or ""))
            return Refused("validate", f"Control character in a name or an id - at `$.{_PLACES.get(type(part), '')}{field}`")
    return event


def _openings(values: Sequence[bytes]) -> set[int]:
    """Return what the values begin with; nothing unless each begins and ends like a JSON object or array, and none is too large."""
    if min(map(len, values), default=0) == 0 or max(map(len, values)) > MAX_RECORD_BYTES:
        return set()
    openings = set(map(_first, values))
    return openings if openings <= _OPENING and set(map(_last, values)) <= _CLOSING else set()


def decode_message(value: bytes | None) -> list[Event | Refused]:
    """Return the events of one value, each or its refusal; one refusal where the value as a whole is no JSON."""
    try:
        parts = split_array(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return [Refused("decode", f"not JSON: {error}"[:512])]
    if parts is None:
        return [decode_record(value)]
    return [decode_record(part) for part in parts] or [_EMPTY]


def split_array(value: bytes | None) -> list[bytes] | None:
    """Return the events of an array as they stand in it; None where the value is no array, or is refused for its size.

    Raises msgspec.DecodeError where it is no JSON.
    """
    if value is None or len(value) > MAX_RECORD_BYTES or not value.lstrip(_BLANKS).startswith(b"["):
        return None
    return list(map(bytes, _split(value)))


def decode_record(value: bytes | None) -> Event | Refused:
    """Return the event that a value or an item of an array is, or why it is none."""
    if value is None:
        return Refused("null", "the record has no value")
    if len(value) > MAX_RECORD_BYTES:
        return Refused("oversize", f"the record has {len(value)} bytes, more than {MAX_RECORD_BYTES}")
    try:
        event = _decode_one(value)
        return event if _pattern(value).search(value) is None else _checked(event)
    except msgspec.ValidationError as error:
        refused = Refused("validate", _UNKNOWN_TYPE.sub("Unknown event type", str(error))[:512])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refused = Refused("decode", f"not JSON: {error}"[:512])
    return _decode_as_contract(value) or refused


def _decode_as_contract(value: bytes) -> Event | None:
    """Return the event that the contract sees in a record which the decoder refused; None = the contract refuses too.

    Of a key given twice the last value counts; the decoder also looks at the first.
    """
    try:
        event: Event = msgspec.convert(CHAIN_EVENT.validate_json(value).model_dump(), Event)
        return event
    except (pydantic.ValidationError, msgspec.ValidationError):
        return None
