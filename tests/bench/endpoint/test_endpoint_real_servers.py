"""`outrider bench endpoint` against real servers on tiny models."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from serving import serving
from tiny_checkpoints import save_gguf
from word_tokenizer import speak_words

from outrider import LLM


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory):
    import gguf

    kind = gguf.GGMLQuantizationType.Q4_0
    path = save_gguf(tiny("gemma4-e2b").model, tmp_path_factory.mktemp("measured") / "tiny.gguf", kind)
    llm = LLM(path, threads=1, context=512, lookup_history=2048, prefix_cache_bytes=4 << 20)
    speak_words(llm)
    llm.tokenizer.encode = lambda text, **_: [2, *(3 + ord(c) % 500 for c in text[:200])]
    return llm


def test_outriders_own_server(llm, call):
    with serving(llm, running=4, waiting=32) as (url, _):
        drafting = ("--extra", '{"drafting": "off"}', "--extra2", '{"drafting": 4}')
        asked = ("--clients", "1,4", "--requests", "8", "--max-tokens", "24")
        ran = call("bench", "endpoint", url, *asked, *drafting, "--json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert [arm["model"] for arm in result["arms"]] == ["tiny", "tiny"]
    for level in result["levels"]:
        plain, drafted = level["arms"]["A"], level["arms"]["B"]
        for figures in (plain, drafted):
            assert (figures["answered"], figures["failures"]) == (8, {})
            assert figures["tokens_counted_by"] == "usage"
            assert figures["drafting"]["source"] == "outrider"
            assert figures["time_to_first_token_seconds"]["median"] > 0
        assert (plain["drafting"]["drafted"], plain["drafting"]["tokens_per_pass"]) == (0, 1)
        assert 0 < drafted["drafting"]["accepted"] <= drafted["drafting"]["drafted"]
        assert plain["output_tokens"] == drafted["output_tokens"]
        assert level["texts"] == {"compared": 8, "equal": 8, "first_difference": None}


def test_a_full_queue_is_counted_as_refused(llm, call):
    with serving(llm, running=1, waiting=1) as (url, _):
        asked = ("--clients", "8", "--requests", "16", "--max-tokens", "32")
        ran = call("bench", "endpoint", url, *asked, "--extra", '{"ignore_eos": true}', "--json")
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)["levels"][0]["arms"]["A"]
    assert set(figures["failures"]) == {"HTTP 429"}
    assert figures["answered"] + figures["failures"]["HTTP 429"] == 16


def test_outriders_own_key(llm, call):
    with serving(llm, running=1, waiting=8, keys=["secret"]) as (url, _):
        asked = ("--clients", "1", "--requests", "2", "--max-tokens", "8", "--json")
        assert "requires an API key" in call("bench", "endpoint", url, *asked).err
        ran = call("bench", "endpoint", url, *asked, "--api-key", "secret")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["levels"][0]["arms"]["A"]["drafting"]["source"] == "outrider"


@pytest.fixture
def llama_cpp_url(tmp_path):
    """llama-cpp-python's server on the demo model."""
    pytest.importorskip("llama_cpp.server.app", reason="needs llama-cpp-python's server")
    from outrider.checkpoints.demo import demo_path

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(demo_path()), "--port", str(port)]
    log = tmp_path / "server.log"
    with log.open("w") as written, subprocess.Popen([*command, "--n_threads", "1"], stderr=written) as running:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                assert running.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"{url}/v1/models").close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield url
        finally:
            running.terminate()


@pytest.mark.slow
def test_llama_cpp_pythons_server(llama_cpp_url, call):
    ran = call("bench", "endpoint", llama_cpp_url, "--clients", "1", "--requests", "2", "--max-tokens", "8", "--json")
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)["levels"][0]["arms"]["A"]
    assert (figures["answered"], figures["failures"]) == (2, {})
    assert 8 <= figures["output_tokens"] <= 16
    assert figures["time_per_output_token_seconds"]["median"] > 0
