"""One request to a server that behaves well or badly."""

from __future__ import annotations

import asyncio

import pytest
from fake_endpoint import WORDS

from outrider.bench.endpoint import request
from outrider.bench.endpoint.request import open_client
from outrider.bench.endpoint.server import Arm, DraftCounts


def ask(server, *, chat=False, silence_seconds=20.0, **options):
    arm = Arm("A", f"{server.address}/v1", chat, "fake", 16, 0.0, **options)

    async def go():
        async with open_client(None, silence_seconds) as http:
            return await request.ask(http, arm, 3, "Hello")

    return asyncio.run(go())


@pytest.mark.parametrize("chat", [False, True])
def test_a_good_answer_is_timed_and_counted_by_the_server(server, chat):
    server.delay = 0.02
    answer = ask(server, chat=chat)
    assert answer.failure is None
    assert (answer.number, answer.text) == (3, "".join(WORDS))
    assert (answer.tokens, answer.usage, len(answer.chunks)) == (len(WORDS) + 1, len(WORDS) + 1, len(WORDS))
    assert 0.02 <= answer.first_seconds < answer.last_seconds
    assert answer.last_seconds >= 0.02 * len(WORDS)
    assert answer.seconds_per_token == pytest.approx((answer.last_seconds - answer.first_seconds) / len(WORDS))
    (body,) = server.bodies
    said = {"messages": [{"role": "user", "content": "Hello"}]} if chat else {"prompt": "Hello"}
    options = {"model": "fake", "max_tokens": 16, "temperature": 0.0, "stream": True}
    assert body == {**said, **options, "stream_options": {"include_usage": True}}


def test_extra_fields_come_last_and_null_leaves_a_field_out(server):
    ask(server, extra={"max_tokens": None, "max_completion_tokens": 5, "temperature": 0.5})
    (body,) = server.bodies
    assert "max_tokens" not in body
    assert (body["max_completion_tokens"], body["temperature"]) == (5, 0.5)


def test_without_usage_chunks_are_counted(server):
    server.behaviour = "no usage"
    answer = ask(server)
    assert (answer.tokens, answer.usage) == (len(WORDS), None)
    assert answer.failure is None


@pytest.mark.parametrize("behaviour", ["comments", "split", "not done"])
def test_what_the_standard_allows_changes_nothing(server, behaviour):
    server.behaviour = behaviour
    answer = ask(server)
    assert answer.failure is None
    assert answer.text == "".join(WORDS)
    assert answer.usage == len(WORDS) + 1


@pytest.mark.parametrize(
    ("behaviour", "failure", "message"),
    [
        ("cut", "cut off", "without a finish reason"),
        ("interrupted", "cut off", "without a finish reason"),
        ("torn", "connection", "closed"),
        ("refuse", "HTTP 429", "busy"),
        ("fail", "HTTP 500", "it broke"),
        ("error event", "error in the stream", "out of memory"),
        ("not json", "malformed", "Expecting"),
        ("json", "cut off", "finish reason"),
        ("no stream options", "HTTP 422", "stream_options"),
        ("hang up", "connection", "closed"),
    ],
)
def test_failures_have_a_kind(server, behaviour, failure, message):
    server.behaviour = behaviour
    answer = ask(server)
    assert answer.failure == failure
    assert message in answer.message


@pytest.mark.parametrize("spoken", [b"", b"220 mail.example ESMTP\r\n"])
def test_what_is_no_http_server_is_a_failed_connection(spoken):
    async def answer(_reader, writer):
        writer.write(spoken)
        writer.close()

    async def go():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening, open_client(None) as http:
            port = listening.sockets[0].getsockname()[1]
            arm = Arm("A", f"http://127.0.0.1:{port}/v1", False, "fake", 16, 0.0)
            return await request.ask(http, arm, 0, "Hello")

    assert asyncio.run(go()).failure == "connection"


def test_silence_times_out(server):
    server.behaviour = "silent"
    answer = ask(server, silence_seconds=0.3)
    assert answer.failure == "timeout"
    assert answer.text == "".join(WORDS[: len(WORDS) // 2])


def test_an_answer_without_text_has_no_times(server):
    server.words = []
    answer = ask(server)
    assert answer.failure is None
    assert (answer.first_seconds, answer.seconds_per_token) == (None, None)


def test_timings_of_llama_cpp_are_read(server):
    server.timings = {"predicted_n": 10, "draft_n": 8, "draft_n_accepted": 5}
    assert ask(server).draft == DraftCounts("llama.cpp", 8, 5, 4)
