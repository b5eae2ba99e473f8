"""A span of a hop that knows only OpenTelemetry, in an execution that a service with the SDK has begun."""

import pytest

from connectors.spans.model import Audit, Options
from connectors.spans.semantics import Seen, span_of
from flowchain.context import Context, Flow, to_headers

TRACE, CALLER, SPAN = "0190f3a1b2c37d4e8f5061728394a5b6", "00f067aa0ba902b7", "b7ad6b7169203331"


def seen(trace_state: str, attributes: dict[str, str] | None = None) -> Seen:
    return Seen(TRACE, SPAN, CALLER, "work", 1, 2, "consumer", dict(attributes or {}), [], False, "", {}, trace_state)


@pytest.mark.parametrize("execution", [TRACE, "order 4711;=,"], ids=["the trace itself", "another id"])
def test_the_entry_of_the_sdk_names_chain_tenant_and_execution(execution: str) -> None:
    flow = Flow("order to cash", execution, "acme;1", "u1")
    state = to_headers(Context(flow, flow.fields(), CALLER))["tracestate"]
    span = span_of(seen(f"rojo=1,{state}"), {}, Options(), Audit())
    assert (span.chain, span.tenant, span.execution) == ("order to cash", "acme;1", execution)
    assert [parent.span_id for parent in span.parents] == [CALLER]


def test_what_the_span_itself_says_goes_before() -> None:
    flow = Flow("order_to_cash", TRACE, "acme")
    state = to_headers(Context(flow, flow.fields(), CALLER))["tracestate"]
    span = span_of(seen(state, {"flowchain.chain": "another"}), {"tenant.id": "globex"}, Options(tenant_attribute="tenant.id"), Audit())
    assert (span.chain, span.tenant) == ("another", "globex")


@pytest.mark.parametrize("state", ["", "rojo=1", "flowchain=00f067aa0ba902b7", "flowchain", "xflowchain=a;b;c;d"])
def test_other_states_say_nothing(state: str) -> None:
    span = span_of(seen(state), {}, Options(), Audit())
    assert (span.chain, span.execution) == ("", "")
