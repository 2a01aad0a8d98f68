"""`outrider bench endpoint` against servers that behave, and against one that does not."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time

import httpx
import pytest
from misbehaving_server import DONE, USAGE, event, misbehaving, piece
from serving import serving
from tiny_checkpoints import save_gguf
from word_tokenizer import speak_words

from outrider import LLM

SHORT = ("--clients", "1,2", "--requests", "3", "--rounds", "1", "--max-tokens", "8", "--json")


@pytest.fixture
def server():
    with misbehaving() as running:
        running.parts = [piece("a"), piece("b", "length"), USAGE, DONE]
        yield running


def endpoint(call, *arguments):
    return call("bench", "endpoint", *arguments)


def figures(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_a_stream_with_usage_is_counted_by_the_server(server, call):
    found = figures(endpoint(call, server.url + "/v1/", *SHORT))
    assert [level["clients"] for level in found["levels"]] == [1, 2]
    for level in found["levels"]:
        (arm,) = level["arms"]
        assert arm["requests"] == 3
        assert arm["tokens"] == 21
        assert arm["tokens_counted_by_server"]
        assert arm["failures"] == {}
        assert arm["first_token_seconds"]["median"] > 0
    assert found["arms"] == [{"url": server.url + "/v1/", "model": "m", "extra": {}}]
    assert all(body["stream"] and body["stream_options"] == {"include_usage": True} for body in server.asked)
    assert len(server.asked) == 1 + 2 * 3


def test_a_stream_without_usage_or_done_is_counted_by_its_pieces(server, call):
    server.parts = [b": keep-alive\n\n", piece("a"), piece("", None), piece("b", "stop")]
    ran = endpoint(call, server.url, *SHORT)
    (arm,) = figures(ran)["levels"][0]["arms"]
    assert arm["tokens"] == 6
    assert not arm["tokens_counted_by_server"]
    assert "each piece of its stream counts as one" in endpoint(call, server.url, *SHORT[:-1]).out


def test_a_character_that_comes_in_two_parts_is_one(server, call):
    whole = piece("größer", "stop")
    cut = whole.index("ö".encode()) + 1
    server.parts = [whole[:cut], whole[cut:], DONE]
    server.models = json.dumps({"data": []}).encode()
    found = figures(endpoint(call, server.url, "--model", "x", "--extra2", "{}", *SHORT))
    assert found["texts"] == {"compared": 3, "same": 3}
    assert found["levels"][0]["arms"][0]["failures"] == {}
    assert server.asked[0]["model"] == "x"


def test_chat_is_asked_for_messages_and_its_reasoning_counts(server, call):
    server.parts = [
        event(choices=[{"delta": {"role": "assistant"}}]),
        event(choices=[{"delta": {"reasoning_content": "Hm"}}]),
        event(
            choices=[{"delta": {"content": "Yes"}, "finish_reason": "stop"}],
            timings={"draft_n": 4, "draft_n_accepted": 3},
        ),
        DONE,
    ]
    found = figures(endpoint(call, server.url, "--chat", "--extra", '{"seed": 3}', *SHORT))
    (arm,) = found["levels"][0]["arms"]
    assert arm["tokens"] == 6
    assert arm["drafting"] == {"drafted": 12, "accepted": 9, "acceptance_rate": 0.75}
    assert server.asked[0]["messages"][0]["role"] == "user"
    assert server.asked[0]["seed"] == 3


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([piece("a")], "the stream ended in the middle"),
        ([piece("a"), event(error={"message": "out of memory"})], "error in the stream: out of memory"),
        ([b"data: {nonsense\n\n"], "what it sends is no stream of completions"),
        ([event(choices=[3])], "what it sends is no stream of completions"),
    ],
)
def test_a_broken_stream_is_told(server, call, parts, told):
    server.parts = parts
    ran = endpoint(call, server.url, *SHORT)
    assert ran.code == 2
    assert told in ran.err


def test_what_is_refused_is_counted(server, call):
    server.body = b'{"error": {"message": "slow down"}}'
    server.statuses = [200, 429, 503, 200, 200, 200, 200]
    found = figures(endpoint(call, server.url, *SHORT))
    assert found["levels"][0]["arms"][0]["failures"] == {
        "refused: too many requests (429)": 1,
        "status 503: slow down": 1,
    }
    assert found["levels"][1]["arms"][0]["failures"] == {}


def test_texts_that_differ_are_shown(server, call):
    with misbehaving() as other:
        other.parts = [piece("something else", "stop"), USAGE, DONE]
        ran = endpoint(call, server.url, other.url, *SHORT[:-1])
    assert ran.code == 0
    assert "The texts of 3 of 3 prompts differ" in ran.out
    assert "B: 'something else'" in ran.out


@pytest.mark.parametrize(
    ("models", "status", "arguments", "told"),
    [
        (b"hello", 200, (), "not with a list of models"),
        (b"{}", 401, (), "refuses the key (401)"),
        (None, 200, ("--model", "y"), "has no model y: it has m"),
        (b'{"data": []}', 200, (), "name one with --model"),
        (None, 200, ("--clients", "1,x"), "--clients takes numbers"),
        (None, 200, ("--clients", "0"), "--clients takes numbers"),
        (None, 200, ("--extra", "[1]"), "--extra takes a JSON object"),
        (None, 200, ("--extra2", "{"), "--extra2 is no JSON"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is_sent(server, call, models, status, arguments, told):
    server.models, server.models_status = models or server.models, status
    ran = endpoint(call, server.url, *arguments, "--json")
    assert ran.code == 2
    assert told in ran.err
    assert server.asked == []


def test_nothing_listens(call):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ran = endpoint(call, f"http://127.0.0.1:{free.getsockname()[1]}", *SHORT)
    assert ran.code == 2
    assert "does not answer" in ran.err


def test_outriders_own_server_says_the_same_with_drafts_and_without(tiny, tmp_path, call):
    import gguf

    path = save_gguf(tiny("gemma4-e2b").model, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.Q4_0)
    llm = LLM(path, threads=1, context=512)
    speak_words(llm)
    llm.tokenizer.encode = lambda text, **_: [2, *(3 + ord(c) % 500 for c in text[:200])]
    with serving(llm) as (url, _):
        arms = ("--extra", '{"drafting": 3}', "--extra2", '{"drafting": "off"}')
        found = figures(endpoint(call, url, *arms, *SHORT, "--max-tokens", "64"))
    assert found["texts"] == {"compared": 3, "same": 3}
    drafted, plain = found["levels"][0]["arms"]
    assert drafted["drafting"]["drafted"] > 0
    assert plain["drafting"]["drafted"] == 0
    assert drafted["tokens_counted_by_server"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs llama-cpp-python: the extra bench")
def test_a_real_foreign_server(call):
    from outrider.checkpoints.demo import demo_path

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "llama_cpp.server",
        "--model",
        str(demo_path()),
        "--port",
        str(port),
        "--n_ctx",
        "512",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            url, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    httpx.get(f"{url}/v1/models")
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            (arm,) = figures(endpoint(call, url, *SHORT))["levels"][0]["arms"]
        finally:
            running.terminate()
    assert arm["failures"] == {}
    assert arm["tokens"] == 24
