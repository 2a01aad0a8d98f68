"""Which replica a request goes to."""

from __future__ import annotations

import json

import pytest

from outrider.ray.affinity import prefix_key


def key(**body):
    return prefix_key(json.dumps(body).encode())


def user(text):
    return {"role": "user", "content": text}


def test_a_conversation_keeps_its_key():
    system, answer = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Yes."}
    first = key(model="m", messages=[system, user("Hi")], temperature=1.0)
    assert first == key(model="m", messages=[system, user("Hi"), answer, user("Why?")], seed=3)
    assert first != key(model="m", messages=[system, user("Hello")])
    assert first != key(model="m", messages=[user("Hi")])
    assert first != key(model="other", messages=[system, user("Hi")])


@pytest.mark.parametrize("name", ["prompt", "input"])
def test_a_text_goes_by_its_beginning(name):
    beginning = "x" * 600
    assert key(**{name: beginning + "a"}) == key(**{name: beginning + "b"})
    assert key(**{name: "a" + beginning}) != key(**{name: "b" + beginning})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"{}", b'{"messages": []}', b"\xff", b"[" * 100_000])
def test_what_has_no_prompt_has_no_key(body):
    assert prefix_key(body) is None
