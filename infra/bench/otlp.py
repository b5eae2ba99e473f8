"""What taking in a span of OpenTelemetry costs: from the request to the event on its topic, beside decoding its protobuf and no more."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from connectors.intake.otlp_grpc import SERVICE
from connectors.settings import Settings
from connectors.topics import apply_topics
from infra.bench.loading import Tell
from infra.bench.machine import machine
from infra.bench.processes import BenchError, python, until
from infra.supervisor import free_port, is_ready

SPANS_PER_TRACE, TRACES_PER_REQUEST = 8, 64
CLIENTS = 4
"""Requests on their way at a time."""
TOPIC = "bench-otlp-spans"
SETTLE_S = 0.5
"""The last transaction ends within it."""
ATTRIBUTES: dict[str, str | int] = {
    "http.request.method": "POST", "http.route": "/orders/{id}", "http.response.status_code": 200, "server.address": "checkout.shop.svc",
    "server.port": 8080, "user_agent.original": "bench/1.0",
}  # fmt: skip
Send = Callable[[bytes], object]


def measure(settings: Settings, home: Path, spans: int, tell: Tell) -> dict[str, Any]:
    """Return spans per second of one core's time for each way in, and of the baseline."""
    requests = max(1, spans // (SPANS_PER_TRACE * TRACES_PER_REQUEST))
    count = requests * TRACES_PER_REQUEST * SPANS_PER_TRACE
    bodies = [_request() for _ in range(requests)]
    bare = _bare_decode(bodies, count)
    apply_topics(settings)
    admin = AdminClient(settings.kafka())
    admin.create_topics([NewTopic(TOPIC, settings.source_partitions, 1)])[TOPIC].result(30)
    with _worker(settings, home) as (process, ports):
        ways = {"http": _over_http(ports["http"]), "grpc": _over_grpc(ports["grpc"]), "kafka": _over_kafka(settings)}
        found = {}
        for way, send in ways.items():
            found[way] = _measured(send, bodies, count, process, ports["metrics"], way, tell)
            bodies = [_request() for _ in range(requests)]  # a trace that was told is known
    for figures in found.values():
        figures["ratio_to_bare_decode"] = round(figures["spans_per_core_s"] / bare["spans_per_core_s"], 4)
    return {"spans": count, "spans_per_trace": SPANS_PER_TRACE, **found, "bare_decode": bare, "machine": machine()}


def _request() -> bytes:
    """Return a request of traces whose root comes last, as an exporter sends them."""
    found = ExportTraceServiceRequest()
    group, now_ns = found.resource_spans.add(), time.time_ns()
    for name in ("service.name", "service.version", "host.name", "telemetry.sdk.language"):
        group.resource.attributes.add(key=name).value.string_value = f"bench {name}"
    scope = group.scope_spans.add()
    for _ in range(TRACES_PER_REQUEST):
        trace, root = os.urandom(16), os.urandom(8)
        for number in reversed(range(SPANS_PER_TRACE)):
            span = scope.spans.add(trace_id=trace, span_id=os.urandom(8) if number else root, parent_span_id=root if number else b"", name=f"step {number}", kind=2)
            span.start_time_unix_nano, span.end_time_unix_nano = now_ns + number * 1_000, now_ns + 1_000_000 - number * 1_000
            for name, value in ATTRIBUTES.items():
                held = span.attributes.add(key=name).value
                if isinstance(value, str):
                    held.string_value = value
                else:
                    held.int_value = value
    return found.SerializeToString()


def _bare_decode(bodies: list[bytes], count: int) -> dict[str, Any]:
    began = time.process_time()
    for body in bodies:
        ExportTraceServiceRequest.FromString(body)
    return {"spans_per_core_s": round(count / (time.process_time() - began))}


@contextmanager
def _worker(settings: Settings, home: Path) -> Iterator[tuple[psutil.Process, dict[str, int]]]:
    """Run an intake worker of the measurement's own; yields it, and its ports, once it is ready."""
    ports = {"metrics": free_port(), "http": free_port(), "grpc": free_port()}
    environment = settings.environment("bootstrap_servers", "topic_prefix") | {
        "FLOWCHAIN_HTTP_PORT": str(ports["metrics"]), "FLOWCHAIN_INTAKE_HTTP_PORT": str(ports["http"]), "FLOWCHAIN_INTAKE_GRPC_PORT": str(ports["grpc"]),
        "FLOWCHAIN_INTAKE_SPANS_TOPIC": TOPIC, "FLOWCHAIN_LOG_LEVEL": "warning",
    }  # fmt: skip
    log = home / "intake.log"
    with python("infra.cli", "worker", "intake", log=log, environment=environment) as process:
        until(lambda: is_ready(ports["metrics"]), f"the intake worker was not ready; its log is {log}")
        yield psutil.Process(process.pid), ports


def _measured(send: Send, bodies: list[bytes], count: int, process: psutil.Process, port: int, way: str, tell: Tell) -> dict[str, Any]:
    """Send everything; return what it took until all traces were events."""
    before, cpu_s, began = _told(port), _cpu_s(process), time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        for number, _ in enumerate(clients.map(send, bodies), 1):
            tell(way, number, len(bodies))
    wanted = before + len(bodies) * TRACES_PER_REQUEST
    ended = until(lambda: _told(port) >= wanted, f"not all traces that were sent by {way} became executions")
    time.sleep(SETTLE_S)
    used_s = _cpu_s(process) - cpu_s
    return {"spans_per_core_s": round(count / used_s), "spans_per_s": round(count / (ended - began)), "cpu_us_per_span": round(used_s / count * 1e6, 1)}


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def _told(port: int) -> float:
    """Return how many traces were named after their root."""
    families = text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text)
    return sum(x.value for family in families for x in family.samples if x.name == "flowchain_intake_traces_total" and x.labels["basis"] == "root")


def _over_http(port: int) -> Send:
    client = httpx.Client(timeout=60)

    def send(body: bytes) -> None:
        answer = client.post(f"http://127.0.0.1:{port}/v1/traces", content=body, headers={"content-type": "application/x-protobuf"})
        if answer.status_code != 200:
            raise BenchError(f"OTLP over HTTP answered {answer.status_code}")

    return send


def _over_grpc(port: int) -> Send:
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    call = channel.unary_unary(f"/{SERVICE}/Export", None, None)
    return lambda body: call(body, timeout=60)


def _over_kafka(settings: Settings) -> Send:
    producer = Producer({**settings.kafka(), "compression.type": "lz4"})

    def send(body: bytes) -> None:
        producer.produce(TOPIC, body)
        producer.flush(30)

    return send
