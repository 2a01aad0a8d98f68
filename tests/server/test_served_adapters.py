"""Adapters of the served model: listed beside it, and chosen by `model` in every route."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import gguf
import httpx
import openai
import pytest
from json_tokenizer import speak_json
from server.apis import APIS, COMPLETION
from server.posting import error, post
from server.templates import GEMMA
from serving import serving
from tiny_adapters import adapted, save_adapter
from tiny_checkpoints import save_gguf

from outrider import LLM, SamplingParams
from outrider.chat.template import ChatTemplate

NAMES = ("tiny", "one", "two")


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory):
    model, root = tiny("gemma4-e2b").model, tmp_path_factory.mktemp("served-adapters")
    path = save_gguf(model, root / "tiny.gguf", gguf.GGMLQuantizationType.Q4_0)
    lora = {name: save_adapter(adapted(model, seed=number), root / name) for number, name in enumerate(NAMES[1:], 1)}
    llm = LLM(path, threads=1, context=512, prefix_cache_bytes=8 << 20, lora=lora)
    speak_json(llm)
    llm.parts.prompts.template = ChatTemplate(GEMMA, bos="<bos>")
    return llm


@pytest.fixture(scope="module")
def url(llm):
    with serving(llm, running=4, waiting=32) as (base, _):
        yield base


def test_adapters_are_listed_with_their_model(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    listed = {model.id: model for model in client.models.list().data}
    assert list(listed) == list(NAMES)
    assert [getattr(listed[name], "parent", None) for name in NAMES] == [None, "tiny", "tiny"]
    assert client.models.retrieve("two").parent == "tiny"


@pytest.mark.parametrize("path", APIS)
def test_the_model_of_a_request_chooses_the_adapter(url, path):
    """In every route, whole and streamed, one after another and at once, whatever the prefix cache holds by then."""
    api = APIS[path]

    def asked(name, **more):
        return api.ask("tell me a story", 12) | {"model": name, "temperature": 0} | more

    answers = {name: api.whole(post(url, path, asked(name))) for name in NAMES}
    assert len({str(answer.choices) for answer in answers.values()}) == 3
    with ThreadPoolExecutor(6) as pool:
        bodies = [asked(name) for name in NAMES * 2]
        for name, body in zip(NAMES * 2, pool.map(lambda body: post(url, path, body), bodies), strict=True):
            assert api.whole(body).same(answers[name]), api.whole(body).unlike(answers[name])
    for name in NAMES:
        with httpx.stream("POST", f"{url}{path}", json=asked(name, stream=True), timeout=60) as stream:
            found = api.read(list(stream.iter_lines()))
        assert found.same(answers[name]), found.unlike(answers[name])
    assert post(url, path, asked("two"))["model"] == "two"


def test_an_answer_is_that_of_python(llm, url):
    for name, lora in (("tiny", None), ("one", "one"), ("two", "two")):
        body = {"model": name, "prompt": "a b c", "max_tokens": 12, "temperature": 0, "logprobs": 1, "echo": True}
        (choice,) = post(url, COMPLETION, body)["choices"]
        out = llm.generate(["a b c"], SamplingParams(max_tokens=12, lora=lora))[0]
        assert choice["text"] == "a b c" + out.text
        reported = choice["logprobs"]["token_logprobs"][1 : len(out.prompt_token_ids)]
        assert reported == pytest.approx(llm.score(["a b c"], lora=lora)[0])


def test_prompt_tokens_are_scored_in_a_prefix_cache_of_the_adapters_own(llm, url):
    """Scoring leaves its keys and values in the prefix cache: of its adapter alone."""
    llm.parts.caches.clear()
    body = {"prompt": "one two three four five six", "max_tokens": 1, "temperature": 0}
    post(url, COMPLETION, body | {"model": "one", "prompt_logprobs": 1})

    def reused(name):
        (stats,) = post(url, COMPLETION, body | {"model": name})["outrider"]
        return stats["reused_tokens"]

    assert reused("two") == 0
    assert reused("tiny") == 0
    assert reused("one") > 0


@pytest.mark.parametrize("path", APIS)
def test_an_unknown_name_is_not_found(url, path):
    found = post(url, path, APIS[path].ask("x", 2) | {"model": "three"}, 404)
    assert "there is no model three: this is tiny or one or two" in APIS[path].error(found)
    assert httpx.get(f"{url}/v1/models/three").status_code == 404


def test_other_ways_to_name_an_adapter_are_explained(url):
    found = error(url, COMPLETION, {"prompt": "x", "max_tokens": 2, "lora": [{"id": 0, "scale": 1.0}]})
    assert "name an adapter as the model" in found["message"]


def test_prompts_are_counted_for_an_adapter(url):
    for name in NAMES:
        assert post(url, "/tokenize", {"model": name, "prompt": "x"})["count"] > 0
        body = {"model": name, "messages": [{"role": "user", "content": "x"}]}
        assert post(url, "/v1/messages/count_tokens", body)["input_tokens"] > 0
        assert post(url, "/v1/responses/input_tokens", {"model": name, "input": "x"})["input_tokens"] > 0
