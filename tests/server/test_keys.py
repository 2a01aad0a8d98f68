"""Which keys are let in, and where they come from."""

from __future__ import annotations

import hmac

import httpx
import pytest
from serving import serving

from outrider.errors import UsageError
from outrider.server.keys import ApiKeys, read_keys


def test_each_key_of_option_and_file_is_let_in(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# of the team\n\n  first-key \nsecond-key\r\n#third-key\nfirst-key\n")
    keys = read_keys("own-key", file)
    assert [keys.index(key.encode()) for key in ("own-key", "first-key", "second-key")] == [0, 1, 2]
    for wrong in (b"", b"third-key", b"#third-key", b"own-key ", b"own", b"\xff"):
        assert keys.index(wrong) is None


def test_without_keys_everyone_is_let_in():
    assert not read_keys(None, None)
    assert read_keys(None, None).index(b"anything") is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no key: write one a line"),
        (b"# nothing\n\n", "has no key: write one a line"),
        (b"good\n# note\nnot good\n", "line 3: a key must not have whitespace"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (None, r"cannot be read \(No such file or directory\): check its path"),
    ],
)
def test_a_file_that_is_none_of_keys_is_refused(tmp_path, content, says):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        read_keys("own-key", file)


def test_a_folder_is_no_file_of_keys(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(None, tmp_path)


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "\u00a0"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    with pytest.raises(UsageError, match="empty or has whitespace"):
        read_keys(key, None)


def test_all_keys_are_compared_whichever_it_is(monkeypatch):
    compared, own = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(b) or own(a, b))
    keys = ApiKeys(["one", "two", "three"])
    for given in (b"one", b"three", b"none of them"):
        compared.clear()
        keys.index(given)
        assert compared == [b"one", b"two", b"three"]


def test_scopes_of_different_keys_and_salts_differ():
    keys = ApiKeys(["one", "two", ":", "None", "0"])
    pairs = [(key, salt) for key in (None, *range(5)) for salt in ("", "0", ":", "0:", "1:0", "None", "one")]
    assert len({keys.scope(*pair) for pair in pairs}) == len(pairs)


def test_a_scope_is_the_keys_own_wherever_it_stands():
    """Pages on disk outlive the list of keys: another key in the same place must not read them."""
    assert ApiKeys(["new", "one"]).scope(1, "s") == ApiKeys(["one"]).scope(0, "s")


def test_a_key_may_have_any_letters(served_llm):
    with serving(served_llm, keys=["schlüssel", "plain"]) as (base, _):
        for key, status in (("schlüssel", 200), ("plain", 200), ("schlüsse", 401)):
            headers = {"Authorization": f"Bearer {key}".encode()}
            assert httpx.get(f"{base}/v1/models", headers=headers).status_code == status
        for scheme, status in (("bearer plain", 200), ("BEARER  plain", 200), ("plain", 401), ("Basic plain", 401)):
            assert httpx.get(f"{base}/v1/models", headers={"Authorization": scheme}).status_code == status
        assert httpx.get(f"{base}/v1/models").status_code == 401


def test_every_route_but_health_and_readiness_needs_a_key(served_llm):
    with serving(served_llm, keys=["secret"]) as (base, _):
        paths = httpx.get(f"{base}/openapi.json").json()["paths"]
        assert {"/v1/messages", "/v1/responses/{response_id}", "/tokenize", "/metrics"} <= paths.keys()
        for path, methods in paths.items():
            for method in methods:
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"x-api-key": "wrong"}):
                    found = httpx.request(method, base + path.replace("{", "").replace("}", ""), headers=headers)
                    assert found.status_code == (200 if path in ("/health", "/ready") else 401), (method, path)
