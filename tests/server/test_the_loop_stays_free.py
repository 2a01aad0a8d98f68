"""What a client sends is read beside the event loop, so that others are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving import serving

from outrider.server import fields, host, route
from outrider.server.file_handles import limit_accept_errors

JSON = {"content-type": "application/json"}
CHAT = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(("path", "body"), [("completions", {"prompt": "x"}), ("chat/completions", CHAT)])
def test_others_are_answered_while_a_body_is_read(served_llm, monkeypatch, path, body):
    loads, begun, go_on = json.loads, threading.Event(), threading.Event()

    def slowly(body):
        begun.set()
        assert go_on.wait(20)
        return loads(body)

    with serving(served_llm) as (base, _), ThreadPoolExecutor() as threads:
        monkeypatch.setattr(route.json, "loads", slowly)
        asked = threads.submit(httpx.post, f"{base}/v1/{path}", json=body | {"max_tokens": 1}, timeout=60)
        assert begun.wait(20)
        monkeypatch.setattr(route.json, "loads", loads)
        try:
            assert httpx.get(f"{base}/health").status_code == 200
        finally:
            go_on.set()
        assert asked.result().status_code == 200


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_biases_are_bounded_before_each_is_looked_at(url, path):
    body = CHAT if path.startswith("chat") else {"prompt": "x"}
    for count, status in ((1024, 200), (1025, 400), (250_000, 400)):
        biases = {str(token % 512 if count == 1024 else token): 1 for token in range(count)}
        biases |= {f"0{token}": 1 for token in range(1024 - len(biases))}  # 1024 texts of 512 tokens
        asked = body | {"n": 8, "max_tokens": 1, "logit_bias": biases}
        found = httpx.post(f"{url}/v1/{path}", json=asked, timeout=60)
        assert found.status_code == status, found.text
        if status == 400:
            says = f"logit_bias: it has {count} entries; the limit is 1024: leave some out"
            assert found.json()["error"]["message"] == says
            assert found.json()["error"]["param"] == "logit_bias"


def test_a_list_that_is_wrong_throughout_is_one_error(monkeypatch, url):
    explained, sizes = fields._first_problem, []
    monkeypatch.setattr(fields, "_first_problem", lambda error: sizes.append(error.error_count()) or explained(error))
    wrong = [1] * 50_000
    for path, body in (
        ("v1/completions", {"prompt": ["x"] * 50_000}),
        ("v1/completions", {"prompt": "x", "guided_choice": wrong}),
        ("v1/completions", {"prompt": "x", "structured_outputs": {"choice": wrong}}),
        ("v1/chat/completions", {"messages": wrong}),
        ("v1/chat/completions", CHAT | {"tools": wrong[:128]}),
        ("v1/messages", CHAT | {"max_tokens": 1, "stop_sequences": wrong}),
        ("v1/messages", {"max_tokens": 1, "messages": wrong}),
        ("v1/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": wrong}]}),
        ("tokenize", CHAT | {"tools": wrong}),
        ("detokenize", {"tokens": ["x"] * 50_000}),
    ):
        assert httpx.post(f"{url}/{path}", json=body, timeout=60).status_code == 400
    assert max(sizes) < 10
    assert len(sizes) == 10


def test_a_grammar_is_compiled_beside_the_loop(served_llm, monkeypatch):
    prompts = served_llm.parts.prompts
    check, threads = prompts.check, []

    def noted(params):
        threads.append((params.grammar is not None, threading.current_thread().name))
        check(params)

    monkeypatch.setattr(prompts, "check", noted)
    with serving(served_llm) as (base, _):
        asked = {"prompt": "x", "max_tokens": 2, "regex": "[a-z ]+", "logit_bias": {"5": 1}}
        assert httpx.post(f"{base}/v1/completions", json=asked, timeout=60).status_code == 200
    compiled = [name for grammar, name in threads if grammar]
    assert any(name.startswith("outrider-compile") for name in compiled)
    assert all(name.startswith("outrider-") for _, name in threads)


# -- out of file handles ---------------------------------------------------------------------------------------------


def test_that_file_handles_ran_out_is_logged_seldom(caplog):
    """The system's own limit, with one connection too many: asyncio tries again some thousand times a second."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        loop = asyncio.get_running_loop()
        limit_accept_errors(loop)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = await loop.create_server(asyncio.Protocol, sock=listener)
            client = socket.create_connection(listener.getsockname())
            free = client.fileno() + 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            try:
                await asyncio.sleep(0.3)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client.close()
            server.close()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 1
    assert said[0].name == "outrider.server"
    assert "no more connections can be accepted" in said[0].getMessage()
    assert "ulimit -n" in said[0].getMessage()


def test_it_is_logged_again_after_a_while_and_all_else_as_before(caplog, monkeypatch):
    now = [100.0]
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(loop, "time", lambda: now[0])
    out = {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")}
    limit_accept_errors(loop)
    for seconds in (0, 1, 8.9, 0.2, 9.8, 0.3):
        now[0] += seconds
        loop.call_exception_handler(out)
    assert [record.name for record in caplog.records] == ["outrider.server"] * 3
    loop.call_exception_handler({"message": "something else"})
    assert caplog.records[-1].name == "asyncio"
    assert caplog.records[-1].getMessage() == "something else"
    loop.close()


def test_a_handler_that_was_there_still_gets_the_rest():
    loop, seen = asyncio.new_event_loop(), []
    loop.set_exception_handler(lambda _loop, context: seen.append(context))
    limit_accept_errors(loop)
    loop.call_exception_handler({"message": "something else"})
    assert seen == [{"message": "something else"}]
    loop.close()


def test_a_server_reports_it_seldom(served_llm, monkeypatch):
    loops = []
    monkeypatch.setattr(host, "limit_accept_errors", loops.append)
    with serving(served_llm) as (base, _):
        assert httpx.get(f"{base}/health").status_code == 200
        assert len(loops) == 1
