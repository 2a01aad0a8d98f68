"""The server's description of itself is true: whatever it allows, and much that it does not, is answered as it says."""

from __future__ import annotations

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import serving

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


EXAMPLES = 30
"""Of each route and kind."""


@pytest.fixture(scope="module")
def api(served_llm):
    with serving(served_llm) as (base, _):
        yield schemathesis.openapi.from_url(f"{base}/openapi.json")


def reach_the_model(case):
    """A random model or role is refused first, and nothing behind it would be tried."""
    if not isinstance(case.body, dict):
        return
    if isinstance(case.body.get("model"), str):
        case.body["model"] = "tiny"
    for name in ("messages", "input", "instructions"):
        items = case.body.get(name)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and (name == "messages" or item.keys() & {"role", "content"}):
                item["role"] = "user"


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_request_is_answered_as_described(api, mode):
    for found in api.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body and not operation.query.items:
            continue  # nothing in it can be wrong

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case):
            reach_the_model(case)
            case.call_and_validate(checks=CHECKS, timeout=60)

        holds()


def test_a_key_is_part_of_the_description(served_llm):
    with serving(served_llm, keys=["secret"]) as (base, _):
        described = httpx.get(f"{base}/openapi.json").json()
    assert described["security"] == [{"key": []}]
    assert described["paths"]["/health"]["get"]["security"] == []


def test_every_route_of_the_api_is_described(served_llm):
    with serving(served_llm) as (base, _):
        described = httpx.get(f"{base}/openapi.json").json()
    routes = {"/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/{model}", "/health", "/metrics"}
    routes |= {"/ready", "/tokenize", "/detokenize", "/tokenizer_info", "/v1/messages", "/v1/messages/count_tokens"}
    routes |= {"/v1/responses", "/v1/responses/input_tokens", "/v1/responses/{response_id}"}
    routes |= {"/v1/responses/{response_id}/cancel", "/v1/responses/{response_id}/input_items"}
    assert set(described["paths"]) == routes
    assert "security" not in described
