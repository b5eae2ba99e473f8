"""Golden examples: every one is what its model, its JSON Schema and the decoders say it is."""

import base64
import functools
import json
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pydantic
import pytest
from jsonschema import Draft202012Validator

from schemas.base import Record
from schemas.events import CHAIN_EVENT, CHAIN_MESSAGE
from schemas.generate import MODELS, SERIES_MARK, STRUCTS, json_schema
from schemas.topics import CATALOGUE, DEFINITIONS, EVENTS, Topic
from streams.events import Refused, decode_chunk, decode_message

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"
TOPICS = {topic.name: topic for topic in CATALOGUE}
GOOD = sorted(path for path in EXAMPLES.glob("*/*.json") if path.parent.name != "invalid")
BAD = {topic.name: sorted((EXAMPLES / "invalid" / topic.name).glob("*.json")) for topic in (EVENTS, DEFINITIONS)}


@functools.cache
def validator(topic: str) -> Draft202012Validator:
    return Draft202012Validator(json_schema(TOPICS[topic]))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def events() -> list[Path]:
    return [path for path in GOOD if path.parent.name == EVENTS.name]


def structs(path: Path) -> Any:
    """Return the one of a topic's structs that an example is: the one that knows all its fields."""
    fields = set(json.loads(path.read_bytes()))
    return next(kind for kind in STRUCTS[path.parent.name] if fields <= set(kind.__struct_fields__))


@pytest.mark.parametrize("path", GOOD, ids=name)
def test_example_fits_the_json_schema(path: Path) -> None:
    validator(path.parent.name).validate(json.loads(path.read_bytes()))


@pytest.mark.parametrize("path", [path for path in GOOD if path.parent.name in MODELS], ids=name)
def test_example_of_a_model_survives_encoding_and_decoding(path: Path) -> None:
    adapter, value = MODELS[path.parent.name], path.read_bytes()
    record = adapter.validate_json(value)
    assert adapter.validate_json(encoded(record)) == record
    assert leaves(json.loads(value)) <= leaves(json.loads(encoded(record)))


def encoded(record: Record | list[Record]) -> bytes:
    """Return a record as it is published; an attribute beyond 64 bits is more than orjson takes."""
    if isinstance(record, list):
        return b"[" + b",".join(map(encoded, record)) + b"]"
    assert isinstance(record, Record)
    try:
        return record.encode()
    except orjson.JSONEncodeError:
        return record.model_dump_json(exclude_none=True).encode()


def leaves(value: Any, path: str = "") -> set[str]:
    """Return the leaves of a value with their paths, null left out."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {leaf for key, item in items for leaf in leaves(item, f"{path}/{key}")}
    return set() if value is None else {f"{path}={float(value) if isinstance(value, int | float) else value}"}


@pytest.mark.parametrize("path", [path for path in GOOD if path.parent.name in STRUCTS], ids=name)
def test_example_of_a_struct_survives_encoding_and_decoding(path: Path) -> None:
    value = path.read_bytes()
    if json.loads(value) == SERIES_MARK["const"]:
        return  # no struct: the key says all
    record = msgspec.json.decode(value, type=structs(path))
    assert json.loads(msgspec.json.encode(record)) == json.loads(value)


@pytest.mark.parametrize("path", events(), ids=name)
def test_example_event_is_read_alike_by_ingest(path: Path) -> None:
    events = decode_message(path.read_bytes())
    seen = CHAIN_MESSAGE.validate_json(path.read_bytes())
    assert msgspec.to_builtins(events) == [event.model_dump() for event in (seen if isinstance(seen, list) else [seen])]


def test_all_example_events_are_read_as_one_chunk() -> None:
    values = [json.dumps(json.loads(path.read_bytes())).encode() for path in events()]
    assert decode_chunk(values).events == [event for value in values for event in decode_message(value)]


def raw(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of an invalid record, and the file that expects its refusal."""
    case = json.loads(path.read_bytes())
    if "base64" in case:
        return base64.b64decode(case["base64"]), case
    return (case["text"].encode() if "text" in case else json.dumps(case["record"]).encode()), case


@pytest.mark.parametrize("path", BAD[EVENTS.name], ids=name)
def test_invalid_event_is_refused_by_the_contract_and_by_ingest(path: Path) -> None:
    value, case = raw(path)
    with pytest.raises(pydantic.ValidationError):
        CHAIN_MESSAGE.validate_json(value)
    refused = next(event for event in decode_message(value) if isinstance(event, Refused))
    assert isinstance(refused, Refused)
    assert refused.stage == case["stage"]
    assert case["reason"] in refused.reason
    assert decode_chunk([b'{"type":"clock.tick","time_unix_us":1}', value]).events[1:] == decode_message(value)


@pytest.mark.parametrize("path", [path for path in BAD[EVENTS.name] if "record" in json.loads(path.read_bytes())], ids=name)
def test_invalid_event_is_refused_by_the_json_schema(path: Path) -> None:
    assert not validator(EVENTS.name).is_valid(json.loads(raw(path)[0]))


@pytest.mark.parametrize("path", BAD[DEFINITIONS.name], ids=name)
def test_invalid_definition_is_refused_with_the_reason(path: Path) -> None:
    value, case = raw(path)
    with pytest.raises(pydantic.ValidationError, match=case["reason"]):
        MODELS[DEFINITIONS.name].validate_json(value)


@pytest.mark.parametrize("topic", [topic for topic in CATALOGUE if topic.public], ids=lambda topic: topic.name)
def test_public_topic_has_examples(topic: Topic) -> None:
    assert [path for path in GOOD if path.parent.name == topic.name], f"schemas/examples/{topic.name} holds no example"


def test_every_kind_of_event_has_an_example() -> None:
    values = (json.loads(path.read_bytes()) for path in events())
    kinds = {event["type"] for value in values for event in (value if isinstance(value, list) else [value])}
    assert kinds == set(CHAIN_EVENT.json_schema()["discriminator"]["mapping"])


def test_no_example_belongs_to_no_topic() -> None:
    folders = {path.parent.name for path in EXAMPLES.rglob("*.json")}
    assert folders <= set(TOPICS)
