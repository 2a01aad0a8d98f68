"""A server on a tiny model, and the official client."""

from __future__ import annotations

import time

import openai
import pytest
from json_tokenizer import speak_json
from server.templates import GEMMA, PLAIN
from serving import serving
from tiny_checkpoints import save_gguf
from word_tokenizer import speak_words

from outrider import LLM
from outrider.chat.template import ChatTemplate


@pytest.fixture(scope="session")
def served_llm(tiny, tmp_path_factory):
    """A tiny quantized model that speaks words and has a chat template."""
    import gguf

    path = save_gguf(
        tiny("gemma4-e2b").model, tmp_path_factory.mktemp("served") / "tiny.gguf", gguf.GGMLQuantizationType.Q4_0
    )
    llm = LLM(path, threads=1, context=256, lookup_history=2048, prefix_cache_bytes=4 << 20)
    speak_words(llm)

    def encode(text, *, add_bos=True, parse_special=False):  # noqa: ARG001
        return [*([2] if add_bos else []), *(3 + ord(c) % 500 for c in text)]

    llm.tokenizer.encode = encode
    llm.parts.prompts.template = ChatTemplate(PLAIN, bos="<bos>")
    return llm


@pytest.fixture
def slow(served_llm, monkeypatch):
    """The same with passes that take so long that a person, or a test, sees them: 250 tokens take seven seconds."""
    step = served_llm.parts.engine.step

    def slowly():
        time.sleep(0.03)
        step()

    monkeypatch.setattr(served_llm.parts.engine, "step", slowly)
    return served_llm


@pytest.fixture(scope="session")
def json_llm(tiny, tmp_path_factory):
    """A tiny quantized model that can write any text."""
    import gguf

    path = save_gguf(
        tiny("gemma4-e2b").model, tmp_path_factory.mktemp("json") / "tiny.gguf", gguf.GGMLQuantizationType.Q4_0
    )
    llm = LLM(path, threads=1, context=512, lookup_history=2048, prefix_cache_bytes=4 << 20)
    speak_json(llm)
    llm.parts.prompts.template = ChatTemplate(GEMMA, bos="<bos>")
    return llm


@pytest.fixture(scope="module")
def json_url(json_llm):
    with serving(json_llm, running=4, waiting=32) as (base, _):
        yield base


@pytest.fixture
def json_client(json_url):
    return openai.OpenAI(base_url=f"{json_url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def url(served_llm):
    with serving(served_llm, running=4, waiting=32) as (base, _):
        yield base


@pytest.fixture
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def break_passes(served_llm, monkeypatch):
    """Call it to make every pass that has requests fail, until what it returns is called."""

    def begin():
        step = served_llm.parts.engine.step

        def broken():
            if served_llm.parts.engine._running:
                raise RuntimeError("out of luck")
            step()

        monkeypatch.setattr(served_llm.parts.engine, "step", broken)
        return lambda: monkeypatch.setattr(served_llm.parts.engine, "step", step)

    return begin
