"""The application as it is put together: origins, the document's version, settings that belong together, a client of a mounted one."""

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.testclient import TestClient

from connectors.http.app import create_app
from connectors.settings import Settings

PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


def test_only_the_origins_that_are_named_may_call() -> None:
    client = TestClient(create_app(Settings(api_origins=["https://ours.example.test"])))
    ours = client.options("/v1/health", headers={"Origin": "https://ours.example.test", **PREFLIGHT})
    assert ours.status_code == 200 and ours.headers["access-control-allow-origin"] == "https://ours.example.test"
    theirs = client.options("/v1/health", headers={"Origin": "https://theirs.example.test", **PREFLIGHT})
    assert theirs.status_code == 400 and "access-control-allow-origin" not in theirs.headers


def test_without_origins_no_page_of_another_may_call() -> None:
    answer = TestClient(create_app(Settings())).options("/v1/health", headers={"Origin": "https://theirs.example.test", **PREFLIGHT})
    assert "access-control-allow-origin" not in answer.headers


def test_the_document_is_openapi_3_1_and_every_operation_says_what_it_does() -> None:
    document = create_app(Settings()).openapi()
    assert document["openapi"].startswith("3.1")
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert all(operation["summary"] and operation["description"] and operation["tags"] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_it_can_be_mounted() -> None:
    host = FastAPI()
    host.mount("/flowchain", create_app(Settings()))
    assert TestClient(host).get("/flowchain/healthz").json() == {"live": True}


def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    client = TestClient(create_app(Settings(api_body_bytes=1024)))
    answer = client.post("/v1/silences", content=b"x" * 1025)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    assert client.post("/v1/silences", content=b"", headers={"Content-Length": "many"}).status_code == 413


def test_half_of_what_openid_needs_is_refused() -> None:
    with pytest.raises(ValidationError, match="belong together; only oidc_issuer"):
        Settings(oidc_issuer="https://login.example.test")
