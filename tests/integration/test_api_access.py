"""Who may do what, over every operation, role and tenant; and that nothing of another tenant ever shows."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from helpers_api import TENANTS, WINDOW, Api, running_api
from starlette.testclient import TestClient
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from connectors.database import EVERY_TENANT, Database
from connectors.deadletters import letter_headers
from connectors.http.principal import RIGHTS
from connectors.keys import ROLES, revoke_key
from infra.devstack import Stack
from schemas.operations import DeadLetter
from schemas.topics import EVENTS, EVENTS_DLQ

READ, ACT, DEFINE, EMIT, ADMINISTER = "read", "act", "define", "emit", "administer"
OWN: dict[str, str] = {
    "GET /v1/executions": READ, "GET /v1/open-executions": READ, "GET /v1/executions/{execution}": READ,
    "GET /v1/executions/{execution}/trace": READ, "GET /v1/executions/{execution}/diagram": READ,
    "GET /v1/flows": READ, "POST /v1/flows": DEFINE, "POST /v1/definitions/validate": READ, "POST /v1/definitions/import/{kind}": READ,
    "GET /v1/components/{component}/flows": READ, "GET /v1/flows/{flow}": READ, "PUT /v1/flows/{flow}": DEFINE,
    "DELETE /v1/flows/{flow}": DEFINE, "GET /v1/flows/{flow}/revisions": READ, "GET /v1/flows/{flow}/revisions/{revision}": READ,
    "GET /v1/flows/{flow}/diff": READ, "GET /v1/flows/{flow}/dependencies": READ, "GET /v1/flows/{flow}/drift": READ,
    "GET /v1/flows/{flow}/diagram": READ, "GET /v1/flows/{flow}/export/{kind}": READ, "GET /v1/flows/{flow}/executions": READ,
    "GET /v1/flows/{flow}/metrics": READ, "GET /v1/flows/{flow}/coverage": READ, "GET /v1/flows/{flow}/audit": ADMINISTER,
    "GET /v1/flows/{flow}/credentials": ADMINISTER, "PUT /v1/flows/{flow}/credentials/{name}": ADMINISTER,
    "DELETE /v1/flows/{flow}/credentials/{name}": ADMINISTER,
    "GET /v1/health": READ, "GET /v1/health/history": READ, "GET /v1/metrics/newest": READ, "GET /v1/anomalies": READ,
    "GET /v1/components": READ, "GET /v1/components/{component}": READ, "GET /v1/components/{component}/impact": READ,
    "GET /v1/dependencies": READ, "GET /v1/incidents": READ, "GET /v1/incidents/{incident}": READ,
    "GET /v1/incidents/{incident}/recovery": READ, "GET /v1/alerts": READ, "GET /v1/alerts/{alert}": READ,
    "POST /v1/alerts/{alert}/acknowledge": ACT, "DELETE /v1/alerts/{alert}/acknowledge": ACT, "POST /v1/alerts/{alert}/feedback": ACT,
    "GET /v1/silences": READ, "POST /v1/silences": ACT, "DELETE /v1/silences/{silence}": ACT, "GET /v1/slos": READ, "GET /v1/slos/{chain}": READ,
    "GET /v1/business/most-used-chains": READ, "GET /v1/business/chain-trends": READ, "GET /v1/business/failing-steps": READ,
    "GET /v1/business/resource-use": READ, "GET /v1/business/slowest-runs": READ, "GET /v1/users/{user}/metrics": READ,
    "GET /v1/users/{user}/executions": READ, "GET /v1/me": READ, "GET /v1/usage": READ, "GET /v1/keys": ADMINISTER, "POST /v1/keys": ADMINISTER,
    "DELETE /v1/keys/{key}": ADMINISTER, "GET /v1/audit": ADMINISTER, "GET /v1/live/{stream}": READ,
    "POST /v1/events": EMIT,
}  # fmt: skip
"""Operations on one tenant's things, and the right that each takes."""
ALL: dict[str, str] = {
    "GET /v1/tiers": READ, "GET /v1/tenants": READ, "GET /v1/tenants/{name}": READ, "PUT /v1/tenants/{name}": ADMINISTER,
    "DELETE /v1/tenants/{name}": ADMINISTER, "GET /v1/usage/by-tier": READ, "GET /v1/topics": READ, "GET /v1/lag": READ,
    "GET /v1/dead-letters": READ, "GET /v1/dead-letters/{letter}": READ, "POST /v1/redrives": ACT,
}  # fmt: skip
"""Operations on the whole installation, for keys of every tenant."""
OPEN = {"GET /healthz", "GET /readyz", "GET /metrics"}
"""For probes: without a key, and without anything of a tenant."""
OF_ALL = {"GET /v1/audit"}
"""Operations on one tenant's things that take those of all of them, where the key is for every tenant and names none."""
MADE_ONCE = {"POST /v1/keys", "GET /v1/live/{stream}"}


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    with running_api(stack) as running:
        for tenant in TENANTS:
            running.send("POST", "/v1/flows", [definition(tenant)], tenant=tenant)
        yield running


