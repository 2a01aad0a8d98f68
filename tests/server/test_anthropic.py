"""Anthropic's API, through its official client, whose types check every event and response."""

from __future__ import annotations

import contextlib
import json

import anthropic
import httpx
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import serving

from outrider.chat.messages import read_messages
from outrider.chat.reader import AnswerReader
from outrider.errors import UsageError
from outrider.server.anthropic.blocks import for_template
from outrider.server.anthropic.response import BlockWriter

HELLO = [{"role": "user", "content": "abc"}]
ASK = {"model": "tiny", "max_tokens": 24, "messages": HELLO}
GREEDY = {"temperature": 0}
"""Fields that the client has no argument for."""
WEATHER = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"unit": {"type": "string", "enum": ["ab", "abc"]}, "exact": {"type": "boolean"}},
        "required": ["unit", "exact"],
    },
}
SALT = "salt"


@pytest.fixture
def client(json_url):
    return anthropic.Anthropic(base_url=json_url, api_key="none", max_retries=0)


def streamed(client, **ask):
    with client.messages.stream(**ask) as stream:
        return [event.type for event in stream], stream.get_final_message()


@pytest.mark.parametrize("drafting", ["off", "auto", 5])
def test_a_stream_is_the_whole_message_whatever_is_drafted(client, drafting):
    plain = client.messages.create(**ASK, extra_body=GREEDY | {"drafting": "off"})
    whole = client.messages.create(**ASK, extra_body=GREEDY | {"drafting": drafting})
    kinds, message = streamed(client, **ASK, extra_body=GREEDY | {"drafting": drafting})
    assert plain.content[0].text == whole.content[0].text == message.content[0].text
    assert (whole.stop_reason, whole.stop_sequence) == (message.stop_reason, message.stop_sequence)
    assert message.usage.output_tokens == whole.usage.output_tokens
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    read = [usage.input_tokens + usage.cache_read_input_tokens for usage in (whole.usage, message.usage)]
    assert read == [client.messages.count_tokens(model="tiny", messages=HELLO).input_tokens] * 2


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_required_tool_is_used(client, choice):
    ask = ASK | {"max_tokens": 200, "tools": [WEATHER], "tool_choice": {**choice, "disable_parallel_tool_use": True}}
    whole = client.messages.create(**ask, extra_body=GREEDY)
    (use,) = whole.content
    assert (whole.stop_reason, use.type, use.name) == ("tool_use", "tool_use", "get_weather")
    jsonschema.validate(use.input, WEATHER["input_schema"])
    kinds, message = streamed(client, **ask, extra_body=GREEDY)
    assert message.content[0].input == use.input
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


def test_a_format_is_enforced(client):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    config = {"format": {"type": "json_schema", "schema": schema}}
    (text,) = client.messages.create(**ASK | {"max_tokens": 200}, output_config=config, extra_body=GREEDY).content
    jsonschema.validate(json.loads(text.text), schema)


def test_a_stop_sequence_ends_the_message_and_is_named(client):
    (text,) = client.messages.create(**ASK, extra_body=GREEDY).content
    stop = text.text[3:5]
    found = client.messages.create(**ASK, stop_sequences=["\x00never", stop], extra_body=GREEDY)
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", stop)
    assert "".join(block.text for block in found.content) == text.text[: text.text.index(stop)]
    assert streamed(client, **ASK, stop_sequences=[stop], extra_body=GREEDY)[1].stop_sequence == stop


ORDERED = (
    "<|channel>thought\nWhy> not<channel|>\nLet me see: <|tool_call>call:f{a:1}<tool_call|>\n"
    "<|tool_call>call:g{}<tool_call|> done > now<|tool_call>call:f{a:2}<tool_call|> "
)


@pytest.mark.parametrize("size", [1, 2, 5, 17, 50, len(ORDERED)])
def test_blocks_have_the_order_of_the_answer_however_it_is_cut(size):
    """A piece of an accepted draft may have text, a call and more text."""
    writer = BlockWriter(AnswerReader(channels=True, tools=True), show_thoughts=True)
    sent = [each for at in range(0, len(ORDERED), size) for each in writer.push(ORDERED[at : at + size])]
    sent += writer.end()
    kinds = ["thinking", "text", "tool_use", "tool_use", "text", "tool_use"]
    assert [block.type for block in writer.blocks] == kinds
    thought, first, call, other, second, last = writer.blocks
    assert (thought.thinking, first.text, second.text) == ("Why> not", "\nLet me see: ", " done > now")
    assert [(use.name, use.input) for use in (call, other, last)] == [("f", {"a": 1}), ("g", {}), ("f", {"a": 2})]
    begun = [json.loads(each.partition("data: ")[2]) for each in sent if each.startswith("event: content_block_start")]
    assert [(each["index"], each["content_block"]["type"]) for each in begun] == list(enumerate(kinds))


