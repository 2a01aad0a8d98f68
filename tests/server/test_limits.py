"""Nothing waits, runs or is kept for ever: what takes too long is told so, and its place is free."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
from serving import serving

from outrider.server.limits import Limits
from outrider.server.openai import completions

SHORT = {"prompt": "y", "max_tokens": 2}
HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json; charset=utf-8\r\n"
    b"content-length: %d\r\n\r\n"
)
LONG = {"prompt": "x", "max_tokens": 250, "ignore_eos": True, "drafting": "off"}


@contextlib.contextmanager
def busy(base, count):
    """So many long requests in work."""
    with contextlib.ExitStack() as stack:
        kept = []  # an iterator that is let go of closes its connection
        for _ in range(count):
            stream = stack.enter_context(httpx.stream("POST", f"{base}/v1/completions", json=LONG | {"stream": True}))
            kept.append(stream.iter_lines())
            next(kept[-1])
        yield


def settled(base):
    until = time.monotonic() + 10
    while (found := httpx.get(f"{base}/health").json())["running"] + found["waiting"]:
        assert time.monotonic() < until, f"a place was not freed: {found}"
        time.sleep(0.02)


def given_up(base, limit):
    lines = httpx.get(f"{base}/metrics").text.splitlines()
    name = f'outrider_limit_exceeded_total{{limit="{limit}"}} '
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)


def test_a_full_queue_answers_429_and_when_to_come_back(slow):
    with serving(slow, running=1, waiting=1) as (base, server), busy(base, 1), ThreadPoolExecutor() as threads:
        waiting = threads.submit(httpx.post, f"{base}/v1/completions", json=SHORT, timeout=60)
        while server.scheduler.counts != (1, 1):
            time.sleep(0.01)
        found = httpx.post(f"{base}/v1/completions", json={"prompt": "x"})
        assert found.status_code == 429
        assert 1 <= int(found.headers["retry-after"]) <= 60
        assert found.json()["error"]["type"] == "rate_limit_error"
        assert given_up(base, "full") == 1
        assert waiting.result().status_code == 200


def test_a_server_where_none_may_wait_takes_as_many_as_can_run(slow):
    with serving(slow, running=2, waiting=0) as (base, _), busy(base, 1):
        assert httpx.post(f"{base}/v1/completions", json=SHORT).status_code == 200
        with busy(base, 1):
            assert httpx.post(f"{base}/v1/completions", json={"prompt": "y"}).status_code == 429


def test_a_request_between_queue_and_pass_has_its_place(served_llm, monkeypatch):
    """It is in neither for a moment; nobody may be let in for it, and nobody may think the server idle."""
    own, begun, go_on = served_llm.parts.engine.add, threading.Event(), threading.Event()

    def add(*arguments):
        begun.set()
        assert go_on.wait(20)
        return own(*arguments)

    monkeypatch.setattr(served_llm.parts.engine, "add", add)
    with serving(served_llm, running=1, waiting=0) as (base, _), ThreadPoolExecutor() as threads:
        first = threads.submit(httpx.post, f"{base}/v1/completions", json=SHORT, timeout=60)
        assert begun.wait(20)
        try:
            assert httpx.get(f"{base}/health").json() == {"status": "ok", "running": 1, "waiting": 0}
            assert httpx.post(f"{base}/v1/completions", json=SHORT).status_code == 429
        finally:
            go_on.set()
        assert first.result().status_code == 200


def test_when_to_come_back_follows_from_what_requests_take(served_llm):
    with serving(served_llm, running=2) as (base, server):
        server.scheduler._mean_seconds = 20.0
        assert server.scheduler.retry_after == 10
        for _ in range(8):
            httpx.post(f"{base}/v1/completions", json=SHORT)
        assert server.scheduler.retry_after < 5


@pytest.mark.parametrize("stream", [False, True])
def test_waiting_too_long_is_told_and_leaves_the_queue(slow, stream):
    with serving(slow, running=1, limits=Limits(waiting=0.2)) as (base, server), busy(base, 1):
        asked = {"prompt": "y", "max_tokens": 2, "stream": stream}
        found = httpx.post(f"{base}/v1/completions", json=asked, timeout=20)
        if stream:
            first = json.loads(found.text.removeprefix("data: ").partition("\n")[0])
            assert found.text.endswith("data: [DONE]\n\n")
        else:
            assert found.status_code == 503
            assert int(found.headers["retry-after"]) >= 1
            first = found.json()
        assert first["error"]["type"] == "timeout_error"
        assert "waited 0.2 seconds" in first["error"]["message"]
        assert server.scheduler.counts == (1, 0)
        assert given_up(base, "queue") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_running_too_long_is_told_and_frees_the_place(slow, stream):
    with serving(slow, running=1, limits=Limits(running=0.3)) as (base, server):
        found = httpx.post(f"{base}/v1/completions", json=LONG | {"stream": stream}, timeout=20)
        if stream:
            events = [line.removeprefix("data: ") for line in found.text.splitlines() if line]
            assert json.loads(events[0])["choices"][0]["text"]
            assert json.loads(events[-2])["error"]["type"] == "timeout_error"
            assert events[-1] == "[DONE]"
        else:
            assert found.status_code == 504
            assert "ran for 0.3 seconds" in found.json()["error"]["message"]
        assert server.scheduler.counts == (0, 0)
        assert given_up(base, "run") == 1
        assert httpx.post(f"{base}/v1/completions", json=SHORT).status_code == 200


def raw(base):
    """A socket to the server, with a small buffer so that it is soon full."""
    place = urlsplit(base)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    made.connect((place.hostname, place.port))
    return made


def posted(asked):
    body = json.dumps(asked).encode()
    return HEAD % len(body) + body


def test_a_client_that_does_not_read_loses_its_place_and_holds_up_nobody(served_llm, monkeypatch):
    # A socket takes megabytes before it is full: each event is made large.
    from outrider.server.openai import answers

    event = answers.event
    monkeypatch.setattr(answers, "event", lambda body: event(body) + ":" + "x" * 200_000 + "\n\n")
    with serving(served_llm, running=2, limits=Limits(reading=0.3)) as (base, server), raw(base) as reader:
        reader.sendall(posted(LONG | {"stream": True}))
        while server.scheduler.counts[0] == 0:
            time.sleep(0.005)
        assert httpx.post(f"{base}/v1/completions", json=SHORT, timeout=20).status_code == 200
        settled(base)
        until = time.monotonic() + 10
        while given_up(base, "reader") == 0:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_slow_reader_gets_everything(served_llm):
    with serving(served_llm, limits=Limits(reading=1.0)) as (base, _):
        asked = LONG | {"max_tokens": 40, "stream": True}
        with httpx.stream("POST", f"{base}/v1/completions", json=asked, timeout=20) as stream:
            lines = []
            for line in stream.iter_lines():
                time.sleep(0.01)
                lines.append(line)
        assert "data: [DONE]" in lines


def test_a_body_that_does_not_come_is_not_waited_for(served_llm):
    with serving(served_llm, limits=Limits(body=0.2)) as (base, _), raw(base) as sender:
        sender.sendall(HEAD % 100 + b"{")
        sender.settimeout(20)
        answer = sender.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert given_up(base, "body") == 1


def test_a_client_that_leaves_while_its_prompt_is_scored_ends_the_scoring(served_llm, monkeypatch):
    from outrider.engine import scoring

    target, passes = served_llm.parts.engine.target, []
    run = target.run

    def slowly(*given, **options):
        passes.append(time.monotonic())
        time.sleep(0.05)
        return run(*given, **options)

    monkeypatch.setattr(scoring, "_ROWS", 2)
    with serving(served_llm) as (base, _):
        monkeypatch.setattr(target, "run", slowly)
        asked = {"prompt": [[2, *range(10, 210)]] * 4, "prompt_logprobs": 1, "max_tokens": 1}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{base}/v1/completions", json=asked, timeout=1)
        left = time.monotonic()
        while time.monotonic() < left + 3 and passes[-1] > time.monotonic() - 1:
            time.sleep(0.05)
        assert passes[0] < left
        assert passes[-1] < left + 2
        assert served_llm.parts.caches.in_use == 0


def test_prompt_logprobs_are_bounded(url, monkeypatch):
    monkeypatch.setattr(completions, "MAX_PROMPT_LOGPROBS", 2 * 2 * 10 * 6)
    asked = {"prompt": [[2] * 10] * 2, "n": 2, "echo": True, "logprobs": 5, "max_tokens": 0}
    assert httpx.post(f"{url}/v1/completions", json=asked, timeout=60).status_code == 200
    found = httpx.post(f"{url}/v1/completions", json=asked | {"prompt": [[2] * 10, [2] * 11]}, timeout=60)
    assert found.status_code == 400
    assert "asks for 252 log-probabilities of prompt tokens; the limit is 240" in found.json()["error"]["message"]


def test_a_client_that_leaves_while_its_prompt_is_computed_frees_its_place_within_a_pass(slow):
    with serving(slow, running=1) as (base, server):
        began = threading.Event()
        step = slow.parts.engine.step

        def told():
            if slow.parts.engine._running:
                began.set()
            step()

        slow.parts.engine.step = told
        with raw(base) as leaving:
            body = json.dumps({"prompt": "x" * 200, "max_tokens": 2, "stream": True}).encode()
            leaving.sendall(HEAD % len(body) + body)
            assert began.wait(10)
        settled(base)
        assert slow.parts.caches.in_use == 0
        assert server.scheduler.counts == (0, 0)
