"""Messages as clients send them: read as far as they can be, and never locked by what a model once wrote."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.chat.arguments import read_arguments
from outrider.chat.calls import MAX_DEPTH
from outrider.chat.messages import read_messages
from outrider.errors import UsageError


def call(arguments, name="f"):
    return {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": name, "arguments": arguments}}]}


def read(message, **options):
    (found,) = read_messages([message], **options)
    return found


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        ("x", "x"),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"], "abc"),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        ([{"type": "text", "text": None}, {"text": "b"}], "b"),
        ({"type": "text", "text": "a"}, "a"),
        ({"degrees": 4}, '{"degrees": 4}'),
        (4, "4"),
    ],
)
def test_content_is_one_text(content, text):
    assert read({"role": "user", "content": content})["content"] == text
    assert read({"role": "user"} | ({} if content is None else {"content": content}))["content"] == text


def test_roles_names_and_thoughts():
    assert read({"role": "developer", "content": "x"}) == {"role": "system", "content": "x"}
    assert read({"role": "function", "name": "f", "content": "x"}) == {"role": "tool", "name": "f", "content": "x"}
    assert read({"role": "user", "name": None, "content": "x", "audio": {}}) == {"role": "user", "content": "x"}
    for field in ("reasoning_content", "reasoning"):
        found = read({"role": "assistant", "content": "x", field: "Hm"})
        assert found["reasoning"] == found["reasoning_content"] == "Hm"
    old = read({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}})
    assert old["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "nobody"}, r"messages\[0\] has the role 'nobody' \(str\): use one of system, developer, user"),
        ({"content": "x"}, r"messages\[0\] has the role None"),
        ({"role": "user", "content": [{"type": "dance"}]}, r"messages\[0\] has a content part of the type 'dance'"),
        ({"role": "user", "content": [3]}, "has a content part of the type None"),
        ({"role": "user", "content": [{"type": ["text"]}]}, "has a content part of the type"),
    ],
)
def test_what_is_no_message_is_named(message, says):
    with pytest.raises(UsageError, match=says):
        read(message)


@pytest.mark.parametrize(("kind", "shown"), [("image_url", "[image]"), ("input_audio", "[audio]"), ("file", "[file]")])
def test_media_by_option(caplog, kind, shown):
    message = {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": kind, kind: {"url": "x"}}]}
    with pytest.raises(UsageError, match=rf"messages\[0\] has .* type {kind}.* --ignore-media\) to have \{shown}"):
        read(message)
    with caplog.at_level(logging.WARNING, "outrider.chat"):
        assert read(message, ignore_media=True)["content"] == "What is " + shown
    assert caplog.messages == [f"messages[0]: a part of the type {kind} was replaced by {shown}"]


@pytest.mark.parametrize(
    ("arguments", "shown", "warned"),
    [
        ('{"city": "Oslo"}', {"city": "Oslo"}, False),
        ({"city": "Oslo"}, {"city": "Oslo"}, False),
        (None, {}, False),
        ("", {}, False),
        ("null", {}, False),
        ('{"city": "Os', {"city": "Os"}, True),
        ('{"city": "Oslo", "da', {"city": "Oslo"}, True),
        ('{"city": "Oslo", "days": 1', {"city": "Oslo", "days": 1}, True),
        ('{"city": "Oslo", "days": tr', {"city": "Oslo"}, True),
        ('{"a": {"b": [1, {"c": "x, y', {"a": {"b": [1, {"c": "x, y"}]}}, True),
        ('{"a": {"b": tr', {"a": {}}, True),
        ('{"a": "x\\', {"value": '{"a": "x\\'}, True),
        ('{"a": 1, "b": "x\\', {"a": 1}, True),
        ('{"a": 1} and so on', {"a": 1}, True),
        ("[1]", {"value": "[1]"}, True),
        ('"Oslo"', {"value": "Oslo"}, True),
        ("7", {"value": 7}, True),
        ("Oslo, please", {"value": "Oslo, please"}, True),
        ('{"a": 1, "b": 2}}', {"a": 1, "b": 2}, True),
        ("{'a': 1}", {"value": "{'a': 1}"}, True),
        (["a"], {"value": ["a"]}, True),
        (7, {"value": 7}, True),
    ],
)
def test_arguments_are_read_as_far_as_they_can_be(caplog, arguments, shown, warned):
    with caplog.at_level(logging.WARNING, "outrider.chat"):
        (_, found) = read_messages([{"role": "user"}, call(arguments, name="f" * 70)])
    (called,) = found["tool_calls"]
    assert called["function"] == {"name": "f" * 70, "arguments": shown}
    assert [text[:11] for text in caplog.messages] == ["messages[1]"] * warned


def test_arguments_too_deep_for_a_template_are_shown_as_text():
    deep = '{"a": ' * 500 + "1" + "}" * 500
    assert read_arguments(deep)[0] == {"value": deep}
    assert read_arguments("[" * 100_000)[0] == {"value": "[" * 100_000}
    assert read_arguments(json.loads(deep))[0] == {"value": deep}
    allowed = '{"a": ' * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    assert read_arguments(allowed) == (json.loads(allowed), None)


def test_a_call_without_a_name_is_left_out(caplog):
    for broken in ({}, {"function": None}, {"function": {"arguments": "{}"}}, "call", None):
        with caplog.at_level(logging.WARNING, "outrider.chat"):
            assert "tool_calls" not in read({"role": "assistant", "tool_calls": [broken]})
            assert "tool_calls" not in read({"role": "assistant", "tool_calls": broken})
    assert "tool_calls" not in read({"role": "assistant", "tool_calls": 5})
    assert "messages[0]: a tool call without a function's name was left out" in caplog.messages


VALUES = st.recursive(
    st.text(max_size=6) | st.booleans() | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.integers(0, 200))
def test_arguments_cut_off_anywhere_are_an_object_with_the_names_that_were_there(arguments, length):
    text = json.dumps(arguments)
    found, problem = read_arguments(text[:length])
    if length >= len(text):
        assert (found, problem) == (arguments, None)
    elif length and "value" not in found:
        assert list(found) == list(arguments)[: len(found)]
        assert all(found[name] == arguments[name] for name in list(found)[:-1])
