"""A request begins when its keys and values fit into memory; what never can is refused with the figures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving import serving

from outrider.cache.memory import sequence_bytes
from outrider.server.limits import Limits

LONG = {"prompt": "x", "max_tokens": 100, "ignore_eos": True, "drafting": "off"}


@pytest.fixture
def small(slow, monkeypatch):
    """A model with memory for one sequence of 128 positions."""
    caches = slow.parts.caches
    caches.clear()
    monkeypatch.setattr(caches.admission, "budget", sequence_bytes(caches.pages, 128, 256))
    return slow


@pytest.mark.parametrize("options", [{}, {"stream": True}, {"n": 2}], ids=str)
def test_what_can_never_fit_is_refused_with_the_figures(small, options):
    with serving(small) as (base, _):
        found = httpx.post(f"{base}/v1/completions", json=LONG | {"max_tokens": 200} | options, timeout=60)
        assert found.status_code == 503
        assert found.json()["error"]["message"].startswith("the request may come to 202 tokens, prompt and answer")
        assert "at most 128 tokens fit: lower max_tokens" in found.json()["error"]["message"]
        assert httpx.post(f"{base}/v1/completions", json=LONG, timeout=60).status_code == 200
    assert small.parts.caches.in_use == 0


def test_what_does_not_fit_beside_others_waits(small):
    with serving(small, running=4) as (base, _), ThreadPoolExecutor() as threads:
        asked = [threads.submit(httpx.post, f"{base}/v1/completions", json=LONG, timeout=60) for _ in range(3)]
        assert [answer.result().status_code for answer in asked] == [200] * 3
        assert len({answer.result().json()["usage"]["completion_tokens"] for answer in asked}) == 1


def test_it_waits_no_longer_than_in_the_queue(small):
    with serving(small, running=4, limits=Limits(waiting=0.4)) as (base, _), ThreadPoolExecutor() as threads:
        asked = [threads.submit(httpx.post, f"{base}/v1/completions", json=LONG, timeout=60) for _ in range(2)]
        answers = sorted((answer.result() for answer in asked), key=lambda answer: answer.status_code)
        assert [answer.status_code for answer in answers] == [200, 503]
        assert answers[1].json()["error"]["message"].startswith("the request waited 0.4 seconds for memory")
    assert small.parts.caches.in_use == 0
