"""A real OpenTelemetry SDK exports to a real intake worker: what is on the events topic then."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_ingest import Pipeline
from helpers_intake import events, running_intake
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

from infra.devstack import Stack


@pytest.fixture
def intake(stack: Stack, tmp_path: Path) -> Iterator[Pipeline]:
    with running_intake(stack, tmp_path) as pipe:
        yield pipe


def exporter(pipe: Pipeline, way: str) -> SpanExporter:
    settings = pipe.settings
    if way == "grpc":
        return GrpcExporter(f"http://127.0.0.1:{settings.intake_grpc_port}", insecure=True)
    compression = Compression.Gzip if way == "http gzip" else Compression.NoCompression
    return HttpExporter(f"http://127.0.0.1:{settings.intake_http_port}/v1/traces", compression=compression)


@pytest.mark.parametrize("way", ["http", "http gzip", "grpc"])
def test_a_trace_of_the_opentelemetry_sdk_is_an_execution(intake: Pipeline, way: str) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "checkout", "tenant.id": "acme"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter(intake, way)))
    tracer = provider.get_tracer("test")
    started_as = tracer.start_as_current_span
    with (
        started_as("POST /orders", kind=trace.SpanKind.SERVER) as root, started_as("reserve", attributes={"items": 2}),
        pytest.raises(ValueError), started_as("charge"),
    ):  # fmt: skip
        raise ValueError("card declined")
    provider.shutdown()
    intake.eventually(lambda: len(events(intake)) == 5)
    context = root.get_span_context()
    execution = f"{context.trace_id:032x}"
    started, charge, reserve, post, completed = events(intake)
    assert {(e["execution"], e["tenant"], e["chain"], e["component"]) for e in events(intake)} == {(execution, "acme", "checkout POST /orders", "checkout")}
    assert [e["type"] for e in (started, charge, reserve, post, completed)] == [
        "execution.started", "step.failed", "step.completed", "step.completed", "execution.completed",
    ]  # fmt: skip
    assert (charge["step"], charge["error_type"], charge["error_message"]) == ("charge", "ValueError", "ValueError: card declined")
    assert charge["parents"] == [{"span": reserve["span"]}] and reserve["parents"] == [{"span": post["span"]}]
    assert post["span"] == f"{context.span_id:016x}" and "parents" not in post
    assert reserve["attributes"]["items"] == 2
    assert completed["duration_us"] - post["duration_us"] in (0, 1), "both ends of an execution are whole µs, a step's duration is cut once"
