"""Flows over the API: revisions, concurrent changes, idempotency, limits of tiers, and what is drawn and told of them."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet
from helpers_api import START_US, WINDOW, Api, running_api, sink

from connectors.database import EVERY_TENANT
from infra.devstack import Stack
from schemas.internal import Execution, Step, TraceBatch

LOOPED = {
    "name": "agent", "kind": "langgraph", "steps": [{"name": "think", "component": "llm"}, {"name": "act", "component": "tools"}],
    "edges": [{"source": "think", "target": "act"}, {"source": "act", "target": "think", "loop": True}],
}  # fmt: skip


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    with running_api(stack, credential_keys=Fernet.generate_key().decode()) as running:
        yield running


def chain(name: str, *steps: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "steps": [{"name": step, "component": f"{step}-service"} for step in steps], **more}


def test_a_flow_and_its_history(api: Api) -> None:
    first = api.send("PUT", "/v1/flows/orders", chain("orders", "take", "pay"))["flows"][0]
    assert (first["outcome"], first["revision"]) == ("created", 1)
    assert api.send("PUT", "/v1/flows/orders", chain("orders", "take", "pay"))["flows"][0] == {**first, "outcome": "unchanged"}
    second = api.send("PUT", "/v1/flows/orders", chain("orders", "take", "pay", "ship"))["flows"][0]
    assert (second["outcome"], second["revision"]) == ("changed", 2) and second["id"] != first["id"]

    shown = api.get("/v1/flows/orders")
    assert shown["author"].startswith("key:") and [step["name"] for step in shown["definition"]["steps"]] == ["take", "pay", "ship"]
    assert [row["revision"] for row in api.get("/v1/flows/orders/revisions")["items"]] == [2, 1]
    assert api.get("/v1/flows/orders/revisions/1")["id"] == first["id"]
    changes = api.get("/v1/flows/orders/diff", old=1, new=2)
    assert any("ship" in change["field"] for change in changes) and any(change["breaking"] for change in changes)
    uses = api.get("/v1/components/pay-service/flows")
    assert [(use["chain"], use["step"], use["revision"]) for use in uses] == [("orders", "pay", 2)]

    api.send("DELETE", "/v1/flows/orders")
    api.get("/v1/flows/orders", status=404)
    assert [row["deleted"] for row in api.get("/v1/flows/orders/revisions")["items"]] == [True, False, False]
    audit = api.get("/v1/flows/orders/audit")["items"]
    assert len(audit) == 3 and all(entry["actor"].startswith("key:") for entry in audit)


def test_two_who_change_a_flow_at_once(api: Api) -> None:
    api.send("PUT", "/v1/flows/raced", chain("raced", "a"))
    tag = api.client.get("/v1/flows/raced", headers=api.headers()).headers["ETag"]
    assert tag == '"1"'
    api.send("PUT", "/v1/flows/raced", chain("raced", "a", "b"), If_Match=tag)
    refused = api.send("PUT", "/v1/flows/raced", chain("raced", "a", "c"), If_Match=tag, status=412)
    assert "somebody else" in refused["detail"]
    api.send("DELETE", "/v1/flows/raced", If_Match=tag, status=412)
    assert api.client.get("/v1/flows/raced", headers=api.headers() | {"If-None-Match": '"2"'}).status_code == 304


def test_the_same_write_twice_is_done_once(api: Api) -> None:
    body = {"ends_at": "2099-01-01T00:00:00Z", "reason": "maintenance", "component": "db"}
    headers = api.headers() | {"Idempotency-Key": "k1"}
    answers = [api.client.post("/v1/silences", json=body, headers=headers) for _ in range(2)]
    assert answers[0].status_code == answers[1].status_code == 201 and answers[0].json() == answers[1].json()
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]
    assert len(api.get("/v1/silences")["items"]) == 1
    other = api.client.post("/v1/silences", json={**body, "reason": "another"}, headers=headers)
    assert other.status_code == 422 and "another request" in other.json()["detail"]
    assert api.client.post("/v1/silences", json=body, headers=api.headers("globex") | {"Idempotency-Key": "k1"}).headers.get("Idempotency-Replayed") is None
    again = api.client.request("DELETE", f"/v1/silences/{answers[0].json()['id']}", headers=api.headers())
    assert again.status_code == 204 and api.get("/v1/silences")["items"] == []


def test_what_is_wrong_with_a_definition_is_named(api: Api) -> None:
    cyclic = chain("cyclic", "a", "b")
    cyclic["steps"][0]["after"], cyclic["steps"][1]["after"] = ["b"], ["a"]
    problem = api.send("POST", "/v1/flows", [cyclic], status=422)
    assert "a → b → a" in problem["detail"] and problem["errors"][0]["field"].startswith("body.0")
    assert api.send("POST", "/v1/definitions/validate", chain("x"), status=422)["errors"][0]["field"] == "body.steps"
    api.send("POST", "/v1/flows", [chain("p", "s"), chain("q", "s", requires=["p"])])
    assert "p → q → p" in api.send("PUT", "/v1/flows/p", chain("p", "s", requires=["q"]), status=422)["detail"]
    api.send("POST", "/v1/flows", [chain("theirs", "a", tenant="globex")], status=403)
    api.get("/v1/flows/theirs", status=404)


def test_foreign_formats_there_and_back(api: Api) -> None:
    api.send("PUT", "/v1/flows/agent", LOOPED)
    document = api.get("/v1/flows/agent/export/langgraph")
    back = api.send("POST", "/v1/definitions/import/langgraph?name=agent", document)
    assert {step["name"] for step in back[0]["steps"]} == {"think", "act"} and any(edge["loop"] for edge in back[0]["edges"])
    assert "errors" in api.send("POST", "/v1/definitions/import/langgraph", {"nodes": 5}, status=422)


def test_a_tier_bounds_what_is_registered(api: Api) -> None:
    api.send("PUT", "/v1/tenants/small", {"tier": "free"}, tenant=EVERY_TENANT)
    path = "/v1/flows?tenant=small"
    assert "objectives" in api.send("POST", path, [chain("a", "s", slo={"objective": 0.99})], tenant=EVERY_TENANT, status=403)["detail"]
    assert "loops" in api.send("POST", path, [LOOPED], tenant=EVERY_TENANT, status=403)["detail"]
    api.send("POST", path, [chain(f"f{n}", "s") for n in range(3)], tenant=EVERY_TENANT)
    assert "allows 3 flows" in api.send("POST", path, [chain("f4", "s")], tenant=EVERY_TENANT, status=403)["detail"]
    api.send("POST", path, [chain("f2", "s", "t")], tenant=EVERY_TENANT)
    api.send("PUT", "/v1/tenants/small", {"tier": "pro"}, tenant=EVERY_TENANT)
    api.send("POST", path, [chain("f4", "s")], tenant=EVERY_TENANT)
    me = api.client.get("/v1/me?tenant=small", headers=api.headers(EVERY_TENANT)).json()
    assert (me["tier"]["name"], me["chains_declared"]) == ("pro", 4)
    api.send("PUT", "/v1/tenants/small", {"tier": "gold"}, tenant=EVERY_TENANT, status=422)


def test_a_registered_flow_holds_in_the_live_view(api: Api) -> None:
    api.send("PUT", "/v1/flows/acme-chain", {
        "name": "acme-chain", "steps": [
            {"name": "acme-first", "component": "acme-web", "expected_duration_ms": 1}, {"name": "acme-second", "component": "acme-db", "expected_duration_ms": 2},
            {"name": "acme-never", "component": "acme-db", "optional": True},
        ],
    })  # fmt: skip
    drawn: dict[str, Any] = {}
    for _ in range(100):
        drawn = api.get("/v1/executions/acme-bad/diagram")
        if len(drawn["nodes"]) == 3:
            break
        time.sleep(0.1)
    assert [(node["step"], node["status"]) for node in drawn["nodes"]] == [("acme-first", "completed"), ("acme-second", "failed"), ("acme-never", "pending")]
    assert [(edge["source"], edge["target"]) for edge in drawn["edges"]] == [("s0", "s1"), ("s1", "s2")]
    flow = api.get("/v1/flows/acme-chain/diagram")
    assert {node["step"]: node["status"] for node in flow["nodes"]} == {"acme-first": "unknown", "acme-second": "failing", "acme-never": "unknown"}
    text = api.client.get("/v1/flows/acme-chain/diagram?format=mermaid", headers=api.headers())
    assert text.headers["content-type"].startswith("text/vnd.mermaid") and "acme-second" in text.text
    picture = api.client.get("/v1/executions/acme-bad/diagram?format=svg", headers=api.headers())
    assert picture.headers["content-type"] == "image/svg+xml" and picture.text.count("<rect") == 3


def test_what_is_stored_is_told(api: Api) -> None:
    trace = api.get("/v1/executions/acme-bad/trace")
    assert [(step["step"], step["status"]) for step in trace["steps"]] == [("acme-first", "completed"), ("acme-second", "failed")]
    assert trace["steps"][1]["parents"] == [{"span": "acme-s1", "execution": "", "component": "acme-web"}] and trace["steps"][1]["logs"]
    listed = api.get("/v1/executions", **WINDOW)["items"]
    assert [x["execution"] for x in listed] == ["acme-good", "acme-bad"]
    pages = [api.get("/v1/executions", limit=1, **WINDOW)]
    pages.append(api.get("/v1/executions", limit=1, cursor=pages[0]["next"], **WINDOW))
    assert [page["items"][0]["execution"] for page in pages] == ["acme-good", "acme-bad"] and pages[1]["next"] is None
    failed = api.client.get("/v1/executions", params={**WINDOW, "status": "failed"}, headers=api.headers()).json()
    assert [x["execution"] for x in failed["items"]] == ["acme-bad"]
    metrics = api.get("/v1/users/acme-user/metrics")
    assert (metrics["executions"], metrics["success_ratio"], metrics["most_used_chains"]) == (2, 0.5, ["acme-chain"])
    assert api.get("/v1/users/nobody/metrics") == {
        "user": "nobody", "executions": 0, "completed": 0, "failed": 0, "mean_duration_us": None, "success_ratio": None, "most_used_chains": [],
    }  # fmt: skip
    assert api.get("/v1/business/most-used-chains", **WINDOW)[0]["executions"] == 2
    assert api.get("/v1/business/failing-steps", **WINDOW)[0]["failures"] == 1
    assert api.get("/v1/business/resource-use", **WINDOW)[0]["cpu_us"] == 1000
    assert api.get("/v1/business/slowest-runs", chain="acme-chain", **WINDOW)[0]["duration_us"] == 2000
    impact = api.get("/v1/components/acme-web/impact", **WINDOW)
    assert [x["name"] for x in impact["downstream"]] == ["acme-db"] and impact["upstream"] == []
    assert [x["name"] for x in api.get("/v1/components/acme-db/impact", **WINDOW)["upstream"]] == ["acme-web"]
    assert api.get("/v1/health/history", kind="chain", **WINDOW)["items"][0]["failed"] == 1
    assert api.get("/v1/anomalies", **WINDOW)["items"][0]["score"] == 0.97
    assert api.get("/v1/incidents/acme-incident")["title"] == "acme-db fails"
    assert api.get("/v1/usage", **WINDOW)[0]["executions"] == 2


def test_people_act_on_alerts(api: Api) -> None:
    assert api.send("POST", "/v1/alerts/acme-alert/acknowledge", {"note": "mine"}, role="operator")["acknowledged_by"]
    judged = api.send("POST", "/v1/alerts/acme-alert/feedback", {"verdict": "right"}, role="operator")
    assert [action["action"] for action in judged["actions"]] == ["feedback", "acknowledge"] and judged["acknowledged_by"]
    assert api.send("DELETE", "/v1/alerts/acme-alert/acknowledge", role="operator")["acknowledged_by"] is None
    assert api.get("/v1/alerts/acme-alert")["silenced"] is False
    silence = api.send("POST", "/v1/silences", {"chain": "acme-chain", "ends_at": "2099-01-01T00:00:00Z", "reason": "known"}, status=201)
    assert api.get("/v1/alerts", **WINDOW)["items"][0]["silenced"] is True
    api.send("DELETE", f"/v1/silences/{silence['id']}", status=204)
    assert api.get("/v1/alerts/acme-alert")["silenced"] is False


def test_credentials_are_never_given_back(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    path = "/v1/flows/acme-chain/credentials"
    api.send("PUT", f"{path}/token", {"value": "hunter2-is-no-password", "description": "of the broker"}, status=204)
    listed = api.client.get(path, headers=api.headers())
    assert [row["name"] for row in listed.json()] == ["token"] and "hunter2" not in listed.text
    problem = api.client.put(f"{path}/token", json={"value": "hunter2-is-no-password", "expires_at": "soon"}, headers=api.headers())
    assert problem.status_code == 422 and "hunter2" not in problem.text
    assert "hunter2" not in caplog.text and "hunter2" not in api.client.get("/v1/audit", headers=api.headers()).text
    api.send("DELETE", f"{path}/token", status=204)
    api.send("DELETE", f"{path}/token", status=404)


def test_bodies_and_cursors_are_bounded(api: Api) -> None:
    huge = api.client.post("/v1/flows", content=b"[" + b" " * 5_000_000 + b"]", headers=api.headers())
    assert huge.status_code == 413 and huge.headers["content-type"] == "application/problem+json"

    def pieces() -> Iterator[bytes]:
        for _ in range(60):
            yield b" " * 100_000

    assert api.client.post("/v1/flows", content=pieces(), headers=api.headers()).status_code == 413
    assert api.get("/v1/executions", cursor="nonsense", status=422)["errors"][0]["field"] == "query.cursor"
    flows_cursor = api.get("/v1/flows", limit=1)["next"]
    assert flows_cursor and "not a cursor of this list" in api.get("/v1/executions", cursor=flows_cursor, status=422)["detail"]
    api.get("/v1/no-such-thing", status=404)


def test_coverage_is_the_share_of_declared_hops_and_of_named_parents_that_were_seen(api: Api) -> None:
    began = datetime.fromtimestamp(START_US / 1e6 - 60, UTC)
    declared = chain("covered", "take", "pay", "ship", effective_from_unix_us=round(began.timestamp() * 1e6))
    declared["steps"].append({"name": "gift", "component": "gift-service", "optional": True})
    api.send("PUT", "/v1/flows/covered", declared)
    whole, torn = (
        [run("take"), run("pay", "take"), run("ship", "pay")],
        [run("take"), run("ship", "pay")],
    )
    found = [
        covered("a", whole), covered("b", whole), covered("c", torn, status="incomplete", missing=["pay"]), covered("d", torn[:1], status="failed"),
        covered("e", torn[1:], status="abandoned"),
    ]  # fmt: skip
    sink(api.settings, "flowchain.traces.v1", 77, [TraceBatch("flowchain.events.v1", 0, START_US, found)])
    coverage = api.get("/v1/flows/covered/coverage", **WINDOW)
    assert (coverage["executions"], coverage["hops_declared"], coverage["hops_seen"]) == (3, 9, 8)
    assert coverage["coverage_ratio"] == pytest.approx(8 / 9)
    assert [(step["step"], step["seen"]) for step in coverage["steps"]] == [("pay", 2), ("take", 3), ("ship", 3)]
    assert coverage["thread"] == {"executions": 5, "runs": 10, "without_parents": 4, "parents_named": 6, "parents_seen": 4, "linked_ratio": pytest.approx(4 / 6)}


def test_coverage_of_a_chain_without_a_definition_is_its_thread(api: Api) -> None:
    coverage = api.get("/v1/flows/globex-chain/coverage", tenant="globex", **WINDOW)
    assert (coverage["executions"], coverage["coverage_ratio"], coverage["steps"]) == (0, None, [])
    assert coverage["thread"] | {"runs": 4, "parents_named": 2, "linked_ratio": 1.0} == coverage["thread"]
    api.get("/v1/flows/no-such-chain/coverage", **WINDOW, status=404)


def run(step: str, parent: str = "") -> Step:
    at = START_US + 1_000
    parents = [(f"span-{parent}", "", f"{parent}-service")] if parent else []
    return Step(f"span-{step}", step, f"{step}-service", 1, status="completed", start_us=at, end_us=at, parents=parents)


def covered(name: str, steps: list[Step], status: str = "completed", missing: Sequence[str] = ()) -> Execution:
    return Execution(
        "acme", "covered", f"covered-{name}", 1, 2, status=status, start_us=START_US, last_us=START_US + 1_000, ended_us=START_US + 1_000,
        steps={step.span: step for step in steps}, missing=list(missing), revision=1, finished_us=START_US + 2_000,
    )  # fmt: skip
