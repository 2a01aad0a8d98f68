"""What clients really send: OpenAI's fields in every state, other servers' spellings, and what cannot be served."""

from __future__ import annotations

import copy
import json
import logging
import re
import time

import httpx
import jsonschema
import pytest

from outrider import SamplingParams
from outrider.engine.scoring import logits_of
from outrider.server import fields

CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
TEXT = {"prompt": "Once", "max_tokens": 2}
ROUTES = [("/v1/completions", TEXT), ("/v1/chat/completions", CHAT)]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def post(url, path, body, status=200):
    found = httpx.post(f"{url}{path}", json=body, timeout=60)
    assert found.status_code == status, found.text
    return found.json()


def error(url, path, body, status=400):
    return post(url, path, body, status)["error"]


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


# -- response formats ------------------------------------------------------------------------------------------------

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


# -- prompts ---------------------------------------------------------------------------------------------------------


def test_several_prompts_get_a_choice_each(url, served_llm):
    prompts = ["ab", "cd", "ef", "abab", "zz"]
    asked = {"max_tokens": 6, "temperature": 1, "seed": 3, "n": 2, "ignore_eos": True}
    together = post(url, "/v1/completions", {**asked, "prompt": prompts})
    assert [choice["index"] for choice in together["choices"]] == list(range(10))
    alone = [post(url, "/v1/completions", {**asked, "prompt": prompt}) for prompt in prompts]
    texts = [choice["text"] for found in alone for choice in found["choices"]]
    assert [choice["text"] for choice in together["choices"]] == texts
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert together["usage"][name] == sum(found["usage"][name] for found in alone)
    ids = [served_llm.tokenizer.encode(prompt) for prompt in prompts]
    by_ids = post(url, "/v1/completions", {**asked, "prompt": ids})
    assert [choice["text"] for choice in by_ids["choices"]] == texts
    streamed = httpx.post(f"{url}/v1/completions", json={**asked, "prompt": prompts, "stream": True}, timeout=60).text
    parts = [""] * 10
    for line in streamed.splitlines():
        if line.startswith("data: {"):
            (choice,) = json.loads(line[6:])["choices"]
            parts[choice["index"]] += choice["text"]
    assert parts == texts


def test_more_choices_than_the_queue_holds(served_llm):
    from serving import serving

    with serving(served_llm, running=2, waiting=1) as (base, server):
        found = post(base, "/v1/completions", {"prompt": ["ab"] * 20, "max_tokens": 2, "n": 2})
        assert len(found["choices"]) == 40
        assert server.scheduler.counts == (0, 0)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([], "give a text"),
        ([[]], "prompt 0 of the list"),
        ([[2], "x", [1.5]], "prompt 2 of the list"),
        ([True], "prompt 0"),
        ({"a": 1}, "give a text"),
        (["x"] * 129, "the limit is 128"),
    ],
)
def test_wrong_prompts(url, prompt, says):
    found = error(url, "/v1/completions", {"prompt": prompt})
    assert says in found["message"]
    assert found["param"] == "prompt"


def test_more_choices_than_one_request_may_have(url):
    assert error(url, "/v1/completions", {"prompt": ["x"] * 20, "n": 10})["param"] == "n"


# -- echo and the log-probabilities of prompts -----------------------------------------------------------------------


def expected_logprobs(llm, ids):
    rows = logits_of(llm.parts, ids[:-1]).astype(float)
    rows -= rows.max(axis=1, keepdims=True)
    import numpy as np

    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows


