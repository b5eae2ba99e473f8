"""The decoder of ingest and the contract say the same of any input, and a chunk says the same as its records."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import CHAIN_EVENT, CHAIN_MESSAGE
from streams.events import MAX_RECORD_BYTES, Decoded, Refused, decode_chunk, decode_message, decode_record, split_array

TICK = b'{"type":"clock.tick","time_unix_us":1}'


@dataclass(frozen=True)
class Token:
    """Bytes that stand in the JSON as they are, valid or not."""

    text: str

    def __repr__(self) -> str:
        return f"Token({self.text[:40]!r})"


@dataclass
class Fields:
    """A JSON object that may hold a key twice."""

    items: list[tuple[str, Any]]


def render(value: Any) -> str:
    """Return the JSON text of a value, with tokens as they are."""
    if isinstance(value, Token):
        return value.text
    if isinstance(value, Fields):
        return "{" + ",".join(f"{json.dumps(key)}:{render(item)}" for key, item in value.items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(render, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


# -- valid events -----------------------------------------------------------------------------------------------------

CONTROLS = [chr(number) for number in (*range(0x20), 0x7F)]
visible = st.characters(exclude_categories=["Cs"], exclude_characters=CONTROLS)
names = st.text(visible, min_size=1, max_size=128) | st.sampled_from(["a", "ü" * 128, "😀" * 128, "x" * 64, "\x80\x85\x9f\u2028"])
ids = st.text(visible, min_size=1, max_size=64) | st.just("😀" * 64)
times = st.integers(0, 4_102_444_800_000_000) | st.sampled_from([0, 4_102_444_800_000_000])
attribute_values = st.text(max_size=8) | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


def fields(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Fields]:
    """A JSON object, its keys in any order."""
    found = st.fixed_dictionaries(required, optional={k: v | st.none() for k, v in optional.items()})
    return found.flatmap(lambda held: st.permutations(list(held.items()))).map(Fields)


parents = st.lists(fields({"span": ids}, {"execution": ids, "component": names}), max_size=3)
resources = fields({}, {"cpu_us": times, "memory_bytes": st.integers(0, 2**60), "io_wait_us": times})
consumed = fields(
    {"topic": names, "partition": st.integers(0, 2**31 - 1), "offset": st.integers(0, 2**63 - 1)}, {"broker_us": times}
)
attributes = st.dictionaries(st.text(max_size=128), attribute_values, max_size=4).map(lambda d: Fields(list(d.items())))

EVENT = {"chain": names, "execution": ids, "time_unix_us": times}
EVENT_MORE = {
    "tenant": names, "component": names, "id": ids, "user": names, "tier": names, "chain_version": ids,
    "traceparent": st.text(max_size=128), "attributes": attributes,
}  # fmt: skip
STEP_MORE = EVENT_MORE | {"span": ids, "parents": parents, "attempt": st.integers(1, 10_000)}
ENDED_MORE = STEP_MORE | {"duration_us": times, "resources": resources, "consumed": consumed}
FAILURE = {"error_message": st.text(max_size=2048), "error_category": names}
LEVELS = st.sampled_from(["trace", "debug", "info", "warn", "error", "fatal"])
SHARES = {name: st.floats(0, 1e6) | st.integers(0, 10**6) for name in ("cpu_ratio", "memory_ratio", "io_wait_ratio")}
RATES = {f"network_{way}_bytes_per_s": st.floats(0, 1e18) for way in ("receive", "transmit")}
OBSERVED_MORE = {"tenant": names, "chain": names, "execution": ids, "step": names, "span": ids, "id": ids}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "step.started": (EVENT | {"step": names}, STEP_MORE),
    "step.completed": (EVENT | {"step": names}, ENDED_MORE),
    "step.failed": (EVENT | {"step": names, "error_type": names}, ENDED_MORE | FAILURE),
    "execution.started": (EVENT, EVENT_MORE),
    "execution.completed": (EVENT, EVENT_MORE | {"duration_us": times}),
    "execution.failed": (EVENT | {"error_type": names}, EVENT_MORE | FAILURE | {"duration_us": times}),
    "log.observed": (
        {"component": names, "level": LEVELS, "template": st.text(min_size=1, max_size=512), "time_unix_us": times},
        OBSERVED_MORE,
    ),
    "resource.sampled": (
        {"component": names, "time_unix_us": times},
        {"tenant": names, "instance": names, "memory_bytes": st.integers(0, 2**60)} | SHARES | RATES,
    ),
    "clock.tick": ({"time_unix_us": times}, {}),
}
KEYS = sorted({key for required, optional in SHAPES.values() for key in (*required, *optional)} | {"type"})
events = st.sampled_from(sorted(SHAPES)).flatmap(
    lambda kind: fields({"type": st.just(kind)} | SHAPES[kind][0], SHAPES[kind][1])
)

# -- mutations --------------------------------------------------------------------------------------------------------

BOUNDS = [0, 1, 10_000, 2**31 - 1, 2**53, 2**60, 2**63 - 1, 2**64 - 1, 10**18, 4_102_444_800_000_000]
TOKENS = ["NaN", "Infinity", "-Infinity", "-NaN", "nan", "1e400", "-1e400", "1e-400", "-0", "-0.0", "01", "+1", "1.", ".5", "1e", "1E5", "1e+2", "1.0", "5.0e0", "-", "tru", "nul", "1.7976931348623159e308", '"\\ud800"', '"\\udc00x"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\x"', '"\\u12g4"', '"\\/"', "'a'", '"a', 'b"', "{}", "[]", "[[]]", '{"span":"a"}', '[{"span":"a","x":1}]', '{"a":1,"\\u0061":2}', '{"a":null,"a":1}', '"a\\u001fb"', '"\\u007F"', '"\x7f"', '"a\\n"', '"\\t"', '"\\\\n"', '"\\u0080"', '[{"span":"\\u0001"}]', "{,}", "[1,]", '"step\\u002estarted"', "//", "/**/"]
tokens = st.sampled_from(
    [Token(text) for text in TOKENS]
    + [Token(text) for text in ('"', '"\n"', "", "[" * 300 + "]" * 300, "[" * 3000, "9" * 400, "9" * 4300, "-" + "9" * 4301)]
    + [Token(text) for text in ("0." + "0" * 400 + "1", "0.1234567890123456789012345678901234567890")]
)
edges = st.sampled_from([bound + step for bound in BOUNDS for step in (-1, 0, 1)])
lengths = st.sampled_from([0, 1, 63, 64, 65, 127, 128, 129, 249, 250, 512, 513, 2048, 2049]).map(lambda n: "é" * n)
lists = st.sampled_from([[Fields([("span", "a")]) for _ in range(n)] for n in (0, 255, 256, 257)])
maps = st.sampled_from([Fields([(f"a{i % keys}", i) for i in range(n)]) for n in (31, 32, 33) for keys in (1, 33)])
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | tokens | edges | edges.map(float) | lengths,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from(KEYS), inner), max_size=3).map(Fields),
    max_leaves=4,
)
wrong = (json_like | lists | maps | st.sampled_from(sorted(SHAPES))).map(deepcopy)
"""Copies: a later mutation may change it."""


def objects(value: Any) -> Iterator[Fields]:
    """Yield the objects of an event, the event first."""
    if isinstance(value, Fields):
        yield value
    for item in [item for _, item in value.items] if isinstance(value, Fields) else value if isinstance(value, list) else []:
        yield from objects(item)


@st.composite
def mutated(draw: Callable[..., Any]) -> bytes:
    """A valid event after some mutations, as bytes, some of which may be no JSON."""
    event = draw(events)
    for _ in range(draw(st.integers(0, 3))):
        mutate(draw, draw(st.sampled_from(list(objects(event)))).items)
    return spoil(draw, render(event).encode("utf-8", "surrogatepass"))


def mutate(draw: Callable[..., Any], items: list[tuple[str, Any]]) -> None:
    """Take a field away, change it, add one, or give one twice with a value before or after."""
    index = draw(st.integers(0, max(len(items) - 1, 0)))
    match draw(st.sampled_from(["remove", "change", "add", "twice"])):
        case "remove":
            del items[index : index + 1]
        case "change" if items:
            items[index] = (items[index][0], draw(wrong))
        case "twice" if items:
            items.insert(draw(st.integers(0, len(items))), (items[index][0], draw(wrong | st.just(items[index][1]).map(deepcopy))))
        case _:
            items.insert(index, (draw(st.sampled_from(KEYS) | st.text(max_size=3)), draw(wrong)))


def spoil(draw: Callable[..., Any], value: bytes) -> bytes:
    """Mostly leave the bytes; else cut them, surround them, or put bytes inside."""
    match draw(st.integers(0, 9)):
        case 0:
            return value[: draw(st.integers(0, len(value)))]
        case 1:
            ends = st.sampled_from([b"", b" ", b"\n", b"\r\n\t", b"\x0c", b"\0", b"\xef\xbb\xbf", b"[", b"]", b"{}", b","])
            return bytes(draw(ends) + value + draw(ends))
        case 2:
            at = draw(st.integers(0, len(value)))
            inside = st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\n", b"\0", b"\x7f", b" ", b'"', b"\\", b"}"])
            return bytes(value[:at] + draw(inside) + value[at:])
        case _:
            return value


# -- the properties ---------------------------------------------------------------------------------------------------


def contract(value: bytes) -> dict[str, Any] | None:
    """Return the fields that the contract sees, None when it refuses."""
    try:
        return CHAIN_EVENT.validate_json(value).model_dump()
    except pydantic.ValidationError:
        return None


def ingest(value: bytes) -> dict[str, Any] | None:
    """Return the fields that ingest sees, None when it refuses."""
    event = decode_record(value)
    return None if isinstance(event, Refused) else dict(msgspec.to_builtins(event))


def agree(value: bytes) -> dict[str, Any] | None:
    """Hold both to the same verdict and the same values; compared as text, for -0.0 and 1 against 1.0 or true."""
    expected, seen = contract(value), ingest(value)
    assert ordered(seen) == ordered(expected)
    return seen


def without_nulls(value: Any) -> Any:
    if isinstance(value, Fields):
        return Fields([(key, without_nulls(item)) for key, item in value.items if item is not None])
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def ordered(value: dict[str, Any] | None) -> str:
    return repr(value and sorted(value.items()))


@settings(max_examples=100, deadline=None)
@given(events)
def test_every_valid_event_is_accepted_with_the_same_values(event: Fields) -> None:
    agree(render(event).encode())  # null stands where the contract takes a null, and where it does not
    assert agree(render(without_nulls(event)).encode())


@settings(max_examples=400, deadline=None)
@given(mutated().filter(lambda value: len(value) < 7_000))
def test_any_mutated_event_gets_the_same_verdict(value: bytes) -> None:
    agree(value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40) | json_like.map(render).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_other_input_gets_the_same_verdict(value: bytes) -> None:
    agree(value)


REFUSED = {
    "a number as a name": b'{"type":"execution.started","chain":5,"execution":"e","time_unix_us":1}',
    "a whole float as a time": b'{"type":"clock.tick","time_unix_us":1.0}',
    "a true time": b'{"type":"clock.tick","time_unix_us":true}',
    "NaN as an attribute": b'{"type":"execution.started","chain":"c","execution":"e","time_unix_us":1,"attributes":{"a":NaN}}',
    "an infinite attribute": b'{"type":"execution.started","chain":"c","execution":"e","time_unix_us":1,"attributes":{"a":1e400}}',
    "two events": TICK + TICK,
    "half a surrogate pair": b'{"type":"execution.started","chain":"\\ud800","execution":"e","time_unix_us":1}',
    "a separator of keys in a name": b'{"type":"execution.started","chain":"a\\u001fb","execution":"e","time_unix_us":1}',
    "a line break at the end of an id": b'{"type":"execution.started","chain":"c","execution":"e\\n","time_unix_us":1}',
    "DEL as it is in a name": b'{"type":"execution.started","chain":"c\x7f","execution":"e","time_unix_us":1}',
    "a byte order mark": b"\xef\xbb\xbf" + TICK,
    "nothing": b"",
    "null": b"null",
    "too deep, before its type": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"type":"clock.tick","time_unix_us":1}',
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_both_refuse(value: bytes) -> None:
    assert agree(value) is None


LAST_COUNTS = {
    "a time twice": b'{"type":"clock.tick","time_unix_us":2,"time_unix_us":1}',
    "a wrong time before the right one": b'{"type":"clock.tick","time_unix_us":"soon","time_unix_us":1}',
    "an unknown type before the right one": b'{"type":"clock.tock","type":"clock.tick","time_unix_us":1}',
    "another type before the right one": b'{"type":"step.failed","type":"clock.tick","time_unix_us":1}',
    "NaN before the right time": b'{"type":"clock.tick","time_unix_us":NaN,"time_unix_us":1}',
}


@pytest.mark.parametrize("value", LAST_COUNTS.values(), ids=LAST_COUNTS)
def test_of_a_key_given_twice_the_last_value_counts(value: bytes) -> None:
    assert agree(value) == {"type": "clock.tick", "time_unix_us": 1}


STEP = {"type": "step.failed", "chain": "c", "execution": "e", "step": "s", "time_unix_us": 1, "error_type": "Boom"}
NAMED = ("chain", "execution", "tenant", "component", "id", "user", "tier", "chain_version", "step", "span", "error_type")
PLACES = {name: STEP | {name: "%"} for name in NAMED} | {
    "parents[...].span": STEP | {"parents": [{"span": "a"}, {"span": "%"}]},
    "parents[...].execution": STEP | {"parents": [{"span": "a", "execution": "%"}]},
    "parents[...].component": STEP | {"parents": [{"span": "a", "component": "%"}]},
    "consumed.topic": STEP | {"consumed": {"topic": "%", "partition": 0, "offset": 0}},
    "instance": {"type": "resource.sampled", "component": "c", "time_unix_us": 1, "instance": "%"},
}


@pytest.mark.parametrize("place", PLACES)
def test_no_name_and_no_id_holds_a_control_character(place: str) -> None:
    value = json.dumps(PLACES[place])
    assert agree(value.encode()) is not None
    for character in CONTROLS:
        bad = value.replace("%", json.dumps(f"x{character}y")[1:-1]).encode()
        assert agree(bad) is None
        refused = decode_chunk([TICK, bad, TICK]).events[1]
        assert isinstance(refused, Refused)
        assert (refused.stage, f"`$.{place}`" in refused.reason) == ("validate", True)


@pytest.mark.parametrize("field", ["error_message", "traceparent"])
def test_texts_may_hold_control_characters(field: str) -> None:
    value = json.dumps(STEP | {field: "".join(CONTROLS)}).encode()
    assert agree(value) is not None
    assert decode_chunk([value, TICK]).events == [decode_record(value), decode_record(TICK)]


def test_only_the_size_limit_is_the_decoders_own() -> None:
    assert ingest(TICK.ljust(MAX_RECORD_BYTES)) is not None
    assert decode_record(TICK.ljust(MAX_RECORD_BYTES + 1)) == decode_chunk([TICK.ljust(MAX_RECORD_BYTES + 1)]).events[0]
    assert isinstance(decode_record(TICK.ljust(MAX_RECORD_BYTES + 1)), Refused)


# -- chunks -----------------------------------------------------------------------------------------------------------

pieces = st.sampled_from([TICK, TICK, TICK, b"", b" ", b"\n", TICK[:10], TICK[10:], TICK[:22], TICK[22:], b"}", b"{", b"[", b"null"])
joined = st.lists(pieces, max_size=4).map(b"".join) | st.lists(pieces, max_size=3).map(b"\n".join)
arrays = st.lists(joined | st.just(TICK), max_size=4).map(lambda items: b"[%b]" % b",".join(items))
spoiled = mutated().filter(lambda value: len(value) < 1_200)
"""Slow to draw: one a chunk is enough; what stands around it is what matters."""


@st.composite
def chunks(draw: Callable[..., Any]) -> list[bytes | None]:
    """The values of a few records: pieces of events, arrays, none, and a spoiled event, alone and in an array, among them."""
    values = draw(st.lists(joined | arrays | st.none() | st.just(TICK) | st.just(b"[%b,%b]" % (TICK, TICK)), max_size=6))
    if draw(st.booleans()):
        value = draw(spoiled)
        values.insert(draw(st.integers(0, len(values))), draw(st.sampled_from([value, b"[%b,%b]" % (TICK, value)])))
    return values


def one_by_one(values: list[bytes | None]) -> Decoded:
    """What a chunk holds, each value decoded alone."""
    found = [decode_message(value) for value in values]
    sizes = [len(events) for events in found]
    return Decoded([event for events in found for event in events], None if set(sizes) <= {1} else sizes)


@settings(max_examples=400, deadline=None)
@given(chunks())
def test_a_chunk_says_what_its_records_say(values: list[bytes | None]) -> None:
    assert repr(decode_chunk(values)) == repr(one_by_one(values))


COMPENSATING = {
    "two arrays in one record, none in the next": [b"[%b][%b]" % (TICK, TICK), b""],
    "half of an array each": [b"[" + TICK, TICK + b"]"],
    "an empty array beside an event": [b"[]" + TICK, TICK],
    "two events in one record, none in the next": [TICK + TICK, b""],
    "none in one record, two in the next": [b"", TICK + b" " + TICK],
    "one event over two records, two in the third": [TICK[:22], TICK[22:], TICK + TICK],
    "lines in one record, none in the next": [TICK + b"\n" + TICK, b""],
    "lines in one record, blanks in the next": [TICK + b"\n" + TICK, b" ", TICK],
    "halves that meet": [TICK[:22], TICK[22:] + TICK],
}


@pytest.mark.parametrize("values", COMPENSATING.values(), ids=COMPENSATING)
def test_records_that_make_up_for_each_other_are_refused_each(values: list[bytes]) -> None:
    assert decode_chunk(values) == one_by_one(values)


def test_a_chunk_of_indented_events_is_decoded_as_a_whole() -> None:
    value = b'{\n  "type": "clock.tick",\n  "time_unix_us": 1\n}'
    assert [type(event).__name__ for event in decode_chunk([value, TICK, value]).events] == ["ClockTick"] * 3


# -- arrays -----------------------------------------------------------------------------------------------------------


def is_json(value: bytes) -> bool:
    """Tell whether a value is one JSON document that keeps its bounds inside of an array."""
    try:
        return split_array(b"[%b]" % value) is not None and len(split_array(b"[%b]" % value) or ()) == 1
    except (ValueError, RecursionError):
        return False


@settings(max_examples=300, deadline=None)
@given(st.lists(mutated().filter(lambda value: len(value) < 2_000 and is_json(value)), min_size=1, max_size=5))
def test_an_array_says_what_its_events_say_one_per_record(values: list[bytes]) -> None:
    packed = b"[%b]" % b",".join(values)
    expected = [decode_record(value) for value in values]
    assert repr(decode_chunk([packed]).events) == repr(expected)
    assert repr(decode_chunk([packed, TICK, packed]).events) == repr([*expected, decode_record(TICK), *expected])
    assert accepted(packed) == all(not isinstance(event, Refused) for event in expected)


def accepted(packed: bytes) -> bool:
    """Tell whether the contract takes an array as it is."""
    try:
        CHAIN_MESSAGE.validate_json(packed)
    except pydantic.ValidationError:
        return False
    return True


def test_a_refused_event_of_an_array_costs_no_other() -> None:
    events = decode_chunk([b'[%b, {"type":"x"}, %b]' % (TICK, TICK), TICK])
    assert [type(event).__name__ for event in events.events] == ["ClockTick", "Refused", "ClockTick", "ClockTick"]
    assert events.sizes == [3, 1]
    assert events.spread([7, 8]) == [7, 7, 7, 8]


REFUSED_AS_A_WHOLE = {
    "an empty array": (b"[ ]", "validate"),
    "no JSON": (b"[%b, {]" % TICK, "decode"),
    "cut": (b"[%b," % TICK, "decode"),
    "something behind it": (b"[%b] %b" % (TICK, TICK), "decode"),
    "oversize": ((b"[%b]" % TICK).ljust(MAX_RECORD_BYTES + 1), "oversize"),
}


@pytest.mark.parametrize(("value", "stage"), REFUSED_AS_A_WHOLE.values(), ids=REFUSED_AS_A_WHOLE)
def test_an_array_is_refused_as_a_whole(value: bytes, stage: str) -> None:
    decoded = decode_chunk([TICK, value])
    assert decoded.sizes is None
    assert [getattr(event, "stage", None) for event in decoded.events] == [None, stage]


def test_an_array_in_an_array_is_no_event() -> None:
    decoded = decode_chunk([b"[[%b],%b]" % (TICK, TICK)])
    assert [getattr(event, "stage", None) for event in decoded.events] == ["validate", None]
