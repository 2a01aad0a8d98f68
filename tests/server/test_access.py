"""Every request has an id, and one line in the log."""

from __future__ import annotations

import logging
import re
import time

import httpx
import pytest


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="outrider.server.access")

    def found(count=1):
        until = time.monotonic() + 5  # a client has its answer a moment before
        while True:
            said = [record.getMessage() for record in caplog.records if record.name == "outrider.server.access"]
            if len(said) >= count or time.monotonic() > until:
                return said
            time.sleep(0.01)

    return found


def test_an_id_goes_through_or_is_made(url):
    found = httpx.get(f"{url}/v1/models", headers={"X-Request-Id": "mine-1"})
    assert found.headers["x-request-id"] == "mine-1"
    made = {httpx.get(f"{url}/v1/models").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    for bad in ("a b", "x" * 129, 'a"b'):
        assert httpx.get(f"{url}/v1/models", headers={"X-Request-Id": bad}).headers["x-request-id"] != bad


@pytest.mark.parametrize("path", ["/", "/nothing", "/health", "/v1/completions"])
def test_every_answer_has_one(url, path):
    assert httpx.get(f"{url}{path}").headers["x-request-id"]


def test_official_clients_read_it(client):
    assert client.models.list()._request_id or client.models.with_raw_response.list().headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
def test_one_line_per_request(url, lines, stream):
    body = {"prompt": "abab" * 8, "max_tokens": 20, "temperature": 0, "stream": stream, "n": 2}
    httpx.post(f"{url}/v1/completions", json=body, headers={"X-Request-Id": "mine-2"})
    (line,) = lines()
    assert re.fullmatch(
        r'127\.0\.0\.1 "POST /v1/completions" 200 mine-2 \d+\.\d\d s: 33 \+ \d+ tokens, \d+\.\d tokens/s'
        r"(, \d+% of drafts accepted)?",
        line,
    )


def test_errors_have_a_line_and_a_path_cannot_write_another(url, lines):
    httpx.post(f"{url}/v1/completions", json={})
    httpx.get(f"{url}/a%0Ab")
    httpx.get(f"{url}/health")
    first, second = lines(2)
    assert '"POST /v1/completions" 400' in first
    assert '"GET /a%0Ab" 404' in second