@pytest.mark.parametrize(("text", "blocks"), [("", []), (" \n", [" \n"]), ("a ", ["a "]), (" a", [" a"])])
def test_space_alone_is_a_block_only_where_it_is_all_there_is(text, blocks):
    writer = BlockWriter(AnswerReader(channels=True, tools=True), show_thoughts=True)
    list(writer.push(text))
    list(writer.end())
    assert [block.text for block in writer.blocks] == blocks


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "data"]), inner),
    max_leaves=5,
)
BLOCK = st.fixed_dictionaries(
    {"type": JSON | st.sampled_from(["text", "document", "search_result", "tool_use", "tool_result", "thinking"])},
    optional={name: JSON for name in ("text", "source", "title", "content", "tool_use_id", "input", "thinking")}
    | {"source": st.fixed_dictionaries({"type": st.sampled_from(["text", "content"]), "content": JSON, "data": JSON})},
)


@given(role=st.sampled_from(["user", "assistant"]), blocks=st.lists(BLOCK, max_size=3))
def test_any_blocks_are_read_or_refused(role, blocks):
    with contextlib.suppress(UsageError):
        read_messages(for_template(role, blocks))


def test_messages_become_those_of_chat_templates():
    user = [
        {"type": "text", "text": "So?", "cache_control": {"type": "ephemeral"}},
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
        {"type": "tool_result", "tool_use_id": "t2", "content": "none", "is_error": True},
    ]
    assert read_messages(for_template("user", user)) == [
        {"role": "tool", "tool_call_id": "t1", "content": "rain"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: none"},
        {"role": "user", "content": "So?"},
    ]
    assistant = [
        {"type": "thinking", "thinking": "Hm", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Let me see"},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
    ]
    (read,) = read_messages(for_template("assistant", assistant))
    assert (read["role"], read["content"], read["reasoning_content"]) == ("assistant", "Let me see", "Hm")
    called = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": {"a": 1}}}
    assert read["tool_calls"] == [called]
    document = {"type": "document", "title": "Notes", "source": {"type": "text", "data": "all"}}
    (read,) = read_messages(for_template("user", [document, {"type": "text", "text": "Sum up"}]))
    assert read["content"] == "Notes:\nall\n\nSum up"
    (read,) = read_messages(for_template("user", [{"type": "tool_result", "tool_use_id": "t", "content": 5}]))
    assert read == {"role": "tool", "tool_call_id": "t", "content": "5"}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    (read,) = read_messages(for_template("user", [image]), ignore_media=True)
    assert read["content"] == "[image]"


def test_what_claude_code_sends_is_taken(client):
    """Cached system blocks, tools without a schema, adaptive thinking, betas, fields that are not known here."""
    found = client.beta.messages.create(
        **ASK,
        system=[{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        tools=[{**WEATHER, "cache_control": {"type": "ephemeral"}}, {"type": "web_search_20250305", "name": "search"}],
        metadata={"user_id": "someone"},
        thinking={"type": "adaptive"},
        betas=["claude-code-20250219", "interleaved-thinking-2025-05-14"],
        extra_body={"context_management": {"edits": []}, "speed": None},
    )
    assert found.usage.output_tokens > 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "content part of the type image"),
        ({"tool_choice": {"type": "tool", "name": "nothing"}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": "abc " * 2000}]}, "context"),
        ({"stop_sequences": ["a"] * 17}, "stop_sequences: give a text, or a list of at most 16"),
        ({"extra_body": {"seed": 2**64}}, "seed: Input should be less"),
        ({"extra_body": {"seed": True}}, "seed: give a number"),
        ({"extra_body": {"drafting": "often"}}, "drafting: give"),
        ({"extra_body": {"cache_prompt": "perhaps"}}, "cache_prompt"),
        ({"tools": [WEATHER | {"name": "get weather"}]}, "which no call can be read with: use letters"),
    ],
)
def test_errors_have_anthropics_form(client, fields, says):
    with pytest.raises(anthropic.BadRequestError, match=says) as caught:
        client.messages.create(**ASK | fields)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    assert caught.value.body["request_id"]


def test_another_model_is_not_found(client):
    with pytest.raises(anthropic.NotFoundError, match="there is no model claude"):
        client.messages.create(**ASK | {"model": "claude"})


def test_models_are_listed_for_both_clients(client):
    (model,) = client.models.list().data
    assert (model.id, model.type, model.display_name) == ("tiny", "model", "tiny")
    assert client.models.retrieve("tiny").id == "tiny"


def test_keys_and_salts_share_no_cache(json_llm):
    """The key counts whichever header brings it."""
    long = [{"role": "user", "content": "What the first client asked, word for word."}]
    json_llm.parts.caches.clear()
    with serving(json_llm, keys=["alice", "bob"]) as (base, _):

        def cached(salt="", **credentials):
            one = anthropic.Anthropic(base_url=base, max_retries=0, **credentials)
            found = one.messages.create(model="tiny", max_tokens=4, messages=long, extra_body={"cache_salt": salt})
            return found.usage.cache_read_input_tokens

        assert cached(api_key="alice") == 0
        assert cached(api_key="bob") == 0
        assert cached(SALT, api_key="alice") == 0
        assert cached(auth_token="alice") > 30
        assert cached(SALT, api_key="alice") > 30
        refused = httpx.post(f"{base}/v1/messages", json=ASK, headers={"x-api-key": "eve"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
