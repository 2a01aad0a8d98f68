"""`response_format`, `grammar` and `regex`, through the official client."""

from __future__ import annotations

import json
import re

import httpx
import jsonschema
import pytest

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["ab", "abc"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
MESSAGES = [{"role": "user", "content": 'Write {"name": "ab", "age": 12}'}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("temperature", [0, 1])
def test_an_answer_fits_its_schema(json_client, stream, temperature):
    texts = set()
    for drafting in ("off", "auto", 6):
        found = json_client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            response_format=FORMAT,
            temperature=temperature,
            seed=3,
            stream=stream,
            extra_body={"drafting": drafting},
        )
        if stream:
            chunks = list(found)
            texts.add("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
            assert chunks[-1].choices[0].finish_reason == "stop"
        else:
            texts.add(found.choices[0].message.content)
            assert found.choices[0].finish_reason == "stop"
    (text,) = texts
    jsonschema.validate(json.loads(text), SCHEMA)


def test_several_answers_each_fit(json_client):
    found = json_client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        n=4,
        temperature=1.5,
        seed=1,
        max_tokens=200,
        response_format=FORMAT,
    )
    for choice in found.choices:
        if choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.message.content), SCHEMA)


def test_a_json_object_a_regex_and_a_grammar(json_client):
    ask = {"model": "tiny", "prompt": "abc", "temperature": 0, "max_tokens": 300}
    found = json_client.completions.create(**ask, extra_body={"response_format": {"type": "json_object"}})
    assert found.choices[0].text.startswith("{")
    if found.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(found.choices[0].text), dict)
    found = json_client.completions.create(**ask, extra_body={"regex": "[a-c]{5}[0-9]"})
    assert re.fullmatch("[a-c]{5}[0-9]", found.choices[0].text)
    assert found.choices[0].finish_reason == "stop"
    found = json_client.completions.create(**ask, extra_body={"grammar": 'start: "<" /[ab]{3}/ ">"'})
    assert re.fullmatch("<[ab]{3}>", found.choices[0].text)
    found = json_client.completions.create(**ask | {"max_tokens": 5}, extra_body={"response_format": {"type": "text"}})
    assert found.usage.completion_tokens <= 5


@pytest.mark.parametrize(
    ("body", "says", "parameter"),
    [
        (
            {"response_format": {"type": "xml"}},
            "response_format.type: Input should be 'text', 'json_object' or 'json_schema'",
            "response_format.type",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            'response_format has no schema: give {"type": "json_schema"',
            "response_format",
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "schema: Field required", None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "thing"}}}},
            "the JSON schema cannot be used: Invalid type: thing",
            "response_format",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            'Unimplemented keys: ["not"]',
            "response_format",
        ),
        ({"regex": "("}, "the regex cannot be used", "regex"),
        ({"grammar": "start: what"}, 'unknown name: "what"', "grammar"),
        ({"grammar": 'start: "a"', "regex": "a"}, "grammar and regex exclude each other", None),
        ({"regex": "a" * 300_000}, "at most 262144 characters", "regex"),
    ],
)
def test_wrong_forms_are_explained_before_work_starts(json_url, body, says, parameter):
    for stream in (False, True):
        found = httpx.post(f"{json_url}/v1/completions", json={"prompt": "x", "stream": stream, **body})
        assert found.status_code == 400
        error = found.json()["error"]
        assert says in error["message"]
        assert error["type"] == "invalid_request_error"
        assert parameter in (None, error["param"])
    assert httpx.post(f"{json_url}/v1/completions", json={"prompt": "x", "max_tokens": 2}).status_code == 200


def test_a_grammar_that_breaks_off_is_said(json_url, monkeypatch):
    from outrider.sampling import constraint

    monkeypatch.setitem(constraint._LIMITS, "max_items_in_row", 30)
    body = {
        "prompt": "x",
        "grammar": 'start: s "!"\ns: s s | "a" | "b"',
        "logit_bias": {3 + ord("a"): 100},
        "max_tokens": 90,
    }
    found = httpx.post(f"{json_url}/v1/completions", json=body)
    assert found.status_code == 400
    assert "the grammar cannot go on" in found.json()["error"]["message"]
    with httpx.stream("POST", f"{json_url}/v1/completions", json={**body, "stream": True}) as stream:
        assert any("the grammar cannot go on" in line for line in stream.iter_lines())
