"""A chat template that cannot be compiled keeps nobody from completing text: neither the server nor `run`."""

from __future__ import annotations

import json

import httpx
import pytest
from command_line import call  # noqa: F401 (a fixture)
from server.served_checkpoint import save_served
from serving import serving

from outrider import LLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target, _ = save_served(tmp_path_factory.mktemp("broken"))
    config = {"bos_token": "<bos>", "chat_template": "{% for message in %}"}
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    return target


def test_the_server_completes_and_says_why_it_does_not_chat(folder):
    with serving(LLM(folder, drafter=None, threads=2, context=128)) as (url, _):
        (model,) = httpx.get(f"{url}/v1/models").json()["data"]
        assert model["outrider"]["chat"] is False
        completed = httpx.post(f"{url}/v1/completions", json={"model": "tiny", "prompt": "ab", "max_tokens": 3})
        assert completed.status_code == 200
        assert completed.json()["usage"]["completion_tokens"] == 3
        messages = [{"role": "user", "content": "ab"}]
        refused = httpx.post(f"{url}/v1/chat/completions", json={"model": "tiny", "messages": messages})
        assert refused.status_code == 400
        assert "its chat template cannot be read" in refused.json()["error"]["message"]


def test_run_completes(folder, call):  # noqa: F811
    ran = call("run", str(folder), "ab", "--max-tokens", "3", "--json", "--drafter", "off")
    assert ran.code == 0
    assert json.loads(ran.out)["completion_tokens"] == 3
    assert "Only completions work: its chat template cannot be read" in ran.err
