"""Small requests, and their answers or errors."""

from __future__ import annotations

import httpx

CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
TEXT = {"prompt": "Once", "max_tokens": 2}
ROUTES = [("/v1/completions", TEXT), ("/v1/chat/completions", CHAT)]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def post(url, path, body, status=200):
    found = httpx.post(f"{url}{path}", json=body, timeout=60)
    assert found.status_code == status, found.text
    return found.json()


def error(url, path, body, status=400):
    return post(url, path, body, status)["error"]
