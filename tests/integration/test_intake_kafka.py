"""Topics that intake reads: the Collector's in both encodings, CloudEvents in both modes; bad records, and a worker that is killed."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from cloudevents.core.bindings.kafka import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from google.protobuf.json_format import MessageToDict
from helpers_ingest import Pipeline, metrics
from helpers_intake import events, foreign_topic, kinds, letters, put, running_intake, start
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from infra.devstack import Stack
from schemas.topics import CLOUDEVENTS

PROTOBUF = {"content-type": "application/x-protobuf"}


def request(traces: int = 2, spans: int = 3, service: str = "shop") -> ExportTraceServiceRequest:
    """Return traces whose root comes last."""
    found = ExportTraceServiceRequest()
    group = found.resource_spans.add()
    attribute = group.resource.attributes.add(key="service.name")
    attribute.value.string_value = service
    scope, now_ns = group.scope_spans.add(), time.time_ns()
    for _ in range(traces):
        trace, root = os.urandom(16), os.urandom(8)
        for number in range(spans, 0, -1):
            span = scope.spans.add(trace_id=trace, span_id=root if number == 1 else os.urandom(8), name=f"step {number}", kind=2)
            span.start_time_unix_nano, span.end_time_unix_nano = now_ns + number * 1000, now_ns + 1_000_000 - number * 1000
            if number > 1:
                span.parent_span_id = root
    return found


def as_json(message: ExportTraceServiceRequest) -> bytes:
    """Return a request as the Collector writes it in JSON: ids in hexadecimal."""
    document: dict[str, Any] = MessageToDict(message)
    for raw, span in zip(message.resource_spans[0].scope_spans[0].spans, document["resourceSpans"][0]["scopeSpans"][0]["spans"], strict=True):
        span |= {"traceId": raw.trace_id.hex(), "spanId": raw.span_id.hex()}
        if raw.parent_span_id:
            span["parentSpanId"] = raw.parent_span_id.hex()
    return orjson.dumps(document)


@pytest.mark.parametrize("encoding", ["otlp_proto", "otlp_json"])
def test_the_collectors_topic(stack: Stack, tmp_path: Path, encoding: str) -> None:
    topic = foreign_topic(stack, "otlp_spans")
    with running_intake(stack, tmp_path, intake_spans_topic=topic) as pipe:
        sent = request()
        put(stack, topic, [(None, sent.SerializeToString() if encoding == "otlp_proto" else as_json(sent), None)])
        bad = request(1)
        bad.resource_spans[0].scope_spans[0].spans[0].trace_id = b""
        put(stack, topic, [(None, b"\x0a\xff\xff", None), (None, b"{", None), (None, b"{}", None), (None, None, None), (None, bad.SerializeToString(), None)])
        pipe.eventually(lambda: kinds(pipe)["execution.completed"] == 3 and len(letters(pipe)) == 3)
        assert kinds(pipe) == {"execution.started": 3, "step.completed": 8, "execution.completed": 3}
        assert sorted(letter.stage for letter in letters(pipe)) == ["decode", "decode", "null"]
        assert {letter.letter.topic for letter in letters(pipe) if letter.letter} == {topic}
        assert {event["chain"] for event in events(pipe)} == {"shop step 1"}


def test_what_is_rejected_of_a_request_is_told(stack: Stack, tmp_path: Path) -> None:
    with running_intake(stack, tmp_path) as pipe:
        url = f"http://127.0.0.1:{pipe.settings.intake_http_port}/v1/traces"
        bad = request(1)
        bad.resource_spans[0].scope_spans[0].spans[0].span_id = b""
        bad.resource_spans[0].scope_spans[0].spans[1].end_time_unix_nano = 0
        answer = httpx.post(url, content=bad.SerializeToString(), headers=PROTOBUF)
        partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
        assert (answer.status_code, partial.rejected_spans) == (200, 2)
        assert partial.error_message == "span: no trace id or no span id; span: start or end is not between 1970 and 2100"
        in_json = httpx.post(url, content=as_json(bad), headers={"content-type": "application/json"})
        assert (in_json.status_code, in_json.json()["partialSuccess"]["rejectedSpans"]) == (200, "2")
        assert httpx.post(url, content=b"", headers=PROTOBUF).status_code == 200
        for body, headers, status in (
            (b"\x0a\xff", PROTOBUF, 400), (b"[]", {"content-type": "application/json"}, 400), (b"", {"content-type": "text/plain"}, 415),
            (b"no gzip", {**PROTOBUF, "content-encoding": "gzip"}, 400), (b"", {**PROTOBUF, "content-encoding": "zstd"}, 415), (bytes(17 << 20), PROTOBUF, 413),
        ):  # fmt: skip
            assert httpx.post(url, content=body, headers=headers).status_code == status, (body[:9], headers)
        counted = metrics(pipe.settings.http_port)
        assert counted['flowchain_intake_spans_total{outcome="rejected",way="http"}'] == 4


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_cloud_events_of_the_library_are_events(stack: Stack, tmp_path: Path, mode: str) -> None:
    event = CloudEvent(
        {
            "id": "c1", "source": "/services/payments", "type": "io.flowchain.step.failed.v1", "specversion": "1.0", "correlationid": "order 17 ü",
            "causationid": "00f067aa0ba902b7", "subject": "pay", "tenantid": "acme", "partitionkey": "order 17 ü",
        },
        {"chain": "orders", "time_unix_us": time.time_ns() // 1000, "error_type": "Declined"},
    )  # fmt: skip
    write = to_binary if mode == "binary" else to_structured
    message = write(event, JSONFormat())
    with running_intake(stack, tmp_path) as pipe:
        headers = list(message.headers.items())
        no_step = [(name, b"io.flowchain.no.such.v1" if name == "ce_type" else value) for name, value in headers]
        topic = pipe.settings.topic(CLOUDEVENTS.name)
        put(stack, topic, [(b"any", message.value, headers), (b"any", b"{", headers), (b"any", b"{}", None), (b"any", message.value, no_step)])
        good = 1 if mode == "binary" else 2  # a structured one has its type inside
        pipe.eventually(lambda: len(letters(pipe)) == 4 - good)
        found = events(pipe)
        assert len(found) == good
        assert found[0] == {
            "type": "step.failed", "id": "c1", "component": "payments", "execution": "order 17 ü", "step": "pay", "tenant": "acme", "chain": "orders",
            "parents": [{"span": "00f067aa0ba902b7"}], "error_type": "Declined", "time_unix_us": found[0]["time_unix_us"],
        }  # fmt: skip
        assert {letter.stage for letter in letters(pipe)} == {"validate"}


def test_a_worker_that_is_killed_under_load_loses_and_doubles_nothing(stack: Stack, tmp_path: Path) -> None:
    topic = foreign_topic(stack, "otlp_spans")
    with running_intake(stack, tmp_path, intake_spans_topic=topic, worker_id="one", intake_linger_s=20) as pipe:
        sent: list[ExportTraceServiceRequest] = []
        done = threading.Event()

        def load() -> None:
            while not done.wait(0.02):
                sent.append(request(5, 6))
                spans = sent[-1].resource_spans[0].scope_spans[0].spans
                first, second = ExportTraceServiceRequest(), ExportTraceServiceRequest()
                for part, of in ((first, spans[::2]), (second, spans[1::2])):  # a trace comes in parts, its root anywhere
                    part.CopyFrom(sent[-1])
                    del part.resource_spans[0].scope_spans[0].spans[:]
                    part.resource_spans[0].scope_spans[0].spans.extend(of)
                put(stack, topic, [(None, part.SerializeToString(), None) for part in (first, second)])

        loading = threading.Thread(target=load)
        loading.start()
        for _ in range(2):
            before = len(events(pipe))
            pipe.eventually(lambda held=before: len(events(pipe)) > held + 200)  # type: ignore[misc]
            pipe.workers[-1].kill()
            pipe.workers[-1].wait()
            start(pipe)
        done.set()
        loading.join()
        executions = 5 * len(sent)
        pipe.eventually(lambda: kinds(pipe)["execution.completed"] >= executions, lambda: f"{kinds(pipe)} of {executions}")
        assert kinds(pipe) == {"execution.started": executions, "step.completed": 6 * executions, "execution.completed": executions}
        assert len({(event["execution"], event["type"], event.get("span")) for event in events(pipe)}) == 8 * executions
        assert {event["chain"] for event in events(pipe)} == {"shop step 1"}


def test_a_worker_that_is_told_to_stop_takes_what_was_answered_with_it(stack: Stack, tmp_path: Path) -> None:
    with running_intake(stack, tmp_path) as pipe:
        answered = _post_until_it_stops(pipe)
        assert answered > 0
        start(pipe)
        pipe.eventually(lambda: kinds(pipe)["execution.completed"] == answered, lambda: f"{kinds(pipe)} of {answered}")


def _post_until_it_stops(pipe: Pipeline) -> int:
    """Send requests of one trace until the worker has ended by SIGTERM; return how many it has answered."""
    answered = 0
    with httpx.Client() as client:
        for number in range(10_000):
            if number == 50:
                pipe.workers[-1].terminate()
            try:
                answer = client.post(f"http://127.0.0.1:{pipe.settings.intake_http_port}/v1/traces", content=request(1).SerializeToString(), headers=PROTOBUF)
                answered += answer.status_code == 200
            except httpx.HTTPError:
                break
    assert pipe.workers[-1].wait(30) == 0, pipe.log().read_text()
    return answered
