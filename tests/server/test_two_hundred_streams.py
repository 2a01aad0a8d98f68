"""Two hundred streams at once on loopback, over all routes: none is lost, none is mixed with another."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from server import clients
from server.apis import APIS
from server.mixed_requests import Case
from serving import serving

STREAMS, TOKENS = 200, 12


@pytest.fixture(scope="module")
def cases():
    """Each has a prompt and a seed of its own; routes take turns."""
    routes = list(APIS.values())
    made = []
    for number in range(STREAMS):
        api = routes[number % len(routes)]
        body = api.ask(f"{number} of 200: {'abc '[number % 4 :]}", TOKENS) | {"seed": number, "temperature": 1.0}
        made.append(Case(api.path, body | {"stream": True}))
    return made


@pytest.fixture(scope="module")
def alone(json_llm, cases):
    """The answers, one after the other, whole, without drafting."""

    async def one_by_one(base):
        async with httpx.AsyncClient(base_url=base, timeout=None) as client:
            return [await clients.read(client, case.alone()) for case in cases]

    with serving(json_llm) as (base, _):
        answers = asyncio.run(one_by_one(base))
    assert all(answer.status == 200 and answer.completion_tokens for answer in answers)
    assert len({str(answer.choices) for answer in answers}) > STREAMS * 0.9, "one taken for another would be seen"
    return answers


async def at_once(base, cases, each=lambda _: None):
    """The answers to requests that are sent together; `each` is called with every one that is complete."""
    limits = httpx.Limits(max_connections=None)

    async def one(client, case):
        answer = await clients.read(client, case)
        each(answer)
        return answer

    async with httpx.AsyncClient(base_url=base, timeout=None, limits=limits) as client:
        return await asyncio.gather(*(one(client, case) for case in cases))


def assert_as_alone(answer, expected, case):
    assert answer.broken is None, f"{answer.broken}: {case}"
    assert answer.status == 200, answer
    assert answer.same(expected), f"{answer.unlike(expected)}: {case}"


@pytest.mark.slow
def test_every_stream_is_complete_and_as_it_is_alone(json_llm, cases, alone):
    with serving(json_llm, running=64, waiting=STREAMS) as (base, _):
        answers = asyncio.run(at_once(base, cases))
    for answer, expected, case in zip(answers, alone, cases, strict=True):
        assert_as_alone(answer, expected, case)


@pytest.mark.slow
def test_what_the_default_queue_does_not_hold_is_sent_away_and_nothing_else(json_llm, cases, alone, monkeypatch):
    """No pass begins until all that find no place have been sent away, so that their number is known."""
    step, go_on, away = json_llm.parts.engine.step, threading.Event(), []
    surplus = STREAMS - 8 - 64

    def held_up():
        assert go_on.wait(60)
        step()

    def each(answer):
        away.extend([answer] if answer.status == 429 else [])
        if len(away) == surplus:
            go_on.set()

    monkeypatch.setattr(json_llm.parts.engine, "step", held_up)
    with serving(json_llm) as (base, server):
        try:
            answers = asyncio.run(at_once(base, cases, each))
        finally:
            go_on.set()
        assert server.scheduler.counts == (0, 0)
    assert len(away) == surplus
    for answer, expected, case in zip(answers, alone, cases, strict=True):
        if answer.status == 429:
            assert 1 <= int(answer.retry_after) <= 60
            assert "queue is full" in answer.error
        else:
            assert_as_alone(answer, expected, case)
