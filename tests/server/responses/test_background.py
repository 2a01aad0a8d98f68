"""Responses that go on without their client, and those that are cancelled."""

from __future__ import annotations

import contextlib
import time

import httpx
import openai
import pytest
from server.responses.streams import events, parsed, rebuilt, said
from serving import serving

from outrider.server.limits import Limits
from outrider.server.responses.store import ResponseStore

LONG = {"model": "tiny", "input": "x", "max_output_tokens": 200, "temperature": 0}
ON = {"extra_body": {"ignore_eos": True}}


@pytest.fixture
def slow_url(slow):
    with serving(slow, running=2, waiting=8, limits=Limits()) as (base, server):
        yield base
        until = time.monotonic() + 20
        while server.scheduler.counts != (0, 0):  # a cancelled job leaves before the next pass
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.fixture
def client(slow_url):
    return openai.OpenAI(base_url=f"{slow_url}/v1", api_key="none", max_retries=0)


def finished(client, response, *, within=30):
    until = time.monotonic() + within
    while (found := client.responses.retrieve(response)).status == "in_progress":
        assert time.monotonic() < until, "it does not end"
        time.sleep(0.02)
    return found


def test_a_response_in_the_background_is_that_of_the_foreground(client):
    ask = LONG | {"max_output_tokens": 20}
    begun = client.responses.create(**ask, background=True, **ON)
    assert (begun.status, begun.background, begun.output) == ("in_progress", True, [])
    found = finished(client, begun.id)
    assert (found.status, found.usage.output_tokens) == ("incomplete", 20)
    assert found.output_text == client.responses.create(**ask, **ON).output_text
    again = client.responses.create(**ask, previous_response_id=begun.id, **ON)
    assert again.usage.input_tokens > found.usage.input_tokens


def test_it_goes_on_when_its_client_leaves_and_can_be_followed_again(client, slow_url):
    ask = LONG | {"max_output_tokens": 40, "ignore_eos": True, "background": True, "stream": True}
    with httpx.stream("POST", f"{slow_url}/v1/responses", json=ask) as stream:
        lines = stream.iter_lines()
        first = parsed([next(lines) for _ in range(3 * 6)])
    response = first[0].response.id
    url = f"{slow_url}/v1/responses/{response}?stream=true"
    with httpx.stream("GET", f"{url}&starting_after=3", timeout=60) as stream:
        rest = parsed(list(stream.iter_lines()), first=4)
    assert rest[-1].type == "response.incomplete"
    assert [(each["type"], each["text"]) for each in rebuilt(first[:4] + rest)] == said(rest[-1].response)
    assert client.responses.retrieve(response).output_text == rest[-1].response.output_text
    again = httpx.get(url)
    assert again.status_code == 400
    assert "only a response in the background" in again.json()["error"]["message"]


def test_a_response_in_the_background_is_cancelled(client):
    begun = client.responses.create(**LONG, background=True, **ON)
    while not client.responses.retrieve(begun.id).output:
        time.sleep(0.01)
    assert client.responses.cancel(begun.id).status == "cancelled"
    while (kept := client.responses.retrieve(begun.id)).output[-1].status == "in_progress":
        time.sleep(0.01)
    assert (kept.status, kept.output[-1].status) == ("cancelled", "incomplete")
    assert client.responses.cancel(begun.id) == client.responses.retrieve(begun.id)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_stream_ends_when_it_is_cancelled(client, slow_url, background, how):
    with client.responses.create(**LONG, stream=True, background=background, **ON) as stream:
        found = [next(stream) for _ in range(6)]
        response = found[0].response.id
        assert client.responses.retrieve(response).output_text
        getattr(client.responses, how)(response)
        found += list(stream)
    last = found[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "cancelled")
    assert 0 < len(last.response.output_text) < 200
    assert [(each["type"], each["text"]) for each in rebuilt(found)] == said(last.response)
    if how == "cancel":
        assert client.responses.retrieve(response).status == "cancelled"
    else:
        assert httpx.get(f"{slow_url}/v1/responses/{response}").status_code == 404


def test_a_stream_whose_client_leaves_is_not_stored(client, slow_url):
    with client.responses.create(**LONG, stream=True, **ON) as stream:
        response = next(stream).response.id
        next(stream)
    until = time.monotonic() + 20
    while httpx.get(f"{slow_url}/v1/responses/{response}").status_code != 404:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_an_event_and_is_stored(served_llm, break_passes, stream):
    with serving(served_llm) as (base, _):
        break_passes()
        ask = {"model": "tiny", "input": "x"}
        whole = httpx.post(f"{base}/v1/responses", json=ask)
        assert (whole.status_code, whole.json()["error"]["type"]) == (503, "server_error")
        if stream:
            found = events(base, ask)
            assert [event.type for event in found[-2:]] == ["error", "response.failed"]
            failed = found[-1].response
            assert found[-2].message == failed.error.message
        else:
            client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
            failed = finished(client, client.responses.create(**ask, background=True).id)
        assert (failed.status, failed.error.code) == ("failed", "server_error")
        assert "out of luck" in failed.error.message
        assert httpx.get(f"{base}/v1/responses/{failed.id}").json()["status"] == "failed"


def test_the_queue_is_full_for_the_background_too(slow):
    with serving(slow, running=1, waiting=0) as (base, _):
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
        begun = client.responses.create(**LONG, background=True, **ON)
        with pytest.raises(openai.RateLimitError):
            client.responses.create(**LONG, background=True, **ON)
        client.responses.cancel(begun.id)
        finished(client, begun.id)


def test_a_server_that_stops_finishes_and_stores_what_is_in_the_background(slow, tmp_path):
    with serving(slow, store=ResponseStore(tmp_path)) as (base, _):
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
        begun = client.responses.create(**LONG | {"max_output_tokens": 30}, background=True, **ON)
    with serving(slow, store=ResponseStore(tmp_path)) as (base, _):
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
        found = client.responses.retrieve(begun.id)
        assert (found.status, found.usage.output_tokens) == ("incomplete", 30)
        again = client.responses.create(**LONG | {"max_output_tokens": 2}, previous_response_id=begun.id)
        assert again.usage.input_tokens > found.usage.input_tokens


def test_many_follow_one_response(client, slow_url):
    begun = client.responses.create(**LONG, background=True, **ON)
    with httpx.Client(timeout=60) as http, contextlib.ExitStack() as stack:
        url = f"{slow_url}/v1/responses/{begun.id}?stream=1"
        streams = [stack.enter_context(http.stream("GET", url)) for _ in range(4)]
        client.responses.cancel(begun.id)
        read = [parsed(list(stream.iter_lines())) for stream in streams]
    assert all(found == read[0] for found in read)
    assert (read[0][0].type, read[0][-1].type) == ("response.created", "response.incomplete")
