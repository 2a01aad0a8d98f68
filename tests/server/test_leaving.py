"""A client may leave at any time: its request ends, and the server says nothing of it in its log."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time

import httpx
import pytest
from serving import one_model, serving

from outrider.server.app import create_app


@pytest.fixture
def standing(served_llm):
    """A server whose scheduler does not work: what is submitted waits until it is cancelled."""
    models = one_model(served_llm)
    return models, models.slots[0].service.scheduler


def ask(server, messages, *, sent=None, path="/v1/completions"):
    """One request by ASGI. `messages` are what the server receives, and then nothing; the statuses of its answers.

    sent: called with each message of the server.
    """
    statuses = []

    async def main():
        left = list(messages)

        async def receive():
            if not left:
                await asyncio.Event().wait()
            return left.pop(0)

        async def send(message):
            await asyncio.sleep(0)
            if "status" in message:
                statuses.append(message["status"])
            if sent:
                sent(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": "POST", "path": path}
        scope |= {"headers": headers, "query_string": b"", "raw_path": path.encode(), "root_path": ""}
        scope |= {"http_version": "1.1", "scheme": "http", "client": None, "server": None}
        await asyncio.wait_for(create_app(server)(scope, receive, send), 20)

    asyncio.run(main())
    return statuses


def body(**fields):
    content = json.dumps({"prompt": "x", "max_tokens": 200, **fields}).encode()
    return {"type": "http.request", "body": content, "more_body": False}


GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize("several", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_one_that_leaves_right_after_sending_waits_for_nothing(standing, stream, several):
    """A stream that has not begun has nothing that would end with it."""
    server, scheduler = standing
    ask(server, [body(stream=stream, n=several), GONE])
    assert scheduler.counts == (0, 0)


def test_one_that_leaves_within_its_body_is_no_error_of_the_server(standing, caplog):
    server, scheduler = standing
    half = {"type": "http.request", "body": b'{"prompt": ', "more_body": True}
    with caplog.at_level(logging.WARNING, logger="outrider"):
        ask(server, [half, GONE])
    assert scheduler.counts == (0, 0)
    assert not caplog.records


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_leaves_while_its_prompt_is_computed_frees_its_place_within_a_pass(served_llm, monkeypatch, stream):
    """The passes of a long prompt are made to wait for the test, so that the client leaves in the midst of them."""
    step, begun, go_on, after = served_llm.parts.engine.step, threading.Event(), threading.Event(), []
    monkeypatch.setattr(served_llm.parts.engine, "chunk", 4)
    served_llm.parts.caches.clear()

    def slow():
        running = list(served_llm.parts.engine._running)
        step()
        if running:
            assert not running[0].decoding, "the prompt is long enough"
            if go_on.is_set():
                after.append(len(running))
            elif running[0].sequence.cache.length >= 12:
                begun.set()
                assert go_on.wait(20)

    monkeypatch.setattr(served_llm.parts.engine, "step", slow)
    with serving(served_llm, running=1, waiting=4) as (base, server):
        scheduler, own = server.scheduler, server.scheduler.cancel

        def cancel(ticket):
            own(ticket)
            go_on.set()

        monkeypatch.setattr(scheduler, "cancel", cancel)
        host, port = base.removeprefix("http://").split(":")
        content = json.dumps({"prompt": "abcd" * 60, "stream": stream}).encode()
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % len(content)
            )
            client.sendall(content)
            assert begun.wait(20)
            assert scheduler.counts == (1, 0)
        until = time.monotonic() + 10
        while scheduler.counts != (0, 0) or served_llm.parts.caches.in_use:
            assert time.monotonic() < until, "the place was not freed"
            time.sleep(0.005)
        assert sum(after) <= 1
        monkeypatch.setattr(served_llm.parts.engine, "step", step)
        found = httpx.post(f"{base}/v1/completions", json={"prompt": "x", "max_tokens": 2}, timeout=20)
        assert found.status_code == 200