def definition(tenant: str) -> dict[str, Any]:
    steps = [{"name": f"{tenant}-first", "component": f"{tenant}-web"}, {"name": f"{tenant}-second", "component": f"{tenant}-db"}]
    return {"name": f"{tenant}-chain", "description": f"of {tenant}", "steps": steps}


def operations(api: Api) -> list[str]:
    document = api.client.get("/openapi.json").json()
    return [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]


def filled(path: str, tenant: str) -> str:
    """Return a path with the names that a tenant's things have."""
    names = {
        "execution": f"{tenant}-bad", "flow": f"{tenant}-chain", "component": f"{tenant}-db", "revision": "1", "incident": f"{tenant}-incident",
        "alert": f"{tenant}-alert", "silence": f"{tenant}-silence", "chain": f"{tenant}-chain", "user": f"{tenant}-user", "key": "0" * 16,
        "name": f"{tenant}", "letter": "0:0", "stream": "nothing", "kind": "custom",
    }  # fmt: skip
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", value)
    return path


BODIES: dict[str, Any] = {
    "POST /v1/flows": [{"name": "tried", "steps": [{"name": "a", "component": "c"}]}], "PUT /v1/flows/{flow}": {"name": "x", "steps": []},
    "POST /v1/definitions/validate": {"name": "tried", "steps": [{"name": "a", "component": "c"}]}, "POST /v1/definitions/import/{kind}": {},
    "POST /v1/alerts/{alert}/feedback": {"verdict": "right"},
    "POST /v1/silences": {"ends_at": "2099-01-01T00:00:00Z", "reason": "a test"}, "POST /v1/keys": {"name": "tried", "role": "viewer"},
    "PUT /v1/tenants/{name}": {"tier": "no-such-tier"}, "POST /v1/redrives": {"letters": ["0:0"], "dry_run": True},
    "PUT /v1/flows/{flow}/credentials/{name}": {}, "POST /v1/events": [],
}  # fmt: skip


def tried(api: Api, operation: str, headers: dict[str, str], query: dict[str, str], of: str = "acme") -> int:
    method, path = operation.split(" ")
    return api.client.request(method, filled(path, of), params=query, headers=headers, json=BODIES.get(operation)).status_code


def test_every_operation_is_in_the_matrix(api: Api) -> None:
    assert set(operations(api)) == OWN.keys() | ALL.keys() | OPEN


@pytest.mark.parametrize("operation", sorted(OWN.keys() | ALL.keys()))
def test_without_a_valid_key_nothing_is_answered(api: Api, operation: str) -> None:
    assert tried(api, operation, {}, {}) == 401
    assert tried(api, operation, {"Authorization": "Bearer fck_made-up"}, {}) == 401
    assert tried(api, operation, {"X-API-Key": "fck_made-up"}, {}) == 401


@pytest.mark.parametrize("operation", sorted(OWN))
@pytest.mark.parametrize("role", ROLES)
def test_own_things_by_role(api: Api, operation: str, role: str) -> None:
    may = role in RIGHTS[OWN[operation]]  # type: ignore[index]
    status = tried(api, operation, api.headers("acme", role), {})
    assert (status not in (401, 403)) == may, (operation, role, status)
    assert tried(api, operation, api.headers("acme", role), {"tenant": "globex"}) == 403
    assert tried(api, operation, api.headers("acme", role), {"tenant": EVERY_TENANT}) == 403
    overall = tried(api, operation, api.headers(EVERY_TENANT, role), {"tenant": "acme"})
    assert (overall not in (401, 403)) == may, (operation, role, overall)
    unnamed = tried(api, operation, api.headers(EVERY_TENANT, role), {})
    assert unnamed == (403 if not may else 200 if operation in OF_ALL else 400)


@pytest.mark.parametrize("operation", sorted(ALL))
@pytest.mark.parametrize("role", ROLES)
def test_the_whole_installation_by_role(api: Api, operation: str, role: str) -> None:
    assert tried(api, operation, api.headers("acme", role), {}) == 403
    may = role in RIGHTS[ALL[operation]]  # type: ignore[index]
    status = tried(api, operation, api.headers(EVERY_TENANT, role), {}, of="nobody")
    assert (status not in (401, 403)) == may, (operation, role, status)


@pytest.mark.parametrize("operation", sorted(name for name in OWN if name.startswith("GET") and name not in MADE_ONCE))
def test_nothing_of_another_tenant_shows(api: Api, operation: str) -> None:
    path = operation.removeprefix("GET ")
    for of in TENANTS:
        query = {**WINDOW, "chain": f"{of}-chain", "old": "1", "new": "1"} if "slowest" in path else {**WINDOW, "old": "1", "new": "1"}
        answer = api.client.get(filled(path, of), params=query, headers=api.headers("acme", "admin"))
        text = answer.text.replace("there is no", "") if answer.status_code == 404 else answer.text
        asked = filled(path, of) if answer.status_code == 404 else ""
        leaked = "globex" in text and "globex" not in asked and not (path.startswith("/v1/users") and f'"user":"{of}-user"' in text and of == "globex")
        assert not leaked, (path, of, answer.text[:500])
        if of == "globex" and "{" in path and not path.startswith("/v1/users"):
            assert answer.status_code == 404 or answer.json() in ([], {"items": [], "next": None}), (path, answer.text[:300])


