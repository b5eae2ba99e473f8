"""The SDK's HTTP and WebSocket channels against the real API: every event is on the topic, once, under its key."""

import gzip
from collections.abc import Iterator

import orjson
import pytest
from helpers_api import Api, running_api, served

import flowchain
from connectors.log import read_topic
from flowchain.integrations import options
from infra.devstack import Stack
from schemas.events import CHAIN_MESSAGE
from schemas.topics import EVENTS

EVENTS_OF_A_RUN = ["execution.started", "step.started", "step.completed", "execution.completed"]


@pytest.fixture(autouse=True)
def _only_what_is_reported_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test may have instrumented this process, and with it the API that runs inside: its requests begin nothing."""
    monkeypatch.setattr(options, "current", options.Options(begin=False))


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    with running_api(stack) as running:
        yield running


@pytest.fixture(scope="module")
def address(api: Api) -> Iterator[str]:
    with served(api.settings) as found:
        yield found


def stored(api: Api, chain: str) -> dict[str, list[str]]:
    """Return the types of a chain's events on the topic, by their key."""
    found: dict[str, list[str]] = {}
    for message in read_topic(api.settings, api.settings.topic(EVENTS.name)):
        CHAIN_MESSAGE.validate_json(message.value() or b"")
        event = orjson.loads(message.value() or b"")
        if event["chain"] == chain:
            key = message.key()
            assert isinstance(key, bytes) and event["execution"] == key.decode() and event["tenant"] == "acme"
            found.setdefault(event["execution"], []).append(event["type"])
    return found


def report(executions: int, chain: str, **settings: str) -> flowchain.Stats:
    flowchain.init("shop", tenant="acme", **settings)  # type: ignore[arg-type]
    for _ in range(executions):
        with flowchain.execution(chain), flowchain.step("validate", attributes={"text": "x" * 50}):
            pass
    publisher = flowchain._publisher
    assert publisher is not None
    publisher.flush(20.0)
    stats = flowchain.stats()
    flowchain.shutdown(5.0)
    return stats


@pytest.mark.parametrize("channel", ["http", "websocket"])
def test_what_a_service_reports_is_on_the_topic(api: Api, address: str, channel: str) -> None:
    key = api.keys["acme", "service"]
    stats = report(500, f"by {channel}", channel=channel, url=f"http://{address}", api_key=key)
    assert stats == flowchain.Stats(2000, 2000, 0, {})
    found = stored(api, f"by {channel}")
    assert len(found) == 500 and all(types == EVENTS_OF_A_RUN for types in found.values())


def test_a_key_of_another_tenant_and_none_at_all_are_counted(api: Api, address: str) -> None:
    url = f"http://{address}"
    assert report(1, "foreign", channel="http", url=url, api_key=api.keys["globex", "service"]).dropped == {"refused": 4}
    assert report(1, "keyless", channel="http", url=url, api_key="").dropped == {"http_401": 4}
    assert not stored(api, "foreign") and not stored(api, "keyless")


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [(gzip.compress(b"[]"), "gzip", 202), (b"[]", "gzip", 400), (gzip.compress(b"[]") + b"x", "gzip", 400), (b"[]", "br", 415),
     (gzip.compress(b" " * 5_000_000), "gzip", 413)],
    ids=["gzip", "no gzip", "more than gzip", "brotli", "too long"],
)  # fmt: skip
def test_bodies_may_be_gzip(api: Api, body: bytes, encoding: str, status: int) -> None:
    headers = {**api.headers("acme", "service"), "content-type": "application/json", "content-encoding": encoding}
    assert api.client.post("/v1/events", content=body, headers=headers).status_code == status


def test_a_registered_chain_is_fetched_and_run(api: Api, address: str) -> None:
    steps = [{"name": "double", "component": "maths"}, {"name": "text", "component": "maths"}]
    api.send("PUT", "/v1/flows/fetched%20chain", {"name": "fetched chain", "version": "7", "steps": steps})
    definition = flowchain.fetch_definition("fetched chain", f"http://{address}", api.keys["acme", "viewer"])
    runner = flowchain.ChainRunner(definition, {"double": lambda n: 2 * n, "text": str})
    assert runner.run(4).output == "8" and runner.plan.version == "7"
    with pytest.raises(OSError, match="404"):
        flowchain.fetch_definition("no such chain", f"http://{address}", api.keys["acme", "viewer"])
