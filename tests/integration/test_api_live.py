"""Live streams: each tenant its own, filters, resuming without a gap or a repetition, slow clients, keys that end."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer
from helpers_api import Api, alert, running_api, served
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from connectors.database import EVERY_TENANT
from connectors.http import sockets
from connectors.http.routes import live
from infra.devstack import Stack
from schemas.analysis import Alert
from schemas.topics import ALERTS

LONG = "x" * 900


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    with running_api(stack, live_frames=100) as running:
        yield running


@pytest.fixture(scope="module")
def address(api: Api) -> Iterator[str]:
    with served(api.settings) as found:
        yield found


@cache
def producer_of(bootstrap_servers: str, transactional_id: str) -> Producer:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": transactional_id})
    producer.init_transactions(10)
    return producer


def say(api: Api, *alerts: Alert) -> None:
    """Publish alerts as the analysis does, in one transaction, so that its mark takes an offset too."""
    producer = producer_of(api.settings.bootstrap_servers, api.settings.group("test-live"))
    producer.begin_transaction()
    for item in alerts:
        producer.produce(api.settings.topic(ALERTS.name), item.encode(), item.tenant)
    producer.flush(10)
    producer.commit_transaction(10)


def numbered(tenant: str, number: int, **more: Any) -> Alert:
    return alert(tenant).model_copy(update={"id": f"{tenant}-{number}", "revision": number, **more})


@contextmanager
def listening(api: Api, address: str, query: str = "", tenant: str = "acme") -> Iterator[ClientConnection]:
    with connect(f"ws://{address}/v1/live?{query}", additional_headers=api.headers(tenant, "viewer")) as socket_:
        yield socket_


def heard(connection: ClientConnection, count: int) -> list[dict[str, Any]]:
    return [json.loads(connection.recv(timeout=20)) for _ in range(count)]


def test_each_tenant_hears_its_own(api: Api, address: str) -> None:
    with listening(api, address) as acme, listening(api, address, tenant="globex") as globex, listening(api, address, tenant=EVERY_TENANT) as everyone:
        say(api, numbered("acme", 1), numbered("globex", 2), numbered("acme", 3))
        assert [x["data"]["id"] for x in heard(acme, 2)] == ["acme-1", "acme-3"]
        assert [x["data"]["id"] for x in heard(globex, 1)] == ["globex-2"]
        assert {x["data"]["id"] for x in heard(everyone, 3)} == {"acme-1", "globex-2", "acme-3"}
        with pytest.raises(TimeoutError):
            globex.recv(timeout=0.5)


def test_filters(api: Api, address: str) -> None:
    with listening(api, address, "severity=warning") as warnings, listening(api, address, "chain=other") as other, listening(api, address, "component=acme-db") as database:
        say(api, numbered("acme", 10), numbered("acme", 11, severity="warning"), numbered("acme", 12, affected_chains=["other"]))
        assert heard(warnings, 1)[0]["data"]["id"] == "acme-11"
        assert heard(other, 1)[0]["data"]["id"] == "acme-12"
        assert [x["data"]["id"] for x in heard(database, 3)] == ["acme-10", "acme-11", "acme-12"]


def test_a_client_that_comes_back_misses_nothing(api: Api, address: str) -> None:
    with listening(api, address) as first:
        say(api, numbered("acme", 20), numbered("acme", 21))
        last = heard(first, 2)[0]["id"]
    say(api, numbered("acme", 22), numbered("globex", 23))
    with listening(api, address, f"after={last}") as second:
        assert [x["data"]["id"] for x in heard(second, 2)] == ["acme-21", "acme-22"]
        say(api, numbered("acme", 24))
        assert heard(second, 1)[0]["data"]["id"] == "acme-24"


def test_what_the_ring_has_lost_comes_from_the_log(api: Api, address: str) -> None:
    with listening(api, address) as first:
        say(api, numbered("acme", 30))
        last = heard(first, 1)[0]["id"]
    say(api, *(numbered("globex", n) for n in range(80)), *(numbered("acme", n) for n in range(31, 41)), *(numbered("globex", n) for n in range(80, 150)))
    wait_for_the_feed(api, address)
    with listening(api, address, f"after={last}") as second:
        found = heard(second, 11)
    assert [x["data"]["revision"] for x in found[:10]] == list(range(31, 41))


def test_too_long_away_is_told_as_a_gap(api: Api, address: str) -> None:
    say(api, *(numbered("acme", n) for n in range(1000, 2300)))
    wait_for_the_feed(api, address)
    with listening(api, address, "after=alerts@0:-1,1:-1") as client:
        assert heard(client, 1) == [{"stream": "alerts", "gap": True}]
        rest = heard(client, 50)
    assert all("data" in x for x in rest)


def wait_for_the_feed(api: Api, address: str) -> None:
    """Wait until the API has read what is on the alert topic: a last alert of its own comes through."""
    with listening(api, address) as client:
        mark = int(time.time() * 1000)
        say(api, numbered("acme", mark))
        while json.loads(client.recv(timeout=20)).get("data", {}).get("revision") != mark:
            pass


def test_a_slow_client_is_told_the_gap_and_slows_nobody(api: Api, address: str) -> None:
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as stuck, listening(api, address) as quick:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        key = api.keys["acme", "viewer"]
        stuck.sendall(
            f"GET /v1/live HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-API-Key: {key}\r\n\r\n".encode()
        )
        time.sleep(1.0)  # it never reads
        for start in range(2000, 12000, 500):
            say(api, *(numbered("acme", n, summary=LONG) for n in range(start, start + 500)))
            last = 0
            while last < start + 499:
                item = json.loads(quick.recv(timeout=20))
                last = item["data"]["revision"] if "data" in item else last
        assert last == 11_999


def test_server_sent_events_resume_with_the_last_id(api: Api, address: str) -> None:
    url = f"http://{address}/v1/live/alerts"

    def events(count: int, **headers: str) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = []
        named = api.headers("acme", "viewer") | {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx.stream("GET", url, headers=named, timeout=20) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            if not headers:
                say(api, numbered("acme", 50), numbered("globex", 51), numbered("acme", 52))
            ident = ""
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    ident = line.removeprefix("id: ")
                elif line.startswith("data: "):
                    found.append((ident, json.loads(line.removeprefix("data: "))))
                    if len(found) == count:
                        return found
        return found

    first = events(2)
    assert [data["id"] for _, data in first] == ["acme-50", "acme-52"]
    assert [data["id"] for _, data in events(1, Last_Event_ID=first[0][0])] == ["acme-52"]


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}), ("", {"Authorization": "Bearer fck_made-up"}), ("tenant=globex", None), ("streams=alerts,everything", None), ("after=alerts@what", None),
        ("after=health@0:1", None),
    ],
)  # fmt: skip
def test_what_is_refused(api: Api, address: str, query: str, headers: dict[str, str] | None) -> None:
    given = api.headers("acme", "viewer") if headers is None else headers
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://{address}/v1/live?{query}", additional_headers=given):
        pass
    assert refused.value.response.status_code == 403


def test_a_browser_offers_its_key_as_a_subprotocol(api: Api, address: str) -> None:
    offered = ["flowchain", f"{sockets.SUBPROTOCOL}{api.keys['acme', 'viewer']}"]
    with connect(f"ws://{address}/v1/live", subprotocols=offered) as client:  # type: ignore[arg-type]
        assert client.subprotocol == "flowchain"
        say(api, numbered("acme", 60))
        assert heard(client, 1)[0]["data"]["id"] == "acme-60"


def test_a_key_that_is_revoked_ends_its_streams(api: Api, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECHECK_S", 0.2)
    made = api.send("POST", "/v1/keys", {"name": "ends", "role": "viewer"}, status=201)
    with connect(f"ws://{address}/v1/live", additional_headers={"X-API-Key": made["key"]}) as client:
        api.send("DELETE", f"/v1/keys/{made['id']}", status=204)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=20)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == sockets.POLICY


def test_registered_flows_are_told(api: Api, address: str) -> None:
    with listening(api, address, "streams=flows,alerts") as acme, listening(api, address, "streams=flows", tenant="globex") as globex:
        body = [{"name": "told", "steps": [{"name": "a", "component": "c"}]}]
        answer = httpx.post(f"http://{address}/v1/flows", json=body, headers=api.headers("acme", "service"))
        assert answer.status_code == 200
        found = heard(acme, 1)[0]
        assert (found["stream"], found["data"]["name"], found["data"]["tenant"]) == ("flows", "told", "acme")
        with pytest.raises(TimeoutError):
            globex.recv(timeout=0.5)