@pytest.mark.parametrize("operation", ["POST /v1/alerts/{alert}/acknowledge", "POST /v1/alerts/{alert}/feedback", "DELETE /v1/flows/{flow}"])
def test_nothing_of_another_tenant_can_be_changed(api: Api, operation: str) -> None:
    assert tried(api, operation, api.headers("acme", "admin"), {}, of="globex") == 404
    assert api.get("/v1/alerts/globex-alert", tenant="globex")["actions"] == []
    assert api.get("/v1/flows/globex-chain", tenant="globex")["revision"] == 1


def test_probes_need_no_key_and_tell_nothing_of_a_tenant(api: Api) -> None:
    for operation in sorted(OPEN):
        answer = api.client.get(operation.removeprefix("GET "))
        assert answer.status_code == 200, (operation, answer.text)
        assert not any(tenant in answer.text for tenant in TENANTS)


def test_a_revoked_or_expired_key_is_refused_at_once(api: Api) -> None:
    made = api.send("POST", "/v1/keys", {"name": "short", "role": "viewer"}, status=201)
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert api.client.get("/v1/me", headers=headers).status_code == 200
    assert made["key"] not in str(api.get("/v1/keys")) and made["key"] not in str(api.get("/v1/audit"))
    api.send("DELETE", f"/v1/keys/{made['id']}", status=204)
    assert api.client.get("/v1/me", headers=headers).status_code == 401
    old = api.send("POST", "/v1/keys", {"name": "old", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}, status=201)
    assert api.client.get("/v1/me", headers={"X-API-Key": old["key"]}).status_code == 401


def test_a_key_revoked_by_another_process_is_refused_soon(api: Api) -> None:
    made = api.send("POST", "/v1/keys", {"name": "elsewhere", "role": "viewer"}, status=201)
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert api.client.get("/v1/me", headers=headers).status_code == 200
    elsewhere = Database(api.settings)
    with elsewhere.session("acme", "another process") as connection:
        assert revoke_key(connection, "acme", made["id"])
    elsewhere.close()
    for attempt in Retrying(stop=stop_after_delay(30), wait=wait_fixed(0.1), retry=retry_if_exception_type(AssertionError)):
        with attempt:
            assert api.client.get("/v1/me", headers=headers).status_code == 401


def test_who_sent_which_dead_letters_again_stands_in_the_audit_log(api: Api) -> None:
    producer = Producer(api.settings.kafka())
    told = DeadLetter(topic=api.settings.topic(EVENTS.name), partition=0, offset=7, stage="validate", reason="unknown field")
    event = {"type": "step.completed", "chain": "c", "execution": "again", "step": "s", "time_unix_us": time.time_ns() // 1000}
    producer.produce(api.settings.topic(EVENTS_DLQ.name), json.dumps(event), "again", 0, headers=letter_headers([], told))
    assert producer.flush(30) == 0
    (letter,) = [x["letter"] for x in api.get("/v1/dead-letters", tenant=EVERY_TENANT)["items"] if x["reason"] == "unknown field"]
    for dry_run in (True, False, False):
        found = api.send("POST", "/v1/redrives", {"letters": [letter, "0:999"], "dry_run": dry_run}, tenant=EVERY_TENANT)
        assert {kept["letter"] for kept in found["kept"]} >= {"0:999"}
    assert found["sent"] == [], "it was sent once"
    (entry,) = api.get("/v1/audit", tenant=EVERY_TENANT, object_type="redrive")["items"]
    assert (entry["action"], entry["after"]["letters"]) == ("insert", [letter]) and entry["actor"].startswith("key:")


def test_requests_are_limited_by_tier(api: Api, client_of_a_small_tier: TestClient) -> None:
    answers = [client_of_a_small_tier.get("/v1/health") for _ in range(61)]
    assert [answer.status_code for answer in answers] == [200] * 60 + [429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert answers[-1].json()["detail"] == "60 requests per minute are allowed"
    assert api.client.get("/v1/health", headers=api.headers("acme", "viewer")).status_code == 200


@pytest.fixture
def client_of_a_small_tier(api: Api) -> Iterator[TestClient]:
    api.send("PUT", "/v1/tenants/tiny", {"tier": "free"}, tenant=EVERY_TENANT)
    made = api.client.post("/v1/keys?tenant=tiny", json={"name": "k", "role": "viewer"}, headers=api.headers(EVERY_TENANT)).json()
    api.client.headers["Authorization"] = f"Bearer {made['key']}"
    yield api.client
    del api.client.headers["Authorization"]
