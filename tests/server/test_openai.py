"""The server as its clients see it: through the official `openai` client."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from serving import serving

from outrider import SamplingParams
from outrider.sampling.choice import TokenChooser

JSON = {"content-type": "application/json"}
ENDLESS = {"ignore_eos": True}


def plain(llm, prompt, **params):
    return llm.generate(prompt, SamplingParams(**params, draft="off"))[0]


@pytest.fixture(scope="module")
def expected(served_llm):
    """(prompt, parameters) -> the answer without a server and without drafts; asked before the server works."""
    return {
        (prompt, seed, temperature): plain(
            served_llm, prompt, max_tokens=20, seed=seed, temperature=temperature, logprobs=2
        )
        for prompt in ("abab abab", "once upon", "x" * 40)
        for seed in (1, 2)
        for temperature in (0.0, 0.9)
    }


def test_completions_equal_the_engine(expected, client):
    for (prompt, seed, temperature), out in expected.items():
        found = client.completions.create(
            model="tiny", prompt=prompt, max_tokens=20, seed=seed, temperature=temperature, logprobs=2
        )
        (choice,) = found.choices
        assert choice.text == out.text
        assert choice.finish_reason == out.finish_reason
        assert found.usage.prompt_tokens == len(out.prompt_token_ids)
        assert found.usage.completion_tokens == len(out.token_ids)
        assert choice.logprobs.token_logprobs == pytest.approx([place.logprob for place in out.logprobs])
        assert len(choice.logprobs.text_offset) == len(out.token_ids)


def test_a_stream_is_the_whole_answer_in_parts(expected, client):
    for (prompt, seed, temperature), out in expected.items():
        chunks = list(
            client.completions.create(
                model="tiny",
                prompt=prompt,
                max_tokens=20,
                seed=seed,
                temperature=temperature,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == out.text
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == out.finish_reason
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens == len(out.token_ids)
        tokens = [token for chunk in chunks[:-1] for token in chunk.outrider["token_ids"]]
        assert tuple(tokens) == out.token_ids


def test_a_stream_says_of_each_token_where_it_came_from(served_llm, client):
    chunks = list(
        client.completions.create(
            model="tiny", prompt="abab" * 10, max_tokens=30, temperature=0, stream=True, extra_body={"drafting": 5}
        )
    )
    marks = [chunk.outrider for chunk in chunks]
    assert "".join(text for mark in marks for text in mark["texts"]) == "".join(c.choices[0].text for c in chunks)
    sources = [source for mark in marks for source in mark["sources"]]
    accepted = {source: count for source, count in marks[-1]["stats"]["accepted_by_source"].items() if count}
    assert Counter(source for source in sources if source is not None) == accepted
    assert [source is not None for source in sources] == [drafted for mark in marks for drafted in mark["drafted"]]
    for mark in marks:
        wrong = [None if token is None else served_llm.tokenizer.piece(token).decode() for token in mark["rejected"]]
        assert mark["rejected_texts"] == wrong
    assert any(token is not None for mark in marks for token in mark["rejected"])


@pytest.mark.parametrize("stream", [False, True])
def test_chat_uses_the_models_template(served_llm, client, stream):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    ids = served_llm.tokenizer.encode("system: Be kind.\nuser: Hi\n", add_bos=False)
    found = client.chat.completions.create(
        model="tiny",
        messages=messages,
        max_completion_tokens=12,
        temperature=0,
        stream=stream,
        logprobs=True,
        top_logprobs=3,
    )
    if stream:
        chunks = list(found)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert chunks[0].choices[0].delta.role == "assistant"
        places = [place for chunk in chunks if chunk.choices[0].logprobs for place in chunk.choices[0].logprobs.content]
    else:
        text = found.choices[0].message.content
        places = found.choices[0].logprobs.content
    assert len(places) == 12
    assert all(len(place.top_logprobs) == 3 for place in places)
    assert text == _texts(served_llm, ids, 12)


def _texts(llm, ids, count):
    from outrider.engine.scoring import logits_of

    ids = list(ids)
    words = b""
    for _ in range(count):
        token = int(logits_of(llm.parts, ids)[-1].argmax())
        words += llm.tokenizer.piece(token)
        ids.append(token)
    return words.decode()


def test_several_answers_to_one_prompt(client):
    found = client.completions.create(model="tiny", prompt="one two", n=3, max_tokens=8, temperature=1, seed=5)
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert found.usage.completion_tokens == 24
    assert len({choice.text for choice in found.choices}) > 1
    # The same seeds one by one give the same answers.
    for number, choice in enumerate(found.choices):
        alone = client.completions.create(model="tiny", prompt="one two", max_tokens=8, temperature=1, seed=5 + number)
        assert alone.choices[0].text == choice.text


def test_stop_tokens_end_an_answer(client):
    asked = {"model": "tiny", "prompt": "one two", "max_tokens": 8, "temperature": 0}
    whole = client.completions.create(**asked, stream=True, extra_body=ENDLESS)
    tokens = [token for chunk in whole for token in chunk.outrider["token_ids"]]
    stops = ENDLESS | {"stop_token_ids": [tokens[3]]}
    found = client.completions.create(**asked, extra_body=stops)
    assert found.usage.completion_tokens == tokens.index(tokens[3]) + 1
    assert found.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="stop_token_ids names token 9999999, outside the vocabulary"):
        client.completions.create(**asked, extra_body={"stop_token_ids": [9999999]})


def test_drafting_is_switched_per_request_and_changes_nothing(client):
    texts = []
    for drafting in ("off", "auto", 5):
        found = client.completions.create(
            model="tiny", prompt="abab" * 10, max_tokens=30, temperature=0, extra_body={"drafting": drafting}
        )
        texts.append(found.choices[0].text)
        (stats,) = found.outrider
        assert (stats["drafted"] == 0) == (drafting == "off")
        assert stats["accepted"] == found.usage.completion_tokens_details.accepted_prediction_tokens
    assert len(set(texts)) == 1


def test_a_prediction_is_drafted_and_changes_nothing(served_llm, client):
    out = plain(served_llm, "once upon", max_tokens=30, ignore_end=True)
    text = "".join(chr(max(token - 3, 0)) for token in out.token_ids)  # which the tokenizer of the tests encodes so
    asked = {"model": "tiny", "prompt": "once upon", "max_tokens": 30, "temperature": 0}
    for content in (text, [{"type": "text", "text": text[:9]}, {"type": "text", "text": text[9:]}], "something else"):
        given = {"prediction": {"type": "content", "content": content}, "drafting": 5}
        found = client.completions.create(**asked, extra_body=ENDLESS | given)
        assert found.choices[0].text == out.text
        accepted = found.outrider[0]["accepted_by_source"].get("prediction", 0)
        assert (accepted > 10) == (content != "something else")


@pytest.mark.parametrize("prediction", [[], 5, {"content": "x"}, {"type": "content", "content": [{"text": 5}]}])
def test_a_malformed_prediction_is_refused(client, prediction):
    with pytest.raises(openai.BadRequestError, match=r"prediction: give \{"):
        client.completions.create(model="tiny", prompt="a", max_tokens=2, extra_body={"prediction": prediction})


def test_many_at_once_equal_their_solo_runs(expected, client):
    cases = list(expected.items()) * 2
    random.Random(0).shuffle(cases)

    def ask(case):
        (prompt, seed, temperature), out = case
        found = client.completions.create(
            model="tiny", prompt=prompt, max_tokens=20, seed=seed, temperature=temperature
        )
        return found.choices[0].text == out.text and found.choices[0].finish_reason == out.finish_reason

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, cases))


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"prompt": "x", "model": "other"}, 404, "there is no model other: this is tiny"),
        ({"prompt": ""}, 400, None),
        ({"prompt": "x", "max_tokens": -2}, 400, "max_tokens: Input should be greater than or equal to -1"),
        ({"prompt": "x", "model": "\ud800"}, 404, "there is no model \ufffd: this is tiny"),
        ({"prompt": "x", "temperature": 3}, 400, "temperature"),
        ({"prompt": "x", "tools": [{"type": "function"}]}, 400, "tools is not supported: use /v1/chat/completions"),
        ({"prompt": "x", "logit_bias": {"9999": 1}}, 400, "logit_bias names token 9999, outside the vocabulary of 512"),
        (
            {"prompt": "x" * 300},
            400,
            "This model's maximum context length is 256 tokens. However, your prompt resulted in",
        ),
        ({"prompt": [1, 2, 99999]}, 400, "token id 99999 is outside the vocabulary"),
        ({}, 400, "prompt: Field required"),
    ],
)
def test_errors_have_openais_shape_and_say_what_to_do(url, body, status, says):
    found = httpx.post(
        f"{url}/v1/completions", content=json.dumps(body), headers=JSON
    )  # escapes what UTF-8 cannot write
    if says is None:  # the tiny tokenizer begins every text with BOS: an empty one is a prompt
        assert found.status_code == 200
        return
    assert found.status_code == status
    error = found.json()["error"]
    assert says in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_bodies_that_are_no_json_and_routes_that_are_none(url):
    for body in (b"", b"{", b"[1]", b"\xff\xfe", b'{"prompt": ' + b"[" * 100_000):
        found = httpx.post(f"{url}/v1/completions", content=body, headers=JSON)
        assert found.status_code == 400
        assert "error" in found.json()
    assert httpx.post(f"{url}/v1/completions", content=b"x" * (9 << 20), headers=JSON).status_code == 413
    assert httpx.get(f"{url}/v1/completions").status_code == 405


def test_images_and_base_models_are_explained(url, served_llm):
    image = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]
    found = httpx.post(f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": image}]})
    assert found.status_code == 400
    assert "reads text alone: leave it out" in found.json()["error"]["message"]
    prompts = served_llm.parts.prompts
    template, prompts.template = prompts.template, None
    try:
        found = httpx.post(f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
    finally:
        prompts.template = template
    assert found.status_code == 400
    assert "base model without a chat template: use /v1/completions" in found.json()["error"]["message"]


def test_a_prompt_is_computed_anew_where_asked(client):
    asked = {"model": "tiny", "prompt": "cdcd" * 12, "max_tokens": 4, "temperature": 0}
    client.completions.create(**asked)
    cached = [
        client.completions.create(
            **asked, extra_body={"cache_prompt": wanted}
        ).usage.prompt_tokens_details.cached_tokens
        for wanted in (True, False, True)
    ]
    assert cached[0] == cached[2] > 40
    assert cached[1] == 0


def test_models_health_and_metrics(client, url):
    (model,) = client.models.list().data
    assert model.id == "tiny"
    assert client.models.retrieve("tiny").max_model_len == 256
    assert model.outrider == {"chat": True, "drafters": ["prediction", "grammar", "lookup"], "state": "ready"}
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    client.completions.create(model="tiny", prompt="abab" * 10, max_tokens=20, temperature=0)
    health = httpx.get(f"{url}/health").json()
    assert health["status"] == "ok"
    text = httpx.get(f"{url}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["outrider_generation_tokens_total"]) >= 20
    assert float(values["outrider_spec_decode_num_draft_tokens_total"]) > 0
    assert float(values['outrider_request_success_total{finished_reason="length"}']) >= 1
    assert float(values["outrider_time_to_first_token_seconds_count"]) >= 1
    assert float(values["outrider_prefix_cache_queries_total"]) >= float(values["outrider_prefix_cache_hits_total"])
    assert 0 < float(values["outrider_prefix_cache_bytes"]) <= 4 << 20
    assert 0 < float(values["outrider_prefix_cache_usage_perc"]) <= 1
    assert float(values["outrider_kv_cache_sequences_in_use"]) == 0


def test_a_client_that_leaves_frees_its_place(served_llm):
    with serving(served_llm, running=1, waiting=4) as (base, server):
        with httpx.stream(
            "POST",
            f"{base}/v1/completions",
            json={"prompt": "x", "max_tokens": 250, "stream": True, "ignore_eos": True},
        ) as stream:
            next(stream.iter_lines())
        _settled(server)
        work = {"prompt": "y", "max_tokens": 250, "ignore_eos": True, "drafting": "off", "n": 4}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{base}/v1/completions", json=work, timeout=0.05)
        _settled(server)
        found = httpx.post(f"{base}/v1/completions", json={"prompt": "x", "max_tokens": 3}, timeout=20)
        assert found.status_code == 200


def _settled(server):
    until = time.monotonic() + 10
    while server.scheduler.counts != (0, 0):
        assert time.monotonic() < until, "a place was not freed"
        time.sleep(0.01)


def test_the_key_is_asked_for(served_llm):
    with serving(served_llm, keys=["secret"]) as (base, _):
        assert httpx.get(f"{base}/v1/models").status_code == 401
        assert httpx.get(f"{base}/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert httpx.get(f"{base}/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert httpx.get(f"{base}/health").status_code == 200


def test_stopping_finishes_what_is_in_work(served_llm):
    results = []
    with serving(served_llm, running=2) as (base, server):

        def ask():
            lines = []
            with httpx.stream(
                "POST",
                f"{base}/v1/completions",
                json={"prompt": "x", "max_tokens": 60, "stream": True, "ignore_eos": True},
            ) as stream:
                lines += [line for line in stream.iter_lines() if line.startswith("data: ")]
            results.append(lines)

        thread = threading.Thread(target=ask)
        thread.start()
        while server.scheduler.counts[0] == 0 and thread.is_alive():
            time.sleep(0.001)
    thread.join(30)
    assert results[0][-1] == "data: [DONE]"
    assert json.loads(results[0][-2][6:])["choices"][0]["finish_reason"] == "length"


def test_a_broken_pass_ends_its_requests_and_not_the_server(served_llm, break_passes):
    with serving(served_llm) as (base, _):
        mend = break_passes()
        found = httpx.post(f"{base}/v1/completions", json={"prompt": "x"})
        assert found.status_code == 503
        assert "out of luck" in found.json()["error"]["message"]
        mend()
        assert httpx.post(f"{base}/v1/completions", json={"prompt": "x", "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_fails_harms_no_other(served_llm, monkeypatch, stream):
    """One fails in its own part of a pass: it is told so at once, its place is free, and its neighbour's text is that
    of a run alone."""
    good = {"prompt": "x", "max_tokens": 120, "ignore_eos": True, "temperature": 0.8, "seed": 3}
    (alone,) = served_llm.generate(
        ["x"], SamplingParams(max_tokens=120, ignore_end=True, temperature=0.8, seed=3, draft="off")
    )
    own = TokenChooser.choose

    def choose(chooser, most_likely, logits, position):
        if chooser._params.seed == 666 and position > 20:
            raise RuntimeError("out of luck")
        return own(chooser, most_likely, logits, position)

    monkeypatch.setattr(TokenChooser, "choose", choose)
    with serving(served_llm, running=4) as (base, server), ThreadPoolExecutor() as threads:
        url = f"{base}/v1/completions"
        neighbour = threads.submit(httpx.post, url, json=good, timeout=20)
        found = httpx.post(url, json=good | {"seed": 666, "stream": stream}, timeout=20)
        assert found.status_code == (200 if stream else 503)
        assert "out of luck" in found.text
        assert neighbour.result().json()["choices"][0]["text"] == alone.text
        _settled(server)
    assert served_llm.parts.caches.in_use == 0
