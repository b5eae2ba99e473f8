"""Events by the API: plain JSON and CloudEvents, one by one and many, over HTTP and WebSocket; what is on the topic, what is refused."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from helpers_api import Api, running_api
from starlette.websockets import WebSocketDisconnect

from connectors.database import EVERY_TENANT
from connectors.log import read_topic
from infra.devstack import Stack
from schemas.events import CHAIN_MESSAGE
from schemas.topics import EVENTS

NOW_US = 1_790_000_000_000_000


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    with running_api(stack) as running:
        yield running


def event(execution: str, **more: Any) -> dict[str, Any]:
    return {"type": "step.completed", "chain": "orders", "execution": execution, "step": "pay", "time_unix_us": NOW_US, **more}


def stored(api: Api, execution: str) -> list[dict[str, Any]]:
    """Return the events of an execution that are on the topic, whose key it must be."""
    messages = [m for m in read_topic(api.settings, api.settings.topic(EVENTS.name)) if m.key() == execution.encode()]
    for message in messages:
        CHAIN_MESSAGE.validate_json(message.value() or b"")
    return [orjson.loads(message.value() or b"") for message in messages]


def post(api: Api, body: bytes, content_type: str = "application/json", role: str = "service", **headers: str) -> httpx.Response:
    return api.client.post("/v1/events", content=body, headers={**api.headers("acme", role), "content-type": content_type, **headers})


def test_an_event_or_an_array_is_stored_and_each_refused_one_is_told(api: Api) -> None:
    assert post(api, orjson.dumps(event("one"))).json() == {"accepted": 1, "refused": []}
    assert stored(api, "one") == [event("one", tenant="acme")]
    bad: list[Any] = [
        event("two"), event("two", tenant="globex"), event("two", time_unix_us="soon"), {"type": "step.completed"}, 7, {"type": "clock.tick", "time_unix_us": 1},
        event("two", type="no.such"), event("two", parents=[{"span": ""}]), event("two", colour="red"), event("two", tenant="acme"),
    ]  # fmt: skip
    answer = post(api, orjson.dumps(bad))
    assert answer.status_code == 202 and answer.json()["accepted"] == 2 and len(stored(api, "two")) == 2
    told = {(x["index"], x["field"]) for x in answer.json()["refused"]}
    assert told == {(1, "tenant"), (2, "time_unix_us"), (3, "chain"), (4, ""), (5, "type"), (6, "type"), (7, "parents[0].span"), (8, "colour")}
    assert "globex" not in answer.text and "soon" not in answer.text and "no.such" not in answer.text


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400), (b"7", "application/json", 400), (b"{}", "text/plain", 415), (b"{}", "application/cloudevents-batch+json", 400),
        (b"[]", "application/cloudevents+json", 400),
        (b"[" + b" " * 5_000_000 + b"]", "application/json", 413),
    ],
    ids=["no json", "a number", "text", "no batch", "no cloud event", "too large"],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_a_problem(api: Api, body: bytes, content_type: str, status: int) -> None:
    answer = post(api, body, content_type)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def cloud_event(ident: str, execution: str, **data: Any) -> CloudEvent:
    return CloudEvent(
        {
            "id": ident, "source": "https://shop.example/payments", "type": "io.flowchain.step.completed.v1", "specversion": "1.0",
            "correlationid": execution, "causationid": "00f067aa0ba902b7", "subject": "pay", "sampledrate": 10, "partitionkey": execution,
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "v=1",
        },
        {"chain": "orders", "time_unix_us": NOW_US, "duration_us": 5, **data},
    )  # fmt: skip


def as_event(ident: str, execution: str, **more: Any) -> dict[str, Any]:
    """Return what the cloud event is by the table of docs/intake.md."""
    return {
        "type": "step.completed", "id": ident, "component": "payments", "execution": execution, "step": "pay", "chain": "orders", "time_unix_us": NOW_US,
        "duration_us": 5, "tenant": "acme", "parents": [{"span": "00f067aa0ba902b7"}],
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "attributes": {"sampledrate": 10, "tracestate": "v=1"}, **more,
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_a_cloud_event_of_the_library_is_an_event(api: Api, mode: str) -> None:
    write = to_binary if mode == "binary" else to_structured
    message: HTTPMessage = write(cloud_event("c1", f"ce {mode} ü"), JSONFormat())
    body = message.body if isinstance(message.body, bytes) else message.body.encode()
    answer = api.client.post("/v1/events", content=body, headers={**message.headers, **api.headers("acme", "service")})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "refused": []})
    assert stored(api, f"ce {mode} ü") == [as_event("c1", f"ce {mode} ü")]


def test_a_batch_of_cloud_events(api: Api) -> None:
    format_ = JSONFormat()
    good = [json.loads(format_.write(cloud_event(f"c{n}", "batch"))) for n in range(3)]
    body = [*good, {**good[0], "specversion": "0.3"}, {**good[0], "type": ""}, {**good[0], "data": [1]}, {**good[0], "time": "yesterday"}, 4]
    answer = post(api, orjson.dumps(body), "application/cloudevents-batch+json")
    assert answer.json()["accepted"] == 3
    assert [(x["index"], x["field"]) for x in answer.json()["refused"]] == [(3, "specversion"), (4, "type"), (5, "data"), (6, "time"), (7, "cloudevent")]
    assert stored(api, "batch") == [as_event(f"c{n}", "batch") for n in range(3)]


def test_messages_of_a_websocket_are_answered_in_their_order(api: Api) -> None:
    with api.client.websocket_connect("/v1/events/ws", headers=api.headers("acme", "service")) as socket:
        for number in range(5):
            socket.send_text(json.dumps([event(f"ws{number}"), *[7] * number]))
        answers = [socket.receive_json() for _ in range(5)]
    assert [answer["accepted"] for answer in answers] == [1] * 5
    assert [len(answer["refused"]) for answer in answers] == [0, 1, 2, 3, 4]
    assert all(len(stored(api, f"ws{number}")) == 1 for number in range(5))


@pytest.mark.parametrize(
    ("tenant", "role", "query", "code"),
    [("acme", "viewer", "", 1008), ("acme", "service", "?tenant=globex", 1008), (EVERY_TENANT, "service", "", 1008)],
    ids=["viewer", "another tenant", "no tenant"],
)
def test_who_may_not_emit_gets_no_websocket(api: Api, tenant: str, role: str, query: str, code: int) -> None:
    with pytest.raises(WebSocketDisconnect) as refused, api.client.websocket_connect(f"/v1/events/ws{query}", headers=api.headers(tenant, role)):
        pass
    assert refused.value.code == code


def test_a_message_that_cannot_be_read_closes_a_websocket(api: Api) -> None:
    with api.client.websocket_connect("/v1/events/ws", headers=api.headers("acme", "service")) as socket:
        socket.send_text("{")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == 1007
