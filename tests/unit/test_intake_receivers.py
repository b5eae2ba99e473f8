"""The OTLP receivers without brokers, and with too much at a time: what they answer makes exporters come back."""

from collections.abc import Iterator

import grpc
import httpx
import pytest
from google.rpc.status_pb2 import Status

from connectors import acknowledged
from connectors.intake import PortTaken
from connectors.intake.otlp_grpc import SERVICE
from connectors.intake.receivers import Receivers
from connectors.settings import Settings
from connectors.spans import otlp_proto
from infra.supervisor import free_port

PROTOBUF = {"content-type": "application/x-protobuf"}


def request() -> bytes:
    found = otlp_proto.parse(b"")
    span = found.resource_spans.add().scope_spans.add().spans.add(trace_id=bytes(range(16)), span_id=bytes(range(1, 9)), name="a")
    span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
    return found.SerializeToString()


def settings(**more: int) -> Settings:
    given = {"bootstrap_servers": f"127.0.0.1:{free_port()}", "intake_http_port": 0, "intake_grpc_port": 0, **more}
    return Settings(**given)  # type: ignore[arg-type]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receivers]:
    """Receivers whose brokers are away."""
    monkeypatch.setattr(acknowledged, "DELIVERY_MS", 300)
    receivers = Receivers(settings())
    yield receivers
    receivers.close()


def test_http_says_come_back_when_kafka_is_away(alone: Receivers) -> None:
    answer = httpx.post(alone.addresses["http"], content=request(), headers=PROTOBUF, timeout=30)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert Status.FromString(answer.content).code == grpc.StatusCode.UNAVAILABLE.value[0]
    in_json = httpx.post(alone.addresses["http"], content=b'{"resourceSpans":[]}', headers={"content-type": "application/json"})
    assert (in_json.status_code, in_json.json()) == (200, {}), "nothing has to be stored"


def call(address: str, body: bytes) -> grpc.RpcError:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{SERVICE}/Export", None, None)(body, timeout=30)
    return refused.value


def test_grpc_says_come_back_when_kafka_is_away_and_names_the_clients_mistake(alone: Receivers) -> None:
    assert call(alone.addresses["grpc"], request()).code() is grpc.StatusCode.UNAVAILABLE
    assert call(alone.addresses["grpc"], b"\x0a\xff").code() is grpc.StatusCode.INVALID_ARGUMENT
    assert call(alone.addresses["grpc"], bytes(17 << 20)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_port_that_is_taken_is_told_in_a_sentence(alone: Receivers) -> None:
    for way, name in (("http", "intake_http_port"), ("grpc", "intake_grpc_port")):
        port = int(alone.addresses[way].removesuffix("/v1/traces").rpartition(":")[2])
        with pytest.raises(PortTaken, match=name.upper()):
            Receivers(settings(**{name: port}))
