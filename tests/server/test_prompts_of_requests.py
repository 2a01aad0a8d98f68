"""Prompts of completions: several, echoed, scored, with control tokens."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from server.posting import CHAT, TEXT, error, post

from outrider import SamplingParams
from outrider.engine.scoring import logits_of


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
