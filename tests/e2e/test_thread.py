"""One thread through five services: HTTP, Kafka, a batch that joins a hundred records, two consumers on other libraries, HTTP.

One of the consumers has OpenTelemetry only; the others run under flowchain-instrument. What is shown is what the API says.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from connectors.database import EVERY_TENANT, Database
from connectors.keys import create_key
from connectors.settings import Settings
from infra.devstack import Stack
from infra.local import addresses
from infra.preparing import prepare
from infra.supervisor import API, INTAKE, WORKERS, free_port, is_ready, workers

pytestmark = pytest.mark.timeout(300)
SERVICES = Path(__file__).parents[1] / "fixtures" / "thread"
PARCELS = 100
Step = dict[str, Any]


@contextmanager
def service(name: str, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service under flowchain-instrument, or as it is where it has a way of its own."""
    instrument = [] if name == "tracking" else [sys.executable, "-m", "flowchain.integrations.command", "--service", name]
    path = os.pathsep.join([str(SERVICES), str(Path(__file__).parents[2] / "sdk")])
    process = subprocess.Popen([*instrument, *command], env={**os.environ, "PYTHONPATH": path, **environment})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def eventually(check: Any) -> Any:
    """Return what `check` returns once it does not raise any more."""
    again = retry_if_exception_type((AssertionError, httpx.TransportError))
    return Retrying(stop=stop_after_delay(120), wait=wait_fixed(0.25), retry=again, reraise=True)(check)


@pytest.fixture(scope="module")
def seen(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Step], dict[str, Any], float, float]]:
    """The runs of the execution that all hops are part of, the chain's coverage, and bounds of the time in the broker, s."""
    home = tmp_path_factory.mktemp("thread")
    ports = {"intake_http_port": free_port(), "intake_grpc_port": free_port()}
    given: dict[str, Any] = addresses(stack) | ports | {
        "topic_prefix": "thread.", "postgres_schema": "thread", "clickhouse_database": "thread", "source_partitions": 2, "analysis_partitions": 2,
        "intake_spans_topic": "",
    }  # fmt: skip
    settings = Settings(**given)
    prepare(settings)
    admin = AdminClient(settings.kafka())
    for future in admin.create_topics([NewTopic("thread.parcels", 1, 1), NewTopic("thread.pallets", 1, 1)]).values():
        future.result(20)
    database = Database(settings)
    with database.session(EVERY_TENANT, "test") as connection:
        key, _ = create_key(connection, "acme", "thread", "viewer", "test")
    database.close()
    with workers(home, settings.environment(*given), (*WORKERS, INTAKE, API)) as supervisor, ExitStack() as services:
        eventually(lambda: ready(supervisor))
        base = f"http://127.0.0.1:{supervisor.of(API)[0].port}"
        between = run_services(stack, settings, services)
        with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=30) as api:
            yield *eventually(lambda: told(api)), *between


def ready(supervisor: Any) -> None:
    assert all(is_ready(child.port) for child in supervisor.children), [child.name for child in supervisor.children if not is_ready(child.port)]


def run_services(stack: Stack, settings: Settings, services: ExitStack) -> tuple[float, float]:
    """Let them work until all are done; return the least and the longest time that a parcel can have been in the broker."""
    web, ledger = free_port(), free_port()
    common = {
        "KAFKA": stack.bootstrap_servers, "LEDGER": f"http://127.0.0.1:{ledger}", "OTLP": f"http://127.0.0.1:{settings.intake_http_port}",
        "FLOWCHAIN_BOOTSTRAP_SERVERS": stack.bootstrap_servers, "FLOWCHAIN_TOPIC_PREFIX": "thread.", "FLOWCHAIN_TENANT": "acme",
        "FLOWCHAIN_CHAINS": "POST /parcels/{number}=delivery",
    }  # fmt: skip
    python = sys.executable
    services.enter_context(service("ledger", python, str(SERVICES / "ledger.py"), str(ledger), **common))
    services.enter_context(service("parcels", python, "-m", "uvicorn", "--log-level", "warning", "parcels:app", "--port", str(web), **common))
    eventually(lambda: httpx.get(f"http://127.0.0.1:{web}/docs"))
    eventually(lambda: httpx.get(f"http://127.0.0.1:{ledger}/"))
    began = time.time()
    with httpx.Client(base_url=f"http://127.0.0.1:{web}") as client:
        for number in range(PARCELS):
            assert client.post(f"/parcels/{number}").json() == {"parcel": number}
    sent = time.time()
    consumers = [services.enter_context(service(name, python, str(SERVICES / f"{name}.py"), **common)) for name in ("billing", "tracking")]
    packing_began = time.time()
    packing = services.enter_context(service("packing", python, str(SERVICES / "packing.py"), **common))
    for process in (packing, *consumers):
        assert process.wait(120) == 0, process.args
    return packing_began - sent, time.time() - began


