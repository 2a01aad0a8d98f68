"""The server behind Ray Serve is the server, and more than one of it."""

from __future__ import annotations

import re
import signal
import threading
import time

import httpx
import openai
import psutil
import pytest
from on_ray.conftest import SECONDS, started, wait_until

pytestmark = pytest.mark.replicas
LONG = 600
"""Tokens of an answer that others come and go beside."""


def prompt(number):
    """Some 300 tokens, so that a cached beginning shows."""
    return f"Report {number}. " + "The harbour was quiet, and the ships lay in the morning fog. " * 20


class Stream:
    """An answer that is read in a thread; `begun` once its first text has come."""

    def __init__(self, client, asked, tokens, seed=1):
        options = {"max_tokens": tokens, "temperature": 1.0, "seed": seed, "extra_body": {"ignore_eos": True}}
        usage = {"include_usage": True}
        self._events = client.completions.create(
            model="demo", prompt=asked, stream=True, stream_options=usage, **options
        )
        self.text, self.error, self.usage = "", None, None
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self.begun.wait(SECONDS)

    def _read(self):
        try:
            for event in self._events:
                self.text += "".join(choice.text for choice in event.choices)
                self.usage = event.usage or self.usage
                self.begun.set()
        except (openai.APIError, httpx.HTTPError) as error:
            self.error = error
        finally:
            self.begun.set()

    def leave(self):
        self._events.response.close()
        self._thread.join(SECONDS)

    def end(self):
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the stream hangs"
        return self

    @property
    def cached(self):
        return self.usage.prompt_tokens_details.cached_tokens


def on_both(client, asked, tokens):
    """One request, answered by both replicas at once: each takes one request at a time."""
    streams = [Stream(client, asked, tokens), Stream(client, asked, tokens)]
    return [stream.end() for stream in streams]


def metrics(url):
    """Of each replica: a client chooses one by a key."""
    asked = [httpx.get(f"{url}/metrics", headers={"X-Session-Id": str(key)}, timeout=SECONDS) for key in range(16)]
    return {re.search(r"^outrider_prompt_tokens_created (\S+)", a.text, re.M)[1]: a.text for a in asked}.values()


def aborted(url):
    """Requests that ended before their last token."""
    found = metrics(url)
    assert len(found) == 2
    count = re.compile(r'^outrider_request_success_total\{finished_reason="abort"\} (\S+)', re.M)
    return sum(float(number) for text in found for number in count.findall(text))


def running(url):
    return [httpx.get(f"{url}/health", headers={"X-Session-Id": str(key)}).json()["running"] for key in range(16)]


def test_one_request_has_the_same_tokens_on_every_replica(client):
    one, other = on_both(client, prompt(0), 96)
    assert one.cached == other.cached == 0, "one replica computed the prompt, and the other did not"
    assert one.error is other.error is None
    assert one.text == other.text
    whole = client.completions.create(
        model="demo", prompt=prompt(0), max_tokens=96, temperature=1.0, seed=1, extra_body={"ignore_eos": True}
    )
    assert whole.usage.prompt_tokens_details.cached_tokens > 0
    assert whole.choices[0].text == one.text


def test_prompts_come_back_to_the_replicas_that_have_computed_them(client):
    came_back = 0
    for number in range(1, 9):
        asked = prompt(number)
        first = client.completions.create(model="demo", prompt=asked, max_tokens=1)
        assert first.usage.prompt_tokens_details.cached_tokens < 128
        time.sleep(0.5)  # the router sees a little later that the replica is free
        again = client.completions.create(model="demo", prompt=asked + "Then", max_tokens=1)
        came_back += again.usage.prompt_tokens_details.cached_tokens >= 128
    assert came_back >= 7, "by chance half of them would"


def test_errors_are_those_of_the_server(client, url):
    with pytest.raises(openai.NotFoundError, match="there is no model other: this is demo"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError, match="temperature") as wrong:
        client.completions.create(model="demo", prompt="x", temperature=-1)
    assert wrong.value.type == "invalid_request_error"
    assert len(wrong.value.response.headers.get_list("x-request-id")) == 1
    assert (
        httpx.post(f"{url}/v1/completions", content=b"{", headers={"content-type": "application/json"}).status_code
        == 400
    )
    large = httpx.post(f"{url}/v1/completions", content=b" " * (9 << 20), headers={"content-type": "application/json"})
    assert large.status_code == 413


def test_a_request_ends_when_its_client_leaves(client, url):
    before = aborted(url)
    for stream in [Stream(client, prompt(20), LONG), Stream(client, prompt(20), LONG)]:
        stream.leave()
    wait_until(lambda: not any(running(url)))
    assert aborted(url) == before + 2


def test_a_replica_that_is_killed_ends_its_streams_with_an_error_and_returns(client, url, replicas):
    killed = replicas.models()[0]
    streams = [Stream(client, prompt(30), LONG), Stream(client, prompt(30), LONG)]
    killed.kill()
    failures = 0
    for _ in range(4):  # by the other one
        try:
            assert client.completions.create(model="demo", prompt="Once", max_tokens=2).usage.completion_tokens == 2
        except openai.APIError:
            failures += 1
    ended = [stream for stream in streams if stream.end().error is not None]
    (whole,) = [stream for stream in streams if stream.error is None]
    assert failures == 0
    assert len(ended) == 1
    assert "the replica that answered has ended: send the request again" in str(ended[0].error)
    assert whole.text.startswith(ended[0].text)
    assert whole.usage.completion_tokens == LONG
    wait_until(lambda: len(metrics(url)) == 2)
    assert killed.pid not in {model.pid for model in replicas.models()}


def test_a_signal_lets_running_requests_finish(client, replicas):
    """The last test: nothing answers after it."""
    stream = Stream(client, prompt(40), LONG)
    assert replicas.stop() == 0
    assert stream.end().error is None
    assert stream.usage.completion_tokens == LONG


@pytest.mark.full
def test_a_second_signal_ends_all_at_once():
    replicas = started(attempts=3)
    processes = psutil.Process(replicas.process.pid).children(recursive=True)
    client = openai.OpenAI(base_url=f"{replicas.url()}/v1", api_key="none", max_retries=0, timeout=SECONDS)
    stream = Stream(client, prompt(50), 1500)
    replicas.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert replicas.process.poll() is None, "it waits for the stream"
    replicas.process.send_signal(signal.SIGTERM)
    status = replicas.process.wait(SECONDS)
    _, left = psutil.wait_procs(processes, timeout=30)
    for process in left:
        process.kill()
    replicas.stop()
    assert stream.end().error is not None
    assert status == 1
    assert not left
