"""A batch: every request answered once, as the server answers it, whatever happens to the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import httpx
import pytest
from command_line import call  # noqa: F401
from server.served_checkpoint import save_served
from serving import serving

from outrider import LLM
from outrider.errors import UsageError
from outrider.server.batch.answers import Answers
from outrider.server.batch.requests import model_of, read_requests
from outrider.server.batch.run import answer_all, answer_all_at


def line(custom_id, url="/v1/completions", **body):
    body.setdefault("prompt", f"ab {custom_id} cd") if url == "/v1/completions" else None
    body = {"model": "tiny", "max_tokens": 12, "seed": 5, **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


CHAT = [{"role": "user", "content": "abcd"}]
LINES = [
    *(line(f"text-{i}", temperature=i % 2, max_tokens=4 + i) for i in range(20)),
    line("chat", "/v1/chat/completions", messages=CHAT),
    line("two", "/v1/chat/completions", messages=CHAT, n=2),
    line("responses", "/v1/responses", input="abcd", max_tokens=None, max_output_tokens=9),
    line("messages", "/v1/messages", messages=CHAT),
    line("refused", temperature=-1),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(LINES) + "\n")
    return path


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return save_served(tmp_path_factory.mktemp("batch"))


@pytest.fixture(scope="module")
def llm(target):
    model, drafter = target
    with LLM(model, drafter=drafter, context=256, threads=1, prefix_cache_bytes=4 << 20) as made:
        yield made


def answered(path):
    found = [json.loads(each) for each in path.read_text().splitlines()]
    assert max(Counter(each["custom_id"] for each in found).values()) == 1
    return {each["custom_id"]: each["response"] for each in found}


def texts(body):
    """What was generated; ids and times differ."""
    return json.dumps([body.get(name) for name in ("choices", "content", "error")]) + json.dumps(
        [item["content"] for item in body.get("output") or ()]
    ).replace("msg_", "")


def test_answers_are_those_of_the_server(llm, file, tmp_path):
    requests, out = read_requests(file), tmp_path / "out.jsonl"
    with Answers(out, requests) as answers:
        counts = answer_all(llm, "tiny", answers, running=8)
    assert (counts.answered, counts.refused, counts.failed) == (len(LINES), 1, 0)
    found = answered(out)
    used = [response["body"]["usage"] for name, response in found.items() if name != "refused"]
    assert counts.completion_tokens == sum(u.get("completion_tokens", 0) + u.get("output_tokens", 0) for u in used)
    with serving(llm, running=2) as (url, _):
        for request in requests:
            plain = {**request.body, "model": "tiny", "drafting": "off"}
            expected = httpx.post(f"{url}{request.url}", json=plain, timeout=60)
            assert expected.status_code == found[request.custom_id]["status_code"]
            assert texts(expected.json()) == texts(found[request.custom_id]["body"]), request.custom_id


@pytest.mark.slow
def test_it_resumes_after_a_kill(target, file, tmp_path):
    out, code = tmp_path / "out.jsonl", "from outrider.cli import main; main()"
    many = [line(f"long-{i}", max_tokens=30, ignore_eos=True) for i in range(100)]
    file.write_text("\n".join(many))
    command = [sys.executable, "-c", code, "batch", str(file), "--out", str(out), "--model", str(target[0]), "--json"]
    options = ["--running", "2", "--threads", "1", "--context", "256"]
    killed = subprocess.Popen(command + options, stderr=subprocess.DEVNULL)
    while not (out.exists() and out.stat().st_size):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = out.read_bytes()
    done = before.count(b"\n")
    assert 0 < done < len(many)
    out.write_bytes(before + before[:40])  # and a line that it was about to write
    options[1] = "32"
    resumed = subprocess.run(command + options, capture_output=True, text=True, check=True, env=os.environ)
    assert json.loads(resumed.stdout)["answered"] == len(many) - done
    assert f"{done} of {len(many)} answers are in" in resumed.stderr
    assert out.read_bytes().startswith(before)
    assert answered(out).keys() == {f"long-{i}" for i in range(100)}
    command.remove("--json")
    again = subprocess.run(command + options, capture_output=True, text=True, check=True, env=os.environ)
    assert again.stdout == "nothing is left to answer\n"
    with Answers(out, read_requests(file)) as answers:
        assert not answers.left


def test_what_failed_is_left_for_another_run(llm, file, tmp_path, monkeypatch):
    requests, out = read_requests(file), tmp_path / "out.jsonl"
    step, broken = llm.parts.engine.step, iter([False] * 8 + [True])

    def fails_once():
        if llm.parts.engine._running and next(broken, False):
            raise RuntimeError("out of luck")
        step()

    monkeypatch.setattr(llm.parts.engine, "step", fails_once)
    with Answers(out, requests) as answers:
        counts = answer_all(llm, "tiny", answers, running=4)
    assert 1 <= counts.failed <= 4
    assert "out of luck" in counts.problem
    assert len(answered(out)) == counts.answered == len(LINES) - counts.failed
    with Answers(out, requests) as answers:
        assert len(answers.left) == counts.failed
        answer_all(llm, "tiny", answers, running=4)
    assert len(answered(out)) == len(LINES)


def test_a_server_answers_and_one_that_is_full_is_asked_again(llm, file, tmp_path):
    """It runs one request and lets one more wait: others are refused until there is room."""
    requests, here, there = read_requests(file), tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    with Answers(here, requests) as answers:
        expected = answer_all(llm, "tiny", answers, running=8)
    with serving(llm, running=1, waiting=1) as (url, _), Answers(there, requests) as answers:
        counts = answer_all_at(f"{url}/v1", answers, model=None, key=None, running=8)
    assert counts == expected
    one, other = answered(here), answered(there)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name]["status_code"] == other[name]["status_code"]
        assert texts(one[name]["body"]) == texts(other[name]["body"]), name
    assert all(response["request_id"] for response in other.values())


def test_what_no_server_answers_is_left(call, file, tmp_path):  # noqa: F811
    out = tmp_path / "out.jsonl"
    ran = call("batch", str(file), "--out", str(out), "--url", "http://127.0.0.1:9/v1")
    assert ran.code == 1
    assert f"{len(LINES)} failed" in ran.err
    assert "http://127.0.0.1:9 gives no answer" in " ".join(ran.err.split())
    with Answers(out, read_requests(file)) as answers:
        assert len(answers.left) == len(LINES)


def test_a_wrong_key_is_no_answer(llm, file, tmp_path):
    """Else the same command with the right key would find all requests answered."""
    requests, out = read_requests(file), tmp_path / "out.jsonl"
    with serving(llm, keys=["right"]) as (url, _):
        with Answers(out, requests) as answers:
            counts = answer_all_at(url, answers, model=None, key="wrong", running=8)
        assert (counts.answered, counts.failed) == (0, len(LINES))
        assert "key" in counts.problem
        with Answers(out, requests) as answers:
            counts = answer_all_at(url, answers, model=None, key="right", running=8)
    assert (counts.answered, counts.failed) == (len(LINES), 0)


def test_a_server_has_its_own_model(call, file, tmp_path):  # noqa: F811
    ran = call(
        "batch", str(file), "--out", str(tmp_path / "out"), "--url", "http://127.0.0.1:9", "--kv-cache-dtype", "int8"
    )
    assert ran.code == 2
    assert "--kv-cache-dtype is the server's: leave it out, or --url" in ran.err


def test_only_one_process_writes_and_a_foreign_file_is_kept(file, tmp_path):
    requests, out = read_requests(file), tmp_path / "out.jsonl"
    with Answers(out, requests), pytest.raises(UsageError, match=r"another process writes to .*choose another --out"):
        Answers(out, requests).__enter__()
    for kept in ("notes", "notes\n", '{"id": "batch_req_of_another_file"}\n', "[1]\n"):
        out.write_text(kept)
        with pytest.raises(UsageError, match="line 1 is no answer to a request of this file"):
            Answers(out, requests).__enter__()
        assert out.read_text() == kept
    assert not list(tmp_path.glob("*.lock"))


def test_a_changed_request_is_not_answered_by_the_old_answer(llm, file, tmp_path):
    out = tmp_path / "out.jsonl"
    with Answers(out, read_requests(file)) as answers:
        answer_all(llm, "tiny", answers, running=8)
    file.write_text(file.read_text().replace("ab text-3 cd", "ab another cd"))
    with pytest.raises(UsageError, match="is no answer to a request of this file"):
        Answers(out, read_requests(file)).__enter__()


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("{", r"line 2: not JSON \(.*\): a line is"),
        ("[1]", r"line 2: not an object but \[1\] \(list\)"),
        (line(""), "line 2: custom_id has to be a text, not ''"),
        (line("text-0"), "line 2: custom_id 'text-0' .* stands in an earlier line: each needs its own"),
        (line("x", "/v1/embeddings"), "line 2: url has to be /v1/chat/completions, .* or /v1/messages, not"),
        (line("x").replace("POST", "GET"), "line 2: method has to be POST, not 'GET'"),
        (line("x", stream=True), "line 2: stream is not possible in a batch: leave it out"),
        (line("x", model=3), r"line 2: model has to be a text, not 3 \(int\)"),
        ('{"custom_id": "x", "url": "/v1/completions"}', "line 2: body has to be an object, not None"),
    ],
)
def test_a_bad_line_is_named_before_work_starts(call, tmp_path, bad, problem):  # noqa: F811
    (tmp_path / "requests.jsonl").write_text(f"{LINES[0]}\n{bad}\n")
    ran = call("batch", str(tmp_path / "requests.jsonl"), "--out", str(tmp_path / "out.jsonl"))
    assert ran.code == 2
    with pytest.raises(UsageError, match=problem):
        read_requests(tmp_path / "requests.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_model_is_the_one_that_requests_name(file):
    requests = read_requests(file)
    assert model_of(file, requests, ()) == "tiny"
    with pytest.raises(UsageError, match="no request names a model: choose one for all with --model"):
        model_of(file, requests, ["tiny"])
    file.write_text(line("a") + "\n" + line("b", model="other"))
    with pytest.raises(UsageError, match=r"the requests name 2 models \(other, tiny\): choose one"):
        model_of(file, read_requests(file), ())
