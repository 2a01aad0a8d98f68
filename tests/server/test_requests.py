"""What clients really send: OpenAI's fields in every state, other servers' spellings, and what cannot be served."""

from __future__ import annotations

import copy
import logging
import re

import httpx
import pytest
from server.posting import CHAT, ROUTES, TEXT, TOOL, error, post

from outrider.server import fields

# -- null, unknown, sentinels ----------------------------------------------------------------------------------------


def paths(schema, components, known=()):
    """Every optional field that a schema describes: the path of objects that lead to it."""
    schema = components.get(schema.get("$ref", "").rpartition("/")[2], schema)
    for branch in schema.get("anyOf", ()):
        yield from paths(branch, components, known)
    for name, field in schema.get("properties", {}).items():
        if name not in schema.get("required", ()):
            yield (*known, name)
        if name in PARENTS or known:
            yield from paths(field, components, (*known, name))


PARENTS = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["ab"]}}},
    "tool_choice": {"type": "auto", "function": {"name": "f"}, "allowed_tools": {"tools": []}},
    "stream_options": {},
    "structured_outputs": {"regex": "[a-z]+"},
}


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_null_is_absent_for_every_optional_field(json_url, path, body):
    described = httpx.get(f"{json_url}/openapi.json").json()
    components = described["components"]["schemas"]
    operation = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    found = list(paths(operation, components))
    assert len(found) > 40
    for names in found:
        asked = copy.deepcopy({**body, **{name: PARENTS[name] for name in names[:1] if len(names) > 1}})
        part = asked
        for name in names[:-1]:
            part = part[name]
        part[names[-1]] = None
        if names == ("response_format", "json_schema"):
            part["type"] = "text"
        post(json_url, path, asked)
    post(json_url, path, {**body, **{names[0]: None for names in found if len(names) == 1}})


