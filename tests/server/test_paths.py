"""Every path and method gets an answer that helps."""

from __future__ import annotations

import httpx
import pytest

PLAIN = ["/v1/models", "/v1/models/tiny", "/health", "/metrics", "/openapi.json", "/"]


@pytest.mark.parametrize("path", PLAIN)
def test_head_is_get_without_a_body(url, path):
    got, head = httpx.get(f"{url}{path}"), httpx.head(f"{url}{path}")
    assert (got.status_code, head.status_code) == (200, 200)
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]
    if path != "/metrics":  # its length changes
        assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize("path", PLAIN)
def test_a_slash_at_the_end_changes_nothing(url, path):
    found = httpx.get(f"{url}{path}/")
    assert found.status_code == 200
    assert found.headers["content-type"] == httpx.get(f"{url}{path}").headers["content-type"]
    assert httpx.post(f"{url}/v1/completions/", json={"prompt": "x", "max_tokens": 1}).status_code == 200


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/embeddings", "no embedding model is served"),
        ("/v1/images/generations", "no image model is served"),
        ("/v1/nothing", "there is no route /v1/nothing"),
        ("/chat/completions", "there is no route /chat/completions"),
        ("/v1/v1/chat/completions", "there is no route"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_404_names_the_routes_there_are(url, path, says, method):
    found = httpx.request(method, f"{url}{path}", json={})
    assert found.status_code == 404
    error = found.json()["error"]
    assert says in error["message"]
    assert "POST /v1/chat/completions" in error["message"]
    assert "GET /v1/models" in error["message"]
    assert error["code"] == "unknown_url"


def test_another_method_is_explained(url):
    found = httpx.get(f"{url}/v1/completions")
    assert found.status_code == 405
    assert "/v1/completions does not take GET" in found.json()["error"]["message"]
    assert "POST /v1/completions" in found.json()["error"]["message"]


def test_tokenize_and_back(json_url):
    found = httpx.post(f"{json_url}/tokenize", json={"prompt": "ab", "return_token_strs": True, "model": "tiny"}).json()
    assert found == {
        "count": 3,
        "max_model_len": 512,
        "tokens": [2, 3 + ord("a"), 3 + ord("b")],
        "token_strs": ["<bos>", "a", "b"],
    }
    bare = httpx.post(f"{json_url}/tokenize", json={"prompt": "ab", "add_special_tokens": False}).json()
    assert bare["tokens"] == found["tokens"][1:]
    back = httpx.post(f"{json_url}/detokenize", json={"tokens": found["tokens"]}).json()
    assert back == {"prompt": "<bos>ab"}


def test_tokenize_counts_what_chat_counts(json_url):
    messages = [{"role": "user", "content": "ab"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = {"messages": messages, "tools": tools}
    count = httpx.post(f"{json_url}/tokenize", json=asked).json()["count"]
    answered = httpx.post(f"{json_url}/v1/chat/completions", json={**asked, "max_tokens": 1}).json()
    assert answered["usage"]["prompt_tokens"] == count


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x" * 100_000}, "prompt"),
        ("/detokenize", {"tokens": [10**9]}, "tokens"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_errors_of_both(json_url, path, body, param):
    found = httpx.post(f"{json_url}{path}", json=body)
    assert found.status_code == 400
    assert found.json()["error"]["param"] == param


def test_tools_that_cannot_be_are_an_error_of_tokenizing_too(json_url):
    tool = {"type": "function", "function": {"name": "f"}}
    for tools, says in (([tool] * 2, "two functions called f"), ([tool] * 129, "at most 128")):
        asked = {"messages": [{"role": "user", "content": "ab"}], "tools": tools}
        found = httpx.post(f"{json_url}/tokenize", json=asked)
        assert (found.status_code, says in found.json()["error"]["message"]) == (400, True)
