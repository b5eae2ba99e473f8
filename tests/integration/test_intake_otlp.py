"""A real OpenTelemetry SDK exports to a real intake worker: what is on the events topic then."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from helpers_ingest import Pipeline, pipeline
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

from infra.devstack import Stack
from infra.supervisor import free_port
from schemas.events import CHAIN_MESSAGE
from schemas.topics import EVENTS


@pytest.fixture
def intake(stack: Stack, tmp_path: Path) -> Iterator[Pipeline]:
    ports = {"http_port": free_port(), "intake_http_port": free_port(), "intake_grpc_port": free_port()}
    with pipeline(stack, tmp_path, intake_spans_topic="", intake_hold_s=1, intake_linger_s=2, **ports) as pipe:
        pipe.start("intake")
        pipe.eventually(lambda: is_ready(pipe))
        yield pipe


def is_ready(pipe: Pipeline) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{pipe.settings.http_port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def events(pipe: Pipeline) -> list[dict[str, Any]]:
    """Return all events in their order, each held against the contract."""
    found: list[dict[str, Any]] = []
    for message in pipe.read(EVENTS):
        CHAIN_MESSAGE.validate_json(message.value() or b"")
        value = orjson.loads(message.value() or b"")
        found += value if isinstance(value, list) else [value]
    return found


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