def told(api: httpx.Client) -> tuple[list[Step], dict[str, Any]]:
    """Return what the API says, once it says of every hop."""
    answer = api.get("/v1/flows/delivery/coverage")
    assert answer.status_code == httpx.codes.OK, answer.text
    coverage = answer.json()
    assert coverage["thread"]["runs"] >= PARCELS + 5, coverage
    listed = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get("/v1/executions", params={"chain": "delivery", "limit": 100} | ({"cursor": cursor} if cursor else {})).json()
        listed += page["items"]
        cursor = page["next"]
    assert len(listed) == PARCELS
    [whole] = [found["execution"] for found in listed if found["steps"] > 1]
    return api.get(f"/v1/executions/{whole}/trace").json()["steps"], coverage


Seen = tuple[list[Step], dict[str, Any], float, float]


def of(steps: list[Step], component: str) -> list[Step]:
    return [step for step in steps if step["component"] == component]


def test_every_hop_is_found_and_nothing_is_invented(seen: Seen) -> None:
    steps, coverage, *_ = seen
    found = sorted((step["component"], step["step"], step["status"]) for step in steps)
    assert found == [
        ("billing", "process thread.pallets", "completed"), ("ledger", "POST /entries", "completed"), ("ledger", "POST /entries", "completed"),
        ("packing", "process thread.parcels", "completed"), ("parcels", "POST /parcels/{number}", "completed"), ("tracking", "track pallet", "completed"),
    ]  # fmt: skip
    assert coverage["thread"] == {
        "executions": PARCELS, "runs": PARCELS + 5, "without_parents": PARCELS, "parents_named": 5, "parents_seen": 5, "linked_ratio": 1.0,
    }  # fmt: skip


def test_every_hop_has_the_right_parents(seen: Seen) -> None:
    steps, *_ = seen
    spans = {step["span"]: step["component"] for step in steps}
    callers = {name: sorted(spans.get(parent["span"], "?") for step in of(steps, name) for parent in step["parents"]) for name in ("billing", "tracking", "ledger")}
    assert callers == {"billing": ["packing"], "tracking": ["packing"], "ledger": ["billing", "tracking"]}
    assert of(steps, "parcels")[0]["parents"] == []


def test_the_batch_has_all_that_it_joined_as_parents(seen: Seen) -> None:
    steps, *_ = seen
    [packing], [parcel] = of(steps, "packing"), of(steps, "parcels")
    assert len(packing["parents"]) == PARCELS and {parent["component"] for parent in packing["parents"]} == {"parcels"}
    assert len({parent["span"] for parent in packing["parents"]}) == PARCELS
    here = [parent["span"] for parent in packing["parents"] if not parent["execution"]]
    assert here == [parcel["span"]] and len({parent["execution"] for parent in packing["parents"]}) == PARCELS


def test_the_time_in_the_broker_is_what_it_was(seen: Seen) -> None:
    steps, _, least_s, longest_s = seen
    [packing], [billing], [tracking] = (of(steps, name) for name in ("packing", "billing", "tracking"))
    assert (packing["consumed"]["topic"], packing["consumed"]["offset"]) == ("thread.parcels", 0)
    assert least_s * 1e6 <= packing["consumed"]["broker_us"] <= longest_s * 1e6
    assert billing["consumed"]["topic"] == tracking["consumed"]["topic"] == "thread.pallets"
    assert 0 < billing["consumed"]["broker_us"] <= longest_s * 1e6
