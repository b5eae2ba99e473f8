"""How a flow travels: W3C headers and ours, what others sent along, and headers of any kind."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import set_span_in_context

from flowchain import w3c
from flowchain.context import Context, Flow, Foreign, from_headers, to_headers

EXECUTION, SPAN, OTHER = "0190a1b2c3d47e8f9a0b1c2d3e4f5a6b", "00f067aa0ba902b7", "b7ad6b7169203331"
FLOW = Flow("order to cash", EXECUTION, "acme", "ü+1", "pro", "3")
CONTEXT = Context(FLOW, FLOW.fields(), SPAN, "shop")
MANY = ",".join(f"v{number}=1" for number in range(32))


def test_everything_comes_back_from_flow_headers() -> None:
    assert from_headers(to_headers(CONTEXT)) == CONTEXT


def test_over_kafka_and_asgi_names_and_values_may_be_bytes_of_any_case() -> None:
    headers = to_headers(CONTEXT)
    assert from_headers([(key.title(), value.encode()) for key, value in headers.items()]) == CONTEXT
    assert from_headers([(key.upper().encode(), value.encode()) for key, value in headers.items()]) == CONTEXT


def test_a_hop_that_knows_only_w3c_keeps_the_flow_and_becomes_the_parent() -> None:
    headers = to_headers(CONTEXT)
    assert w3c.parse_traceparent(headers["traceparent"]) == (EXECUTION, SPAN)
    passed_on = {
        "traceparent": f"00-{EXECUTION}-{OTHER}-01",
        "tracestate": headers["tracestate"],
        "baggage": headers["baggage"],
    }
    after = from_headers(passed_on)
    assert after is not None and after.flow == FLOW
    assert (after.span, after.component) == (OTHER, None)


def test_a_hop_that_passes_on_no_baggage_keeps_chain_tenant_and_execution() -> None:
    headers = to_headers(CONTEXT)
    after = from_headers({"traceparent": f"00-{EXECUTION}-{OTHER}-01", "tracestate": headers["tracestate"]})
    assert after is not None and after.span == OTHER
    assert after.flow[:3] == FLOW[:3]


@pytest.mark.parametrize("execution", ["order 4711;=,", "0"])
def test_an_execution_that_is_no_trace_id_travels_in_the_state(execution: str) -> None:
    flow = FLOW._replace(execution=execution)
    headers = to_headers(Context(flow, flow.fields(), SPAN))
    after = from_headers({"traceparent": headers["traceparent"], "tracestate": headers["tracestate"]})
    assert after is not None and after.flow[:3] == flow[:3]


def test_a_chain_that_is_too_long_for_the_state_is_left_out() -> None:
    flow = FLOW._replace(chain="\u00fc" * 128)
    assert to_headers(Context(flow, flow.fields(), SPAN))["tracestate"] == f"flowchain={SPAN}"


def test_a_hop_that_begins_another_trace_leaves_the_last_step_that_we_saw() -> None:
    headers = to_headers(CONTEXT)
    passed_on = {**headers, "traceparent": f"00-{OTHER * 2}-{OTHER}-01"}
    ours = from_headers(passed_on)
    assert ours is not None and ours.span == SPAN
    only_w3c = {key: value for key, value in passed_on.items() if not key.startswith("flowchain-")}
    after = from_headers(only_w3c)
    assert after is not None and after.span == SPAN and after.flow.execution == EXECUTION


def test_plus_signs_of_hops_that_write_spaces_so_are_spaces() -> None:
    baggage = to_headers(CONTEXT)["baggage"]
    assert "order%20to%20cash" in baggage and "%C3%BC%2B1" in baggage
    after = from_headers({"baggage": baggage.replace("%20", "+")})
    assert after is not None and after.flow == FLOW


def test_what_others_sent_goes_on_unchanged() -> None:
    headers = {
        **to_headers(CONTEXT),
        "tracestate": "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE",
        "baggage": "userId=am%C3%A9lie;secure, plain = x ;p=1",
    }
    context = from_headers(headers)
    assert context is not None
    assert context.flow.foreign == Foreign("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "userId=am%C3%A9lie;secure,plain = x ;p=1")
    sent = to_headers(Context(context.flow, context.fields, OTHER))
    assert re.fullmatch(f"flowchain={OTHER};[^,=]+,rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", sent["tracestate"])
    assert sent["baggage"].endswith(",userId=am%C3%A9lie;secure,plain = x ;p=1")


def test_lists_that_came_in_several_headers_are_one() -> None:
    pairs = [*to_headers(CONTEXT).items(), ("tracestate", "a=1"), ("Tracestate", "b=2"), ("baggage", "k=v")]
    context = from_headers(pairs)
    assert context is not None and context.flow.foreign == Foreign("a=1,b=2", "k=v")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"00-{EXECUTION}-{SPAN}-01", (EXECUTION, SPAN)),
        (f"00-{EXECUTION}-{SPAN}-00", (EXECUTION, SPAN)),
        (f"cc-{EXECUTION}-{SPAN}-01-what-the-future-brings", (EXECUTION, SPAN)),
        (f"00-{EXECUTION}-{SPAN}-01-more", None),
        (f"cc-{EXECUTION}-{SPAN}-01.more", None),
        (f"ff-{EXECUTION}-{SPAN}-01", None),
        (f"00-{EXECUTION.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{EXECUTION}-{'0' * 16}-01", None),
        (f"00-{EXECUTION[1:]}-{SPAN}-01", None),
        ("", None),
    ],
)
def test_traceparent_is_read_as_the_specification_says(text: str, expected: tuple[str, str] | None) -> None:
    assert w3c.parse_traceparent(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flowchain=1,a=2", ("1", "a=2")),
        ("a=2 ,\tflowchain=1, ,", ("1", "a=2")),
        ("tenant@vendor=x y", (None, "tenant@vendor=x y")),
        ("a=1,a=2", (None, "")),
        ("A=1", (None, "")),
        ("a=1,nothing", (None, "")),
        (MANY, (None, MANY)),
        (MANY + ",one=more", (None, "")),
    ],
    ids=["ours first", "spaces and empty", "tenant", "twice", "upper case", "no value", "32", "33"],
)
def test_tracestate_is_taken_whole_or_not_at_all(text: str, expected: tuple[str | None, str]) -> None:
    assert w3c.split_state(text, "flowchain") == expected


def test_tracestate_loses_long_members_first_and_then_the_last() -> None:
    long = "long=" + "x" * 200
    members = [f"v{number:02}={'y' * 20}" for number in range(20)]
    state = w3c.join_state(f"flowchain={SPAN}", ",".join([members[0], long, *members[1:]]))
    assert state == ",".join([f"flowchain={SPAN}", *members[: len(state.split(',')) - 1]])
    assert 480 < len(state) <= w3c.MAX_STATE_CHARS
    assert len(w3c.join_state("flowchain=1", MANY).split(",")) == w3c.MAX_STATE_MEMBERS


def test_baggage_stays_within_its_limits() -> None:
    many = ",".join(f"k{number}=v" for number in range(200))
    assert len(w3c.join_baggage({"chain": "c"}, "flowchain-", many).split(",")) == w3c.MAX_BAGGAGE_MEMBERS
    large = w3c.join_baggage({"chain": "c"}, "flowchain-", ",".join(["a=" + "x" * 5000, "b=" + "x" * 5000]))
    assert large == "flowchain-chain=c,a=" + "x" * 5000


@pytest.fixture(scope="module")
def tracer() -> Iterator[trace.Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider.get_tracer("test")
    provider.shutdown()


def test_a_hop_with_opentelemetry_only_is_the_child_of_what_came_before_and_the_parent_of_what_comes_after(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("hop", context=propagate.extract(to_headers(CONTEXT))) as hop:
        assert isinstance(hop, ReadableSpan) and hop.parent is not None
        assert f"{hop.parent.span_id:016x}" == SPAN
        assert f"{hop.context.trace_id:032x}" == EXECUTION
        passed_on: dict[str, str] = {}
        propagate.inject(passed_on, context=set_span_in_context(hop, propagate.extract(to_headers(CONTEXT))))
    after = from_headers(passed_on)
    assert after is not None and after.flow == FLOW
    assert after.span == f"{hop.context.span_id:016x}"


def test_beside_opentelemetry_its_own_trace_stays_whole_and_our_step_is_the_parent(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("span") as span:
        headers = to_headers(CONTEXT)
        about = span.get_span_context()
    assert w3c.parse_traceparent(headers["traceparent"]) == (f"{about.trace_id:032x}", f"{about.span_id:016x}")
    assert re.fullmatch(f"flowchain={SPAN};[^,=]+;{EXECUTION}", headers["tracestate"])
    after = from_headers(headers)
    assert after is not None and (after.span, after.component) == (SPAN, "shop")


def test_a_span_that_nobody_records_changes_nothing() -> None:
    ours = to_headers(CONTEXT)
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True))):
        assert to_headers(CONTEXT) == ours


names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=64)


@given(names, names, names, st.none() | names, st.none() | names, st.sampled_from([None, SPAN, "span of the host"]))
def test_any_flow_comes_back_over_either_way(
    chain: str, execution: str, tenant: str, user: str | None, version: str | None, span: str | None
) -> None:
    flow = Flow(chain, execution, tenant, user, None, version)
    headers = to_headers(Context(flow, flow.fields(), span))
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert from_headers(headers) == Context(flow, flow.fields(), span)
    assert len(headers["baggage"]) <= w3c.MAX_BAGGAGE_BYTES
    assert "traceparent" not in headers or w3c.parse_traceparent(headers["traceparent"])
    over_w3c = from_headers({key: value for key, value in headers.items() if not key.startswith("flowchain-")})
    assert over_w3c is not None and over_w3c.flow == flow


values: Any = st.none() | st.text() | st.binary() | st.integers()
keys: Any = st.none() | st.text(max_size=20) | st.binary(max_size=20) | st.sampled_from(
    ["traceparent", "tracestate", "Baggage", b"baggage", "flowchain-chain", "flowchain-execution", "flowchain-span"]
)  # fmt: skip


@given(st.lists(st.tuples(keys, values | st.sampled_from([f"00-{EXECUTION}-{SPAN}-01", "flowchain-chain=a,flowchain-execution=b"]))))
def test_broken_headers_are_read_without_an_error_and_what_is_sent_is_well_formed(pairs: Any) -> None:
    context = from_headers(pairs)
    if context is not None:
        assert all(value.isascii() and value.isprintable() for value in to_headers(context).values())
