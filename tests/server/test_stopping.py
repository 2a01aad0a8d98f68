"""A signal stops a server within the time that its docs give it, and its clients get an error."""

from __future__ import annotations

import json
import signal
import threading
import time

import httpx
import pytest
from server.served_checkpoint import save_served
from server.server_process import ServerProcess

LONG = {"prompt": "x", "max_tokens": 250, "ignore_eos": True, "drafting": "off"}
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_served(tmp_path_factory.mktemp("stopping"))


@pytest.fixture
def start(checkpoint):
    """Starts servers whose passes take 30 ms: an answer of LONG takes seven seconds and more."""
    started = []

    def begin(stopping):
        model, drafter = checkpoint
        started.append(ServerProcess(model, drafter, 512, "--pause", "0.03", "--stopping", str(stopping)))
        return started[-1]

    yield begin
    for server in started:
        server.close()


def events(lines):
    return [line.removeprefix("data: ") for line in lines if line]


def ended_cleanly(server):
    log = server.log()
    return not any(word in log for word in ("Traceback", "nanobind", "leaked", "ERROR", "Exception")), log


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_stream_that_takes_too_long_ends_with_an_error_event(start, number):
    server = start(1.0)
    with httpx.stream("POST", f"{server.url}/v1/completions", json=LONG | {"stream": True}, timeout=20) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        signalled = time.monotonic()
        server.signal(number)
        rest = events([first, *lines])
    assert time.monotonic() - signalled < 4
    assert json.loads(rest[-2])["error"]["type"] == "server_error"
    assert "shutting down" in json.loads(rest[-2])["error"]["message"]
    assert rest[-1] == "[DONE]"
    assert len(rest) > 10, "it went on for as long as it may"
    assert server.wait(5) == 0
    clean, log = ended_cleanly(server)
    assert clean, log


@pytest.mark.slow
def test_a_whole_answer_that_takes_too_long_is_refused(start):
    server, found = start(0.5), []
    thread = threading.Thread(
        target=lambda: found.append(httpx.post(f"{server.url}/v1/completions", json=LONG, timeout=20))
    )
    thread.start()
    while httpx.get(f"{server.url}/health").json()["running"] == 0:
        time.sleep(0.02)
    server.signal(signal.SIGTERM)
    thread.join(10)
    assert found[0].status_code == 503
    assert "shutting down" in found[0].json()["error"]["message"]
    assert int(found[0].headers["retry-after"]) >= 1
    assert server.wait(5) == 0
    clean, log = ended_cleanly(server)
    assert clean, log


@pytest.mark.slow
def test_what_ends_in_time_ends_well_and_nothing_else_is_taken(start):
    server = start(20)
    asked = LONG | {"max_tokens": 40, "stream": True}
    assert httpx.get(f"{server.url}/ready").status_code == 200
    with httpx.stream("POST", f"{server.url}/v1/completions", json=asked, timeout=20) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        server.signal(signal.SIGTERM)
        time.sleep(0.05)
        refused = httpx.post(f"{server.url}/v1/completions", json={"prompt": "x", "max_tokens": 1})
        ready, alive = httpx.get(f"{server.url}/ready"), httpx.get(f"{server.url}/health")
        rest = events([first, *lines])
    for found in (refused, ready):
        assert found.status_code == 503
        assert int(found.headers["retry-after"]) >= 1
        assert found.headers["connection"] == "close", "the next one is to find another replica"
    assert (alive.status_code, alive.json()["running"]) == (200, 1)
    assert json.loads(rest[-2])["choices"][0]["finish_reason"] == "length"
    assert rest[-1] == "[DONE]"
    assert server.wait(5) == 0, "it does not wait longer than needed"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")


@pytest.mark.slow
def test_all_answers_of_a_request_are_finished(start):
    """More of them than share a pass: the last ones begin after the signal."""
    server = start(60)
    asked = LONG | {"max_tokens": 8, "n": 20, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=asked, timeout=60) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        server.signal(signal.SIGTERM)
        chunks = [json.loads(event) for event in events([first, *lines])[:-1]]
    ended = [choice["index"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"] == "length"]
    assert sorted(ended) == list(range(20))
    assert server.wait(5) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_it_at_once(start, number):
    server = start(60)
    with httpx.stream("POST", f"{server.url}/v1/completions", json=LONG | {"stream": True}, timeout=20) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.signal(number)
        time.sleep(0.3)
        assert server.running
        server.signal(number)
        assert server.wait(2) == 128 + number
        with pytest.raises(httpx.TransportError):
            list(lines)


@pytest.mark.slow
def test_a_client_that_does_not_read_does_not_keep_it(start):
    server = start(0.5)
    with httpx.stream("POST", f"{server.url}/v1/completions", json=LONG | {"stream": True}, timeout=20) as stream:
        kept = stream.iter_lines()
        next(kept)
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
    clean, log = ended_cleanly(server)
    assert clean, log


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_an_idle_server_stops_soon(start, number):
    server = start(30)
    httpx.get(f"{server.url}/health")
    began = time.monotonic()
    server.signal(number)
    assert server.wait(5) == 0
    assert time.monotonic() - began < 3
    clean, log = ended_cleanly(server)
    assert clean, log