@pytest.mark.parametrize("max_tokens", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
def test_an_evaluation_harness_scores_prompts(url, served_llm, max_tokens, stream):
    """As lm-evaluation-harness' `local-completions` asks, and what it reads."""
    prompts = [[2, 100, 101, 102, 103], [2, 7, 8, 9]]
    asked = {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": max_tokens, "temperature": 0, "seed": 1234}
    if stream:
        lines = httpx.post(f"{url}/v1/completions", json=asked | {"stream": True}, timeout=60).text.splitlines()
        parts = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
        choices = [next(part for part in parts if part["index"] == index) for index in range(2)]
    else:
        choices = post(url, "/v1/completions", asked)["choices"]
    for ids, choice in zip(prompts, choices, strict=True):
        found = choice["logprobs"]
        assert len(found["tokens"]) >= len(ids)
        assert choice["text"].startswith(served_llm.tokenizer.decode(ids))
        assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
        rows = expected_logprobs(served_llm, ids)
        for row, token, logprob, top in zip(
            rows, ids[1:], found["token_logprobs"][1:], found["top_logprobs"][1:], strict=False
        ):
            assert logprob == pytest.approx(row[token], abs=1e-4)
            assert max(top.values()) == pytest.approx(row.max(), abs=1e-4)
        if not max_tokens:
            assert choice["finish_reason"] == "length"
            assert len(found["tokens"]) == len(ids)


def test_the_logprobs_of_a_prompt_are_those_of_generating_it(url, served_llm):
    """Bit for bit: a row does not know whether it was prompt or answer."""
    asked = {"prompt": [2, 5, 6], "max_tokens": 8, "temperature": 0, "logprobs": 2, "ignore_eos": True}
    answer = post(url, "/v1/completions", asked)
    generated = served_llm.generate([[2, 5, 6]], SamplingParams(max_tokens=8, ignore_end=True))[0].token_ids
    echoed = post(url, "/v1/completions", {**asked, "prompt": [2, 5, 6, *generated], "echo": True, "max_tokens": 0})
    own, given = answer["choices"][0]["logprobs"], echoed["choices"][0]["logprobs"]
    for name in ("token_logprobs", "top_logprobs", "tokens"):
        assert given[name][3:] == own[name]


def test_scoring_keeps_the_prompt_in_the_prefix_cache(served_llm):
    from serving import serving

    served_llm.parts.caches.clear()
    asked = {"prompt": [2, *range(20, 60)], "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
    with serving(served_llm) as (base, _):
        found = post(base, "/v1/completions", asked)
        assert found["usage"]["prompt_tokens_details"]["cached_tokens"] == 40
        served_llm.parts.caches.clear()
        post(base, "/v1/completions", asked | {"cache_prompt": False})
        assert served_llm.parts.caches.kept == 0
    assert served_llm.parts.caches.in_use == 0


def test_prompt_logprobs_as_vllm_has_them(url, served_llm):
    ids = [2, 100, 101, 102]
    asked = {"prompt": ids, "prompt_logprobs": 2, "max_tokens": 1}
    (choice,) = post(url, "/v1/completions", asked)["choices"]
    first, *others = choice["prompt_logprobs"]
    assert first is None
    assert len(others) == 3
    for row, token, entry in zip(expected_logprobs(served_llm, ids), ids[1:], others, strict=True):
        own = entry[str(token)]
        assert own["logprob"] == pytest.approx(row[token], abs=1e-4)
        assert own["rank"] == 1 + (row > row[token]).sum()
        assert own["decoded_token"] == served_llm.tokenizer.piece(token).decode()
        assert {each["rank"] for each in entry.values()} >= {1, 2}
    assert choice["logprobs"] is None


def test_echo_alone_and_no_tokens_at_all(url):
    found = post(url, "/v1/completions", {"prompt": "Once", "echo": True, "max_tokens": 0})
    assert found["choices"] == [{"index": 0, "text": "Once", "finish_reason": "length", "logprobs": None}]
    assert found["usage"]["completion_tokens"] == 0
    found = post(url, "/v1/chat/completions", {**CHAT, "max_tokens": 0})
    assert found["choices"][0]["message"]["content"] == ""
    whole = post(url, "/v1/completions", {"prompt": "Once", "echo": True, "max_tokens": 4, "temperature": 0})
    alone = post(url, "/v1/completions", {"prompt": "Once", "max_tokens": 4, "temperature": 0})
    assert whole["choices"][0]["text"] == "Once" + alone["choices"][0]["text"]


# -- control tokens --------------------------------------------------------------------------------------------------


def test_control_tokens_in_a_raw_prompt_are_parsed_where_asked(json_url):
    text = "<|tool_call>x"
    as_text = post(json_url, "/v1/completions", {"prompt": text, "max_tokens": 1})["usage"]["prompt_tokens"]
    parsed = post(json_url, "/v1/completions", {"prompt": text, "max_tokens": 1, "parse_special": True})
    assert as_text == 1 + len(text)
    assert parsed["usage"]["prompt_tokens"] == 3
    bare = {"prompt": text, "max_tokens": 1, "add_special_tokens": False}
    assert post(json_url, "/v1/completions", bare)["usage"]["prompt_tokens"] == len(text)


def test_a_templated_prompt_has_one_bos(served_llm, url, monkeypatch):
    encode = served_llm.tokenizer.encode

    def parsing(text, *, add_bos=True, parse_special=False):
        rest = text.removeprefix("<bos>") if parse_special else text
        return [*([2] if add_bos else []), *([2] if rest != text else []), *encode(rest, add_bos=False)]

    monkeypatch.setattr(served_llm.tokenizer, "encode", parsing)
    asked = {"prompt": "<bos>ab", "parse_special": True, "max_tokens": 1}
    assert post(url, "/v1/completions", asked)["usage"]["prompt_tokens"] == 3


def test_a_suffix_where_the_tokenizer_has_marks_for_it(json_llm, json_url, monkeypatch):
    prompts, seen = json_llm.parts.prompts, []
    encode = prompts.encode
    monkeypatch.setattr(prompts, "encode", lambda ids, **options: seen.append(ids) or encode(ids, **options))
    marks = {"<|fim_prefix|>": 300, "<|fim_suffix|>": 301, "<|fim_middle|>": 302}
    monkeypatch.setattr(json_llm.tokenizer, "_special_ids", {**json_llm.tokenizer._special_ids, **marks})
    post(json_url, "/v1/completions", {"prompt": "a", "suffix": "b", "max_tokens": 1})
    assert seen == [[2, 300, 3 + ord("a"), 301, 3 + ord("b"), 302]]


def test_huge_biases_do_not_hold_the_loop(url):
    body = {**TEXT, "n": 8, "logit_bias": {str(token): 1 for token in range(250_000)}}
    began = time.monotonic()
    assert error(url, "/v1/completions", body)["param"] == "logit_bias"
    assert time.monotonic() - began < 30


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
