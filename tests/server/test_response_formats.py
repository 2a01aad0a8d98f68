"""Response formats in every spelling that is in use: enforced, or refused with the accepted one."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from server.posting import CHAT, ROUTES, TEXT, TOOL, error, post

SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["ab", "abc"]}},
    "required": ["a"],
    "additionalProperties": False,
}
SPELLINGS = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": None, "schema": SCHEMA}}},
    {"response_format": {"type": "json_schema", "schema": SCHEMA}},
    {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    {"response_format": {"type": "json_object", "schema": SCHEMA}},
    {"json_schema": SCHEMA},
    {"guided_json": SCHEMA},
    {"guided_json": json.dumps(SCHEMA)},
    {"structured_outputs": {"json": SCHEMA}},
    {"structured_outputs": {"json": json.dumps(SCHEMA), "disable_fallback": True}},
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("chat", [False, True])
def test_a_schema_is_enforced_in_every_spelling(json_url, spelling, chat):
    path, body = ROUTES[chat]
    (choice,) = post(json_url, path, {**body, **spelling, "max_tokens": 300, "seed": 1})["choices"]
    assert choice["finish_reason"] == "stop"
    jsonschema.validate(json.loads(choice["message"]["content"] if chat else choice["text"]), SCHEMA)


@pytest.mark.parametrize(
    ("spelling", "pattern"),
    [
        ({"guided_regex": "[ab]{4}"}, "[ab]{4}"),
        ({"structured_outputs": {"regex": "[ab]{4}"}}, "[ab]{4}"),
        ({"guided_choice": ["a+b", "c/d-e"]}, r"a\+b|c/d-e"),
        ({"structured_outputs": {"choice": ["a [b]"]}}, r"a \[b\]"),
        ({"guided_grammar": 'start: "<" /[ab]{3}/ ">"'}, "<[ab]{3}>"),
        ({"structured_outputs": {"grammar": 'root ::= "<" [ab]{3} ">"'}}, "<[ab]{3}>"),
        ({"grammar": 'root ::= "<" item item ">"\nitem ::= "ab" | "cd"'}, "<(ab|cd){2}>"),
        ({"structured_outputs": {"json_object": True}}, r"(?s)\{.*"),
    ],
)
def test_grammars_in_every_spelling(json_url, spelling, pattern):
    body = {**TEXT, **spelling, "max_tokens": 100, "seed": 1}
    assert re.fullmatch(pattern, post(json_url, "/v1/completions", body)["choices"][0]["text"])


@pytest.mark.parametrize(
    ("spelling", "says"),
    [
        ({"response_format": {"type": "json_schema"}}, '"json_schema": {"name": "...", "schema": {...}}'),
        ({"response_format": {"type": "structural_tag"}}, "'text', 'json_object' or 'json_schema'"),
        ({"response_format": "json"}, "response_format"),
        ({"structured_outputs": {"structural_tag": "x"}}, "use response_format"),
        ({"guided_json": "{"}, "the schema is not JSON"),
        ({"guided_choice": []}, "give a list of texts"),
        ({"grammar": "root ::= ("}, "GBNF"),
        ({"guided_regex": "a", "json_schema": True}, "exclude each other"),
    ],
)
def test_what_cannot_be_enforced_is_refused(json_url, spelling, says):
    assert says in error(json_url, "/v1/completions", {**TEXT, **spelling})["message"]


def test_integers_without_bounds_end(json_url):
    """Biases make the model write digits for as long as it may."""
    properties = {"n": {"type": ["integer", "null"]}}
    schema = {"type": "object", "properties": properties, "required": ["n"], "additionalProperties": False}
    numbers = {"type": "array", "items": {"type": "integer", "minimum": 3}}
    bias = {str(3 + ord(digit)): 100 for digit in "123456789"}
    for form in (schema, numbers):
        asked = {**TEXT, "json_schema": form, "logit_bias": bias, "max_tokens": 120}
        text = post(json_url, "/v1/completions", asked)["choices"][0]["text"]
        assert max(map(len, re.findall(r"\d+", text))) <= 16


def test_a_response_format_and_tools_together(json_url, json_llm):
    """Either a call or content that fits; biases decide."""
    call = next(iter(json_llm.tokenizer.special_tokens(["<|tool_call>"])))
    body = {**CHAT, "tools": [TOOL], "json_schema": SCHEMA, "max_tokens": 200, "parallel_tool_calls": False}
    (choice,) = post(json_url, "/v1/chat/completions", {**body, "logit_bias": {str(call): 100}})["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "f"
    (choice,) = post(json_url, "/v1/chat/completions", {**body, "logit_bias": {str(call): -100}})["choices"]
    jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
    (choice,) = post(json_url, "/v1/chat/completions", {**body, "tool_choice": "required"})["choices"]
    assert choice["message"]["tool_calls"]
    (choice,) = post(json_url, "/v1/chat/completions", {**body, "tool_choice": "none"})["choices"]
    jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


def test_allowed_tools(json_url):
    other = {"type": "function", "function": {"name": "g"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    asked = {**CHAT, "tools": [TOOL, other], "tool_choice": choice, "max_tokens": 100, "parallel_tool_calls": False}
    (found,) = post(json_url, "/v1/chat/completions", asked)["choices"]
    assert found["message"]["tool_calls"][0]["function"]["name"] == "g"
