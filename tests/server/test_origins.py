"""Web pages neither spend a loopback server's machine nor read its answers."""

from __future__ import annotations

import httpx
import pytest
from serving import one_model, serving

from outrider.server.app import create_app
from outrider.server.origins import is_loopback

GETS = ["/", "/page/page.js", "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/models/tiny"]
FOREIGN_HOSTS = [
    "evil.example@127.0.0.1",
    "localhost:80:evil.example",
    "[::1]evil.example",
    "localhost#.evil.example",
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "0.0.0.0",
    "192.168.1.7:8000",
    "[fe80::1]:8000",
    "notlocalhost",
    "",
    "[",
    "127.0.0.1@evil.example",
]
OWN_HOSTS = ["localhost", "LOCALHOST:1", "localhost.", "a.b.localhost:80", "127.0.0.1", "127.1.2.3:99", "[::1]:8000"]
FOREIGN_ORIGINS = [
    "null",
    "NULL",
    "",
    "http://evil.example",
    "https://evil.example:8000",
    "HTTPS://evil.example",
    "http://localhost.evil.example",
    "http://192.168.1.7",
    "blob:https://evil.example",
    "http://",
    "localhost",
]
OWN_ORIGINS = [
    "http://localhost:3000",
    "http://127.0.0.1:8000",
    "https://app.localhost",
    "http://[::1]",
    "vscode-webview://1a2b",
    "tauri://localhost",
    "chrome-extension://abcdef",
    "file://",
]


def asked(base, path, **headers):
    if path in GETS:
        return httpx.get(base + path, headers=headers)
    body = {"prompt": "x", "max_tokens": 1} if path == "/v1/completions" else CHAT
    return httpx.post(base + path, json=body, headers=headers)


CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
ROUTES = [*GETS, "/v1/completions", "/v1/chat/completions"]


@pytest.mark.parametrize("path", [*ROUTES, "/nothing"])
@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}])
def test_every_route_refuses_a_foreign_name_and_a_foreign_page(url, path, headers):
    found = asked(url, path, **headers) if path in ROUTES else httpx.get(url + path, headers=headers)
    assert found.status_code == 403
    error = found.json()["error"]
    assert "evil.example" in error["message"]
    assert "start the server with --api-key" in error["message"]
    assert error["type"] == "permission_error"


def described(base, *, bodies=False):
    """Every method of every route, or of those that take a body."""
    paths = httpx.get(f"{base}/openapi.json").json()["paths"].items()
    found = [(method, path, about) for path, methods in paths for method, about in methods.items()]
    return [(method, path.strip("{}")) for method, path, about in found if not bodies or "requestBody" in about]


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}])
def test_so_does_every_route_that_is_described(url, headers):
    routes = described(url)
    assert {("post", "/v1/messages"), ("post", "/v1/responses"), ("post", "/tokenize")} <= set(routes)
    for method, path in routes:
        for kind in ("application/json", "text/plain"):
            sent = headers | {"content-type": kind}
            found = httpx.request(method, f"{url}{path}", content=b"{}", headers=sent)
            assert found.status_code == 403, (method, path)


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_foreign_hosts(url, host):
    found = httpx.get(f"{url}/v1/models", headers={"host": host})
    assert found.status_code in (400, 403)  # 400: not even HTTP


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_own_hosts(url, host):
    assert httpx.get(f"{url}/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_foreign_origins(url, origin):
    assert asked(url, "/v1/completions", origin=origin).status_code == 403


@pytest.mark.parametrize("origin", OWN_ORIGINS)
def test_own_origins_and_programs(url, origin):
    assert asked(url, "/v1/completions", origin=origin).status_code == 200


def test_one_foreign_origin_among_several_is_enough(url):
    headers = [("origin", "http://localhost"), ("origin", "http://evil.example")]
    assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 403


def test_a_key_is_protection_enough(served_llm):
    """No page has it, so any name may lead here, as behind a proxy."""
    with serving(served_llm, keys=["secret"]) as (base, _):
        headers = {"authorization": "Bearer secret", "host": "api.example", "origin": "https://app.example"}
        assert asked(base, "/v1/completions", **headers).status_code == 200
        assert asked(base, "/v1/completions", host="api.example").status_code == 401


def test_the_name_that_it_was_started_with_is_its_own(served_llm):
    """A machine may have names for loopback of its own, in /etc/hosts."""

    def server(**options):
        return create_app(one_model(served_llm), **options)

    def status(app, host):
        transport = httpx.ASGITransport(app)

        async def get():
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return (await client.get("/v1/models", headers={"host": host})).status_code

        import asyncio

        return asyncio.run(get())

    named = server(loopback="My.Machine")
    assert [status(named, host) for host in ("my.machine:8000", "MY.MACHINE.", "other.machine")] == [200, 200, 403]
    assert status(server(), "other.machine") == 200  # one that others reach too has names that nobody lists


@pytest.mark.parametrize(("name", "own"), [("::1", True), ("[::1]", True), ("::ffff:8.8.8.8", False), ("1", False)])
def test_loopback_names(name, own):
    assert is_loopback(name) is own


# -- what a form or a script without permission can send -------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", None, "text/json", "json",
             "text/plain; application/json", "application/jsonp"]
)  # fmt: skip
def test_a_body_that_is_not_called_json_is_refused(url, path, kind):
    headers = {} if kind is None else {"content-type": kind}
    found = httpx.post(url + path, content=b'{"prompt": "x", "max_tokens": 1}', headers=headers)
    assert found.status_code == 415
    assert "send JSON, as application/json" in found.json()["error"]["message"]


def test_no_route_takes_a_body_that_is_not_called_json(url):
    routes = described(url, bodies=True)
    assert len(routes) >= 8
    for method, path in routes:
        found = httpx.request(method, url + path, content=b"{}", headers={"content-type": "text/plain"})
        assert found.status_code == 415, path


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_json_may_have_parameters(url, kind):
    body = b'{"prompt": "x", "max_tokens": 1}'
    assert httpx.post(f"{url}/v1/completions", content=body, headers={"content-type": kind}).status_code == 200
