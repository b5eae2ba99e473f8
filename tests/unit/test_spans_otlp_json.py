"""OTLP/JSON: what the two small files of tests/fixtures/spans become, and what bad input gets."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.spans import Options, SpanImportError, Summary, detect_format, load
from connectors.spans.attributes import consumed_record, plain
from connectors.spans.model import AttributeValue, Audit, KafkaRecord
from connectors.spans.otlp_json import _span_or_reason
from connectors.spans.publish import Timeline
from connectors.spans.traces import collect
from schemas.events import CHAIN_EVENT

SAMPLES = Path(__file__).parents[1] / "fixtures" / "spans"
ORDER, BAKE = "5b8efff798038103d269b633813fc60c", "0af7651916cd43dd8448eb211c80319c"


def read(path: Path, options: Options | None = None) -> tuple[dict[str, dict[str, Any]], Summary]:
    """Return the events by "<type> <step or execution>", each validated, and the summary."""
    timeline = load(path, options or Options())
    events = {}
    for event in timeline.events():
        CHAIN_EVENT.validate_json(event.value)
        body = orjson.loads(event.value)
        events[f"{body['type']} {body.get('step', body['execution'])}"] = body
    return events, timeline.summary


def span(**changes: Any) -> dict[str, Any]:
    base = {
        "traceId": "ab" * 16,
        "spanId": "cd" * 8,
        "name": "op",
        "startTimeUnixNano": "1000000",
        "endTimeUnixNano": "3000000",
    }
    return {**base, **changes}


def write(tmp_path: Path, *spans: Any, resource: dict[str, Any] | None = None) -> Path:
    document = {"resourceSpans": [{"resource": resource or {}, "scopeSpans": [{"spans": list(spans)}]}]}
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(document))
    return file


def test_one_object_and_one_object_per_line_give_the_same_events() -> None:
    whole, lines = load(SAMPLES / "otlp" / "shop.json"), load(SAMPLES / "otlp_lines")
    assert detect_format(SAMPLES / "otlp") == detect_format(SAMPLES / "otlp_lines") == "otlp_json"
    assert list(whole.events()) == list(lines.events())
    assert whole.summary.skipped == {}
    assert lines.summary.skipped == {
        "line: not JSON": 1,
        "line: no resourceSpans in it": 1,
        "span: repeated (same trace id and span id)": 1,
    }
    assert lines.summary.first_seen["line: not JSON"] == "collector.jsonl row 2"


def test_a_span_is_one_step_with_its_parents_and_attributes() -> None:
    events, summary = read(SAMPLES / "otlp")
    assert (summary.steps, summary.executions, summary.failed_steps, summary.failed_executions) == (
        4,
        2,
        2,
        1,
    )
    root = events["step.completed POST /orders"]
    assert (root["component"], root["tenant"], root["user"]) == ("checkout", "acme", "u-7")
    assert (root["time_unix_us"], root["duration_us"]) == (1_709_629_200_005_000, 5000)
    assert root["attributes"] == {
        "gift": False,
        "http.response.status_code": 200,
        "items": '["bun",2]',
        "price": 4.5,
        "span.kind": "server",
        "user.id": "u-7",
    }
    published = events["step.completed orders publish"]
    assert published["parents"] == [{"span": "eee19b7ec3c1b174", "component": "checkout"}]


def test_a_failed_call_that_its_caller_handled_does_not_fail_the_execution() -> None:
    events, _ = read(SAMPLES / "otlp")
    charge = events["step.failed charge"]
    assert (charge["error_type"], charge["error_message"], charge["attempt"]) == (
        "CardDeclined",
        "card 1 declined",
        3,
    )
    assert f"execution.completed {ORDER}" in events


def test_a_consumer_names_its_record_its_cause_in_another_trace_and_fails_its_execution() -> None:
    events, _ = read(SAMPLES / "otlp")
    bake = events["step.failed orders process"]
    assert bake["consumed"] == {"topic": "orders", "partition": 3, "offset": 42, "broker_us": 10_000}
    assert bake["parents"] == [
        {"span": "eee19b7ec3c1b175", "execution": ORDER, "component": "checkout"},
        {"span": "00f067aa0ba902b7"},
    ]
    failed = events[f"execution.failed {BAKE}"]
    assert (failed["error_type"], failed["error_message"]) == ("error", "oven cold")


@pytest.mark.parametrize(
    "names",
    [
        ("messaging.destination.name", "messaging.destination.partition.id", "messaging.kafka.offset"),
        (
            "messaging.destination.name",
            "messaging.kafka.destination.partition",
            "messaging.kafka.message.offset",
        ),
        ("messaging.destination", "messaging.kafka.partition", "messaging.kafka.message.offset"),
    ],
)
def test_new_and_old_messaging_names(names: tuple[str, str, str]) -> None:
    values: dict[str, AttributeValue] = dict(zip(names, ("orders", "3", 42), strict=True))
    assert consumed_record({"messaging.system": "kafka", **values}) == KafkaRecord("orders", 3, 42)
    assert consumed_record({"messaging.system": "rabbitmq", **values}) is None
    assert consumed_record({name: values[name] for name in names[:2]}) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"endTimeUnixNano": "later"},
            "span: startTimeUnixNano or endTimeUnixNano is missing or not a whole number",
        ),
        (
            {"startTimeUnixNano": None},
            "span: startTimeUnixNano or endTimeUnixNano is missing or not a whole number",
        ),
        ({"endTimeUnixNano": "0"}, "span: start or end is not between 1970 and 2100"),
        ({"endTimeUnixNano": "9" * 25}, "span: start or end is not between 1970 and 2100"),
        ({"traceId": "0" * 32}, "span: no trace id or no span id"),
        ({"traceId": ["x"]}, "span: ids, name, links, events or status are not as OTLP has them"),
        ({"status": "bad"}, "span: ids, name, links, events or status are not as OTLP has them"),
        ({"links": [{"spanId": "x"}]}, "span: ids, name, links, events or status are not as OTLP has them"),
    ],
)
def test_a_bad_span_is_counted_and_costs_no_good_one(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    file = write(tmp_path, span(spanId="ef" * 8, **changes), span())
    _, summary = read(file)
    assert (summary.steps, summary.skipped) == (1, {reason: 1})
    with pytest.raises(SpanImportError, match=r"spans\.json row 1: span: "):
        load(file, Options(strict=True))


def test_names_and_ids_beyond_the_contract_are_shortened_and_counted(tmp_path: Path) -> None:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "s" * 300}}]}
    attributes = [{"key": f"k{number}" * 50, "value": {"stringValue": "v" * 9000}} for number in range(40)]
    links = [{"traceId": "ef" * 16, "spanId": f"{number:016x}"} for number in range(1, 300)]
    raw = span(traceId="t" * 100, spanId="s" * 100, name="", attributes=attributes, links=links)
    events, summary = read(write(tmp_path, raw, resource=resource))
    step = next(body for key, body in events.items() if key.startswith("step"))
    assert (len(step["component"]), step["step"], len(step["attributes"])) == (128, "unknown", 32)
    assert len(step["parents"]) == 256
    assert sum(summary.repaired.values()) == 4


def test_a_span_that_ends_before_it_starts_takes_no_time(tmp_path: Path) -> None:
    events, summary = read(write(tmp_path, span(endTimeUnixNano="500000")))
    assert events["step.completed op"]["duration_us"] == 0
    assert summary.repaired["span: ends before it starts, duration taken as 0"] == 1


def test_tenant_and_service_fall_back(tmp_path: Path) -> None:
    events, _ = read(write(tmp_path, span()), Options(tenant="lab"))
    assert (events["step.completed op"]["tenant"], events["step.completed op"]["component"]) == (
        "lab",
        "unknown",
    )
    resource = {"attributes": [{"key": "org", "value": {"stringValue": "acme"}}]}
    events, _ = read(write(tmp_path, span(), resource=resource), Options(tenant_attribute="org"))
    assert events["step.completed op"]["tenant"] == "acme"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"spans": []}', '"resourceSpans"', '{"resourceSpans": 7}']
)
def test_a_file_without_traces_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "wrong.json").write_text(content)
    with pytest.raises(SpanImportError, match=r"wrong\.json: "):
        load(tmp_path / "wrong.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "traceId",
    "spanId",
    "parentSpanId",
    "name",
    "kind",
    "startTimeUnixNano",
    "endTimeUnixNano",
    "attributes",
    "links",
    "events",
    "status",
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_no_span_whatever_its_fields_raises_or_breaks_the_contract(changes: dict[str, Any]) -> None:
    audit = Audit()
    result = _span_or_reason(span(**changes), {}, Options(), audit)
    if isinstance(result, str):
        return
    collected = collect([result], Options(), audit)
    if collected.items:
        for event in Timeline(collected, audit).events():
            CHAIN_EVENT.validate_json(event.value)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "key": st.text(max_size=9),
                "value": st.dictionaries(
                    st.sampled_from(
                        ["stringValue", "intValue", "doubleValue", "boolValue", "arrayValue", "kvlistValue"]
                    ),
                    JSON,
                    max_size=2,
                ),
            }
        )
    )
)
def test_no_attribute_value_raises(pairs: list[dict[str, Any]]) -> None:
    for value in plain(pairs, Audit()).values():
        assert isinstance(value, (str, bool, int, float))
