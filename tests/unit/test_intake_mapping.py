"""Mapping files: what records become, which are refused and why, and where a file is wrong."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.definition_files import FilesRefused
from connectors.intake.bridges import mapped
from connectors.intake.mapping import Mapper, read_mappings
from connectors.intake.records import judge, read_lines
from schemas.events import CHAIN_EVENT

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "mapping.yaml"
RECORD_US = 1_790_000_000_000_000
ORDER = {"id": 4711, "customer": "c1", "shop": "acme", "total": 12.5}


def mapper(tmp_path: Path, text: str) -> Mapper:
    file = tmp_path / "mapping.yaml"
    file.write_text(text)
    return read_mappings(file)["t"]


def events(found: Mapper, record: Any) -> list[dict[str, Any]]:
    bridged = mapped(found, orjson.dumps(record), RECORD_US, "events")
    assert bridged.refused is None, bridged.refused
    for _, key, value in bridged.records:
        assert CHAIN_EVENT.validate_json(value).execution == key  # type: ignore[union-attr]
    return [orjson.loads(value) for _, _, value in bridged.records]


def refused(found: Mapper, value: bytes) -> str:
    bridged = mapped(found, value, RECORD_US, "events")
    assert bridged.refused is not None and bridged.records == []
    return ": ".join(bridged.refused)


def test_the_example() -> None:
    found = read_mappings(EXAMPLE)["shop.orders"]
    assert events(found, {"kind": "ORDER_PLACED", "at": "2026-09-21T14:13:20Z", "order": ORDER}) == [
        {"type": "execution.started", "chain": "order_to_cash", "component": "shop", "time_unix_us": RECORD_US, "execution": "4711", "tenant": "acme", "user": "c1"}
    ]
    pay = {"kind": "PAYMENT", "at": "2026-09-21T14:13:20.5+02:00", "order": ORDER, "method": "card", "took": 1.5, "result": "OK"}
    assert events(found, pay) == [
        {
            "type": "step.completed", "chain": "order_to_cash", "component": "payments", "time_unix_us": RECORD_US - 7_200_000_000 + 500_000, "execution": "4711",
            "tenant": "acme", "step": "pay_card", "duration_us": 1500, "attributes": {"amount": 12.5},
        }
    ]  # fmt: skip
    failed = events(found, {**pay, "result": "DECLINED"})
    assert [(event["type"], event["error_type"]) for event in failed] == [("step.failed", "DECLINED")]
    assert events(found, {"kind": "STOCK_TAKEN"}) == []


@pytest.mark.parametrize(
    ("scale", "value"),
    [("unix_s", 1_790_000_000), ("unix_s", "1790000000.0"), ("unix_ms", 1_790_000_000_000), ("unix_us", RECORD_US), ("iso", "2026-09-21T14:13:20")],
    ids=["s", "s as text", "ms", "us", "iso without offset"],
)
def test_times(tmp_path: Path, scale: str, value: Any) -> None:
    found = mapper(tmp_path, f"topic: t\ntype: execution.started\ntime: {scale}\nset: {{chain: c}}\ntake: {{execution: id, time: at}}")
    assert events(found, {"id": "e", "at": value})[0]["time_unix_us"] == RECORD_US


def test_a_record_without_a_time_of_its_own_has_the_one_of_kafka_and_may_become_several_events(tmp_path: Path) -> None:
    text = "- {topic: t, type: execution.started, set: {chain: c}, take: {execution: id}}\n- {topic: t, type: step.started, set: {chain: c, step: a}, take: {execution: id, parent: p}}"
    found = events(mapper(tmp_path, text), {"id": "e", "p": "s1"})
    assert [event["type"] for event in found] == ["execution.started", "step.started"]
    assert {event["time_unix_us"] for event in found} == {RECORD_US} and found[1]["parents"] == [{"span": "s1"}]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", "decode: not JSON"), (b"[]", "validate: time: its expression gives nothing"), (b'{"at":"soon","id":"secret"}', "validate: time: is no time of RFC 3339"),
        (b'{"at":"2026-09-21T14:13:20Z"}', "validate: execution: its expression gives nothing"),
        (b'{"at":"2026-09-21T14:13:20Z","id":["secret"]}', "validate: execution: is neither a text nor a number"),
        (b'{"at":"2026-09-21T14:13:20Z","id":"e","took":"secret"}', "validate: duration_ms: is no number"),
        (b'{"at":"2026-09-21T14:13:20Z","id":"' + b"x" * 65 + b'"}', "validate: Expected `str` of length <= 64 - at `$.execution`"),
        (b'{"at":"2026-09-21T14:13:20Z","id":"e","n":"secret"}', "validate: user: its expression does not fit the record"),
    ],
    ids=["no json", "no object", "no time", "no execution", "a list", "no number", "too long", "wrong type"],
)  # fmt: skip
def test_a_bad_record_is_refused_with_its_field_and_without_its_value(tmp_path: Path, value: bytes, reason: str) -> None:
    text = "topic: t\ntype: execution.completed\nset: {chain: c}\ntake: {execution: id, time: at, duration_ms: took, user: 'n && sum(n)'}"
    told = refused(mapper(tmp_path, text), value)
    assert told.startswith(reason) and "secret" not in told


def test_what_is_wrong_in_a_file_is_told_with_its_line_and_field(tmp_path: Path) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text(
        "- topic: a\n  type: step.completed\n  set: {chain: c}\n  take:\n    execution: id\n"
        "- topic: b\n  type: step.stopped\n  set: {chain: c, step: s, colour: red}\n  take:\n    execution: 'id['\n    when: x\n"
    )
    with pytest.raises(FilesRefused) as error:
        read_mappings(file)
    told = {(problem.line, problem.field) for problem in error.value.problems}
    assert told == {(1, "mapping"), (7, "type"), (8, "set.colour"), (10, "take.execution"), (11, "take.when")}
    assert "step is neither in set nor in take" in str(error.value) and "no JMESPath" in str(error.value)


def test_records_of_a_file_are_judged_and_none_costs_another(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    placed = orjson.dumps({"kind": "ORDER_PLACED", "at": "2026-09-21T14:13:20Z", "order": ORDER})
    file.write_bytes(b"\n".join([placed, b"{", b"", b'{"kind":"OTHER"}', placed, b"{"]))
    outcome = judge(read_lines(file, RECORD_US), read_mappings(EXAMPLE)["shop.orders"], "events")
    assert (outcome.records, len(outcome.events), outcome.left_out, sum(outcome.refused.values())) == (5, 2, 1, 2)
    assert list(outcome.first_seen.values()) == [f"{file}:2"]