def test_null_within_tools_and_calls(json_url):
    called = {"id": None, "type": None, "function": {"name": "f", "arguments": None}}
    function = {"name": "f", "description": None, "parameters": None, "strict": None}
    messages = [
        {"role": "user", "content": "x", "name": None, "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [called], "reasoning_content": None, "refusal": None},
        {"role": "tool", "tool_call_id": None, "content": "12"},
    ]
    post(json_url, "/v1/chat/completions", {"messages": messages, "tools": [{"function": function}], "max_tokens": 2})


ACCEPTED = {
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "prediction": {"type": "content", "content": "x"},
    "verbosity": "low",
    "user": "u",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "auto",
    "reasoning_effort": "low",
    "keep_alive": "5m",
    "skip_special_tokens": True,
    "best_of_nothing": 1,
    "mirostat": 0,
    "repeat_penalty": 1.1,
    "n_predict": 3,
    "lora": [],
}


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_what_others_accept_is_accepted(json_url, path, body):
    for name, value in ACCEPTED.items():
        post(json_url, path, {**body, name: value})
    options = {"include_usage": True, "include_obfuscation": False, "continuous_usage_stats": True, "other": 1}
    asked = {**body, "stream": True, "stream_options": options}
    assert httpx.post(f"{json_url}{path}", json=asked, timeout=60).text.endswith("data: [DONE]\n\n")


def test_an_unknown_field_is_logged_once(url, caplog, monkeypatch):
    monkeypatch.setattr(fields, "_reported", set())
    with caplog.at_level(logging.WARNING, logger="outrider"):
        for _ in range(3):
            post(url, "/v1/completions", {**TEXT, "never_heard_of": 1, "x" * 500: 2})
        post(url, "/v1/chat/completions", {**CHAT, "never_heard_of": [1]})
    said = [record.getMessage() for record in caplog.records if "unknown field" in record.getMessage()]
    assert len(said) == 2
    assert "'never_heard_of' is ignored" in said[0]
    assert len(said[1]) < 120


REFUSED = {
    "suffix": ("end", "suffix"),
    "best_of": (3, "use n"),
    "bad_words": (["x"], "use logit_bias"),
    "allowed_token_ids": ([5], "use regex, grammar or response_format"),
    "skip_special_tokens": (False, "outrider.token_ids"),
    "mirostat": (2, "use top_p, min_p or typical_p"),
    "dry_multiplier": (0.8, "use repetition_penalty"),
    "repeat_last_n": (64, "leave it out"),
    "options": ({"temperature": 0}, "top level"),
    "format": ("json", "use response_format"),
    "tools": ([TOOL], "use /v1/chat/completions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_text_is_refused_by_name(url, name):
    value, remedy = REFUSED[name]
    found = error(url, "/v1/completions", {**TEXT, name: value})
    assert found["message"].startswith(name)
    assert remedy in found["message"]
    assert (found["type"], found["param"]) == ("invalid_request_error", name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drafting", True),
        ("drafting", "on"),
        ("drafting", 64),
        ("max_tokens", True),
        ("temperature", True),
        ("n", 0),
        ("n", 129),
        ("stop", [1]),
        ("stop", ["a"] * 17),
        ("logit_bias", [5]),
        ("top_p", 1.1),
        ("stream", "perhaps"),
    ],
)
def test_wrong_values_are_errors_of_their_field(url, name, value):
    found = error(url, "/v1/completions", {**TEXT, name: value})
    assert found["param"] == name
    assert found["message"].startswith(f"{name}: ")


def test_as_many_tokens_as_fit(url, served_llm):
    room = 256 - len(served_llm.tokenizer.encode("Once"))
    for path, body, size in (("/v1/completions", TEXT, room), ("/v1/chat/completions", CHAT, None)):
        for limit in (-1, 1_000_000, None, 10**40):
            name = "max_completion_tokens" if limit == -1 and path != "/v1/completions" else "max_tokens"
            found = post(url, path, {**body, "max_tokens": None, name: limit, "ignore_eos": True})
            assert found["choices"][0]["finish_reason"] == "length"
            assert size in (None, found["usage"]["completion_tokens"])
            assert found["usage"]["total_tokens"] == 256


def test_borders_of_sampling(url):
    greedy = post(url, "/v1/completions", {**TEXT, "temperature": 0, "max_tokens": 12})["choices"][0]["text"]
    borders = {"seed": 5, "temperature": 2, "top_p": 0, "top_k": -1}
    assert post(url, "/v1/completions", {**TEXT, "max_tokens": 12, **borders})["choices"][0]["text"] == greedy
    several = post(url, "/v1/completions", {**TEXT, "max_tokens": 12, "temperature": 0, "n": 3})["choices"]
    assert [choice["text"] for choice in several] == [greedy] * 3
    post(url, "/v1/completions", {**TEXT, "top_k": 10**30, "temperature": 1, "stop": "", "logit_bias": [[5, False]]})


def test_a_random_seed_is_reported_and_repeats_the_text(url):
    asked = {**TEXT, "max_tokens": 12, "temperature": 1, "seed": -1}
    first, second = (post(url, "/v1/completions", asked) for _ in range(2))
    seeds = [found["outrider"][0]["seed"] for found in (first, second)]
    assert seeds[0] != seeds[1]
    again = post(url, "/v1/completions", {**asked, "seed": seeds[0], "n": 2})
    assert again["choices"][0]["text"] == first["choices"][0]["text"]
    assert [stats["seed"] for stats in again["outrider"]] == [seeds[0], seeds[0] + 1]
    streamed = httpx.post(f"{url}/v1/completions", json={**asked, "stream": True, "seed": 9}).text
    assert '"seed":9' in streamed


def test_the_checkpoints_sampling_is_the_default():
    from outrider.server.sampling import SamplingFields

    recommended = {"temperature": 0.7, "top_k": 64, "top_p": 0.95}
    params = SamplingFields().params(10, recommended, "")
    assert (params.temperature, params.top_k, params.top_p) == (0.7, 64, 0.95)
    params = SamplingFields(temperature=0, top_k=-1, top_p=1).params(10, recommended, "")
    assert (params.temperature, params.top_k, params.top_p) == (0, 0, 1)
    assert SamplingFields().params(10, {}, "").temperature == 1
    recommended = {"max_tokens": 5, "min_tokens": 3, "stop": ("\n",), "presence_penalty": 0.5}
    params = SamplingFields().params(10, recommended, "")
    assert (params.max_tokens, params.min_tokens, params.stop, params.presence_penalty) == (5, 3, ("\n",), 0.5)
    params = SamplingFields(max_tokens=2, stop=["x"], presence_penalty=0).params(10, recommended, "")
    assert (params.max_tokens, params.min_tokens, params.stop, params.presence_penalty) == (2, 2, ("x",), 0)
    assert SamplingFields().params(4, recommended, "").max_tokens == 4


def test_numbers_of_thousands_of_digits(url):
    body = b'{"prompt": "a", "max_tokens": 2, "seed": ' + b"1" * 5000 + b"}"
    found = httpx.post(f"{url}/v1/completions", content=body, headers={"content-type": "application/json"})
    assert found.status_code == 400
    assert found.json()["error"]["message"] == "the body has a number with more than 4300 digits"


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_prompt_that_is_too_long_is_an_error_that_clients_know(url, path, body):
    words = "word " * 600
    asked = {"prompt": words} if "prompt" in body else {"messages": [{"role": "user", "content": words}]}
    found = error(url, path, body | asked)
    param = "prompt" if "prompt" in body else "messages"
    assert found["code"] == "context_length_exceeded"
    assert found["param"] == param
    # LangChain, LiteLLM and Codex look for these words.
    assert re.search(r"maximum context length is 256 tokens", found["message"])
    assert re.search(rf"your {param} resulted in (at least )?\d+ tokens", found["message"])


def test_another_model_is_not_found(url):
    found = error(url, "/v1/completions", {**TEXT, "model": "gpt-4"}, 404)
    assert (found["code"], found["param"]) == ("model_not_found", "model")


# -- routes that are served by another's request ---------------------------------------------------------------------


def test_an_error_of_a_conversation_that_is_to_be_counted_names_its_field(json_url):
    found = error(json_url, "/tokenize", {"messages": CHAT["messages"], "tools": [TOOL, TOOL]})
    assert "two functions called f" in found["message"]


def test_tokenizer_info_has_what_clients_prepare_prompts_with(json_url):
    info = httpx.get(f"{json_url}/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"]) == ("<bos>", "<eos>")
    assert info["model_max_length"] == 512
    assert "messages" in info["chat_template"]
    ids = post(json_url, "/tokenize", {"prompt": "<|channel>", "add_special_tokens": False})["tokens"]
    assert len(ids) == 1, "control tokens are read, as vLLM does"
