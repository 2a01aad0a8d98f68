"""Connections: silent while a prompt waits they may not be, kept between requests they are, and pages come by leave."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from server.test_limits import busy
from serving import one_model, serving

from outrider.server import event_stream
from outrider.server.app import create_app
from outrider.server.lifecycle import configured
from outrider.server.limits import Limits

STREAM = {"prompt": "y", "max_tokens": 2, "stream": True}


def test_headers_come_at_once_and_comments_while_a_request_waits(slow, monkeypatch):
    monkeypatch.setattr(event_stream, "COMMENT_SECONDS", 0.1)
    with serving(slow, running=1) as (base, _), busy(base, 1):
        began = time.monotonic()
        with httpx.stream("POST", f"{base}/v1/completions", json=STREAM, timeout=20) as stream:
            assert stream.status_code == 200
            lines = stream.iter_lines()
            first = [next(lines) for _ in range(4)]
            assert time.monotonic() - began < 5
        assert first == [": waiting", "", ": waiting", ""]


def test_comments_while_a_prompt_is_computed(slow, monkeypatch):
    """And the answer is the same as without them."""
    monkeypatch.setattr(event_stream, "COMMENT_SECONDS", 0.01)
    monkeypatch.setattr(slow.parts.engine, "chunk", 8)
    slow.parts.caches.clear()
    asked = {**STREAM, "prompt": "abcd" * 40, "temperature": 0}
    with serving(slow) as (base, _):
        text = httpx.post(f"{base}/v1/completions", json=asked, timeout=30).text
        whole = httpx.post(f"{base}/v1/completions", json={**asked, "stream": False}, timeout=30).json()
    before = text[: text.index("data: ")]
    assert before.count(": waiting\n\n") >= 3
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["text"] for event in events) == whole["choices"][0]["text"]


def test_official_clients_read_over_comments(slow, monkeypatch):
    import openai

    monkeypatch.setattr(event_stream, "COMMENT_SECONDS", 0.01)
    with serving(slow) as (base, _):
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
        chunks = list(client.completions.create(model="tiny", prompt="ab", max_tokens=5, stream=True))
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")


def test_connections_are_kept_for_longer_than_pools_keep_them(served_llm):
    limits = Limits()
    app = create_app(one_model(served_llm))
    assert configured(app, limits).timeout_keep_alive == 75
    assert configured(app, Limits(idle=5)).timeout_keep_alive == 5


def test_a_connection_serves_several_requests(url):
    place = urlsplit(url)
    body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with socket.create_connection((place.hostname, place.port)) as kept:
        for _ in range(3):
            kept.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                answer += kept.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_stream_that_ends_as_its_client_leaves_leaves_no_error_behind(served_llm):
    """Whatever comes first: the error of a task that nobody awaits would be logged."""
    host = one_model(served_llm).host
    unheard = []

    async def left(steps):
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        ending = asyncio.Event()

        async def events():
            yield "data: {}\n\n"
            await ending.wait()

        async def receive():
            await asyncio.sleep(0.01)
            ending.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            return {"type": "http.disconnect"}

        async def send(_message):
            pass

        call = SimpleNamespace(host=host, lease=None, state=SimpleNamespace(), scope={})
        stream = event_stream.EventStream(call, None, events())
        await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
        gc.collect()
        await asyncio.sleep(0)

    gc.freeze()  # what other tests have left takes a second to go through, each time
    for steps in range(12):
        asyncio.run(left(steps))
    gc.unfreeze()
    gc.collect()
    assert not unheard


# -- web pages -------------------------------------------------------------------------------------------------------

PAGE = "https://app.example"
PREFLIGHT = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}


def asked(llm, method, headers, *, cors=(), keys=None, loopback="127.0.0.1"):
    app = create_app(one_model(llm, keys=keys or ()), loopback=loopback, cors=cors)

    async def send():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.request(method, "/v1/models", headers=headers)

    return asyncio.run(send())


@pytest.mark.parametrize("keys", [None, ["secret"]])
def test_a_preflight_without_cors_says_what_to_do(served_llm, keys):
    found = asked(served_llm, "OPTIONS", PREFLIGHT, keys=keys)
    assert found.status_code == 403
    assert f"start it with --cors {PAGE}" in found.json()["error"]["message"]
    assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize("cors", [[PAGE], ["https://other.example", PAGE], ["*"]])
def test_an_allowed_page_gets_its_answer(served_llm, cors):
    found = asked(served_llm, "OPTIONS", PREFLIGHT, cors=cors)
    assert found.status_code == 200
    assert found.headers["access-control-allow-origin"] in (PAGE, "*")
    assert "content-type" in found.headers["access-control-allow-headers"].lower()
    found = asked(served_llm, "GET", {"origin": PAGE}, cors=cors)
    assert found.status_code == 200
    assert found.headers["access-control-allow-origin"] in (PAGE, "*")


def test_other_pages_and_names_stay_out(served_llm):
    assert asked(served_llm, "OPTIONS", {**PREFLIGHT, "origin": "https://evil.example"}, cors=[PAGE]).status_code == 403
    assert asked(served_llm, "GET", {"origin": "https://evil.example"}, cors=[PAGE]).status_code == 403
    assert asked(served_llm, "GET", {"origin": PAGE, "host": "evil.example"}, cors=[PAGE]).status_code == 403


def test_an_allowed_page_can_read_an_error(served_llm):
    found = asked(served_llm, "GET", {"origin": PAGE}, cors=[PAGE], keys=["secret"])
    assert found.status_code == 401
    assert found.headers["access-control-allow-origin"] == PAGE
