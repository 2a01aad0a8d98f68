"""One request to a server that behaves well or badly."""

from __future__ import annotations

import asyncio

import pytest
from fake_endpoint import WORDS

from outrider.bench.endpoint.answer import DraftCounts, FailureKind
from outrider.bench.endpoint.arm import Arm
from outrider.bench.endpoint.client import Client


def ask(server, *, chat=False, silence_seconds=20.0, **options):
    arm = Arm("A", f"{server.address}/v1", chat, "fake", 16, 0.0, **options)

    async def go():
        async with Client(None, silence_seconds) as client:
            return await client.ask(arm, 3, "Hello")

    return asyncio.run(go())


@pytest.mark.parametrize("chat", [False, True])
def test_a_good_answer_is_timed_and_counted_by_the_server(server, chat):
    server.delay = 0.02
    answer = ask(server, chat=chat)
    assert answer.failure is None
    assert (answer.number, answer.text) == (3, "".join(WORDS))
    assert (answer.tokens, answer.counted_by_server, answer.chunks) == (len(WORDS) + 1, True, len(WORDS))
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
    assert (answer.tokens, answer.counted_by_server) == (len(WORDS), False)
    assert answer.failure is None


@pytest.mark.parametrize("behaviour", ["comments", "split", "not done"])
def test_what_the_standard_allows_changes_nothing(server, behaviour):
    server.behaviour = behaviour
    answer = ask(server)
    assert answer.failure is None
    assert answer.text == "".join(WORDS)
    assert answer.counted_by_server


@pytest.mark.parametrize(
    ("behaviour", "kind", "status", "message"),
    [
        ("cut", FailureKind.CUT_OFF, None, "without a finish reason"),
        ("interrupted", FailureKind.CUT_OFF, None, "without a finish reason"),
        ("torn", FailureKind.CUT_OFF, None, "closed"),
        ("refuse", FailureKind.REFUSED, 429, "busy"),
        ("fail", FailureKind.SERVER_ERROR, 500, "it broke"),
        ("error event", FailureKind.SERVER_ERROR, None, "out of memory"),
        ("not json", FailureKind.MALFORMED, None, "no JSON object"),
        ("json", FailureKind.MALFORMED, 200, "application/json"),
        ("no stream options", FailureKind.REJECTED, 422, "stream_options"),
        ("hang up", FailureKind.SERVER_ERROR, 500, "no message"),
    ],
)
def test_failures_have_a_kind(server, behaviour, kind, status, message):
    server.behaviour = behaviour
    failure = ask(server).failure
    assert (failure.kind, failure.status) == (kind, status)
    assert message in failure.message


@pytest.mark.parametrize("spoken", [b"", b"220 mail.example ESMTP\r\n"])
def test_what_is_no_http_server_is_unreachable(spoken):
    async def answer(_reader, writer):
        writer.write(spoken)
        writer.close()

    async def go():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening, Client(None) as client:
            port = listening.sockets[0].getsockname()[1]
            return await client.ask(Arm("A", f"http://127.0.0.1:{port}/v1", False, "fake", 16, 0.0), 0, "Hello")

    assert asyncio.run(go()).failure.kind is FailureKind.UNREACHABLE


def test_silence_is_not_waited_for_for_ever(server):
    server.behaviour = "silent"
    answer = ask(server, silence_seconds=0.3)
    assert answer.failure.kind is FailureKind.TIMEOUT
    assert answer.text == "".join(WORDS[: len(WORDS) // 2])


def test_an_answer_without_text_has_no_times(server):
    server.words = []
    answer = ask(server)
    assert answer.failure is None
    assert (answer.first_seconds, answer.seconds_per_token) == (None, None)


def test_timings_of_llama_cpp_are_read(server):
    server.timings = {"predicted_n": 10, "draft_n": 8, "draft_n_accepted": 5}
    assert ask(server).draft == DraftCounts(8, 5, 4)
