"""Everything that the OpenAPI document allows, and what it forbids, thrown at every operation: nothing answers 5xx or what it does not say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from helpers_api import Api, running_api, served
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS
from schemathesis.core.transport import Response

from connectors.database import EVERY_TENANT
from infra.devstack import Stack

WANTED = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance", "response_schema_conformance",
    "negative_data_rejection", "unsupported_method",
)  # fmt: skip
ENDLESS = "/v1/live/{stream}"


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    with running_api(stack) as running:
        running.send("POST", "/v1/flows", [{"name": "acme-chain", "steps": [{"name": "a", "component": "c"}]}])
        yield running


@pytest.fixture(scope="module")
def address(api: Api) -> Iterator[str]:
    with served(api.settings) as found:
        yield found


document = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text(encoding="utf-8"))
"""The one that is checked in; the lint holds the code to it."""
everything = schemathesis.openapi.from_dict(document).exclude(path=ENDLESS)


@everything.parametrize()
@settings(max_examples=6, suppress_health_check=list(HealthCheck), deadline=None)
def test_nothing_is_answered_that_the_document_does_not_say(case: Any, api: Api, address: str) -> None:
    everywhere = case.operation.path.startswith(("/v1/tenants", "/v1/tiers", "/v1/topics", "/v1/lag", "/v1/dead-letters", "/v1/redrives", "/v1/usage/by-tier"))
    answer: Response = case.call(base_url=f"http://{address}", headers=api.headers(EVERY_TENANT if everywhere else "acme", "admin"))
    case.validate_response(answer, checks=[CHECKS.get_one(name) for name in WANTED])
