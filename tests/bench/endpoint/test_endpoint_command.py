"""`outrider bench endpoint` against a server that behaves well or badly."""

from __future__ import annotations

import json
import socket
import sys

import pytest
from fake_endpoint import WORDS, fake_endpoint

ALWAYS = ("--clients", "1,3", "--requests", "6", "--max-tokens", "9")


@pytest.fixture
def measure(call, server):
    """Runs the command, with whatever is added to it."""

    def run(*arguments, url=None):
        return call("bench", "endpoint", url or server.address, *ALWAYS, *arguments)

    return run


def found(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_one_server(measure, server):
    server.delay = 0.002
    result = found(measure("--json"))
    assert [level["clients"] for level in result["levels"]] == [1, 3]
    assert result["arms"][0]["model"] == "fake"
    assert (result["max_tokens"], result["temperature"]) == (9, 0.0)
    for level in result["levels"]:
        figures = level["arms"]["A"]
        assert (figures["answered"], figures["failures"]) == (6, {})
        assert figures["output_tokens"] == 6 * (len(WORDS) + 1)
        assert figures["tokens_per_second"] == pytest.approx(figures["output_tokens"] / figures["seconds"])
        assert figures["tokens_counted_by"] == "usage"
        assert figures["time_to_first_token_seconds"]["median"] >= 0.002
        assert figures["time_per_output_token_seconds"]["p95"] >= 0.001
        assert figures["drafting"] is None
    assert server.most_at_once == 3
    prompts = [body["prompt"] for body in server.bodies]
    assert len(set(prompts)) == len(prompts) == 1 + 6 + 6  # no prompt twice: no prefix cache helps
    assert {body["max_tokens"] for body in server.bodies} == {9}


def test_the_address_and_the_model_are_reported(measure, server):
    assert f"A: {server.address}/v1/completions, model fake" in measure("--json").err


def test_the_table(measure, server):
    server.behaviour, server.misbehaving = "refuse", range(3, 5)
    ran = measure()
    assert ran.code == 0, ran.err
    assert f"A: fake at {server.address}/v1/completions" in ran.out
    assert "2 HTTP 429" in ran.out
    assert "tok/s" in ran.out


def test_two_arms_of_one_server_take_turns_and_get_the_same_prompts(measure, server):
    result = found(measure("--json", "--extra", '{"drafting": "auto"}', "--extra2", '{"drafting": "off"}'))
    arms = [(body["drafting"], body["prompt"]) for body in server.bodies]
    assert arms[0][1] != arms[1][1]  # the uncounted ones
    turns = [arms[2 + start : 5 + start] for start in (0, 3, 6, 9)]
    assert [{kind for kind, _ in turn} for turn in turns] == [{"auto"}, {"off"}, {"off"}, {"auto"}]
    prompts = [[prompt for _, prompt in turn] for turn in turns]
    assert (prompts[0], prompts[3]) == (prompts[1], prompts[2])
    level = result["levels"][0]
    assert level["texts"] == {"compared": 6, "equal": 6, "first_difference": None}
    throughput = [level["arms"][name]["tokens_per_second"] for name in "AB"]
    assert level["ratios"]["tokens_per_second"] == pytest.approx(throughput[1] / throughput[0])
    assert [arm["extra"] for arm in result["arms"]] == [{"drafting": "auto"}, {"drafting": "off"}]


def test_two_servers_each_with_its_own_model_and_a_text_that_differs(measure):
    with fake_endpoint() as other:
        other.models = ["another"]
        other.words = [*WORDS[:-1], "?"]
        arguments = [other.address, "--chat"]
        result = found(measure(*arguments, "--json"))
        assert [arm["model"] for arm in result["arms"]] == ["fake", "another"]
        texts = result["levels"][1]["texts"]
        assert (texts["compared"], texts["equal"]) == (6, 0)
        difference = texts["first_difference"]
        assert (difference["number"], difference["position"]) == (0, len("".join(WORDS)) - 1)
        assert (difference["first"][-1], difference["second"][-1]) == ("!", "?")
        ran = measure(*arguments)
        assert "equal texts: 0 of 12" in ran.out
        assert "first difference" in ran.out
        assert "B/A" in ran.out


def test_what_two_arms_of_one_server_share_is_said(measure):
    assert "both arms use one server" in measure("--extra2", "{}").out
    assert found(measure("--extra2", "{}", "--json"))["shared_server"] is True
    assert found(measure("--json"))["shared_server"] is False
    assert "both arms use one server" not in measure().out
    with fake_endpoint() as other:
        assert "both arms use one server" not in measure(other.address).out


def test_sampled_texts_are_not_compared(measure):
    result = found(measure("--json", "--temperature", "0.7", "--extra2", "{}"))
    assert result["levels"][0]["texts"] is None
    assert "texts not compared" in measure("--temperature", "0.7", "--extra2", "{}").out
    cooled = found(measure("--json", "--temperature", "0.7", "--extra", '{"temperature": 0}', "--extra2", "{}"))
    assert cooled["levels"][0]["texts"] is None


def test_tokens_that_no_server_counts_are_said_to_be_chunks(measure, server):
    server.behaviour = "no usage"
    assert found(measure("--json"))["levels"][0]["arms"]["A"]["tokens_counted_by"] == "chunks"
    assert "these are chunks" in measure().out


def test_a_server_without_stream_options_is_measured_without_them(measure, server):
    server.behaviour = "no stream options"
    assert "stream_options" in measure("--json").err
    figures = found(measure("--json", "--extra", '{"stream_options": null}'))["levels"][0]["arms"]["A"]
    assert (figures["answered"], figures["tokens_counted_by"]) == (6, "chunks")


def test_draft_counters_are_read_around_every_level(measure, server):
    def text(drafts, drafted, accepted):
        names = {"drafts": drafts, "draft_tokens": drafted, "accepted_tokens": accepted}
        return "".join(f"vllm:spec_decode_num_{name}_total {value}\n" for name, value in names.items())

    server.metrics = [text(1, 1, 1), text(5, 9, 3), text(5, 9, 3), text(15, 39, 18)]
    levels = found(measure("--json"))["levels"]
    drafting = [level["arms"]["A"]["drafting"] for level in levels]
    assert [of["acceptance_rate"] for of in drafting] == [0.25, 0.5]
    assert [of["tokens_per_pass"] for of in drafting] == [1.5, 2.5]
    assert drafting[0]["source"] == "vLLM"


def test_without_metrics_the_counters_of_the_answers_are_added_up(measure, server):
    server.timings = {"predicted_n": 10, "draft_n": 8, "draft_n_accepted": 5}
    drafting = found(measure("--json"))["levels"][0]["arms"]["A"]["drafting"]
    assert (drafting["source"], drafting["drafted"], drafting["acceptance_rate"]) == ("llama.cpp", 48, 0.625)
    assert drafting["tokens_per_pass"] == 2.25


@pytest.mark.parametrize(
    ("behaviour", "kind"), [("cut", "cut off"), ("torn", "connection"), ("refuse", "HTTP 429"), ("fail", "HTTP 500")]
)
def test_if_all_fail_the_exit_code_is_1(measure, server, behaviour, kind):
    server.behaviour = behaviour
    ran = measure("--json")
    assert ran.code == 1
    assert "no request was answered by A" in ran.err
    assert "did not answer" in ran.err
    for level in json.loads(ran.out)["levels"]:
        figures = level["arms"]["A"]
        assert (figures["answered"], figures["failures"]) == (0, {kind: 6})
        assert (figures["tokens_per_second"], figures["time_to_first_token_seconds"]["median"]) == (0, None)


def test_if_some_fail_the_others_count(measure, server):
    server.behaviour, server.misbehaving = "cut", range(2, 4)
    figures = found(measure("--json"))["levels"][0]["arms"]["A"]
    assert (figures["answered"], figures["failures"]) == (4, {"cut off": 2})
    assert figures["output_tokens"] == 4 * (len(WORDS) + 1)


def test_nothing_listens(measure):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ran = measure(url=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    assert ran.code == 2
    assert "no HTTP server answers at" in ran.err


def test_what_is_no_openai_server(measure, server):
    server.behaviour = "html"
    ran = measure()
    assert ran.code == 2
    assert "lists no models" in ran.err
    ran = measure("--model", "fake", url=f"{server.address}/elsewhere")
    assert ran.code == 2
    assert "did not answer (HTTP 404" in ran.err


def test_an_unknown_model(measure):
    ran = measure("--model", "gpt-9")
    assert ran.code == 2
    assert "gpt-9" in ran.err
    assert "it lists the models fake, other" in ran.err


def test_the_key(measure, server, monkeypatch):
    server.key = "secret"
    ran = measure()
    assert ran.code == 2
    assert "requires an API key (401)" in ran.err
    ran = measure("--api-key", "guess")
    assert ran.code == 2
    assert "requires an API key (401)" in ran.err
    assert "guess" not in ran.err
    assert measure("--api-key", "secret").code == 0
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert measure().code == 0
    assert "cannot carry" in measure("--api-key", "sécret").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--extra", "{"], "--extra { is not a JSON object"),
        (["--extra2", "[1]"], "--extra2 [1] is not a JSON object"),
        (["--extra", '{"stream": false}'], "--extra sets stream"),
        (["--extra", '{"model": 5}'], "--extra sets model"),
        (["--clients", "1,two"], "--clients 1,two"),
        (["--clients", "0"], "--clients 0"),
        (["--clients", "99999"], "from 1 to 1024"),
        (["localhost:8000"], "localhost:8000 is not the URL of a server"),
        (["http://[::1"], "is not the URL of a server"),
        (["http://h:99999"], "is not the URL of a server"),
        (["http://"], "is not the URL of a server"),
    ],
)
def test_arguments_that_cannot_work(measure, arguments, message):
    ran = measure(*arguments)
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_without_the_extra_it_is_named(measure, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    ran = measure()
    assert ran.code == 2
    assert "pip install 'outrider[endpoint]'" in ran.err
