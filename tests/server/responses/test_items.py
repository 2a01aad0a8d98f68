"""Input items as messages of the chat route."""

from __future__ import annotations

import pytest

from outrider.server.responses.items import messages_of, opaque_thought, with_ids

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
CALLED = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def reasoning(**fields):
    return {"type": "reasoning", "id": "rs_1", "summary": [], **fields}


def test_thoughts_texts_and_calls_of_one_turn_are_one_message():
    items = [
        {"role": "user", "content": "Go"},
        reasoning(content=[{"type": "reasoning_text", "text": "Hm"}]),
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "See", "annotations": []}],
        },
        CALL,
        {**CALL, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
        reasoning(content=[{"type": "reasoning_text", "text": "So"}]),
        {"role": "assistant", "content": "Rain."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be kind"}]},
    ]
    text = [{"type": "text", "text": "See"}]
    calls = [CALLED, {**CALLED, "id": "c2"}]
    assert messages_of(items) == [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": text, "reasoning_content": "Hm", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "sun"}]},
        {"role": "assistant", "content": "Rain.", "reasoning_content": "So"},
        {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind"}]},
    ]


@pytest.mark.parametrize(
    ("fields", "thought"),
    [
        ({"content": [{"type": "reasoning_text", "text": "A"}], "encrypted_content": opaque_thought("B")}, "A"),
        ({"summary": [{"type": "summary_text", "text": "C"}], "encrypted_content": opaque_thought("B")}, "B"),
        ({"summary": [{"text": "C"}, {"text": "D"}], "encrypted_content": "gAAAAAB"}, "C\n\nD"),
        ({"content": None, "encrypted_content": None}, ""),
    ],
)
def test_a_thought_is_taken_from_where_it_is_best(fields, thought):
    assert messages_of([reasoning(**fields)])[0]["reasoning_content"] == thought


def test_what_is_left_of_tools_of_other_servers_is_left_out():
    assert messages_of([{"type": "web_search_call", "id": "ws_1"}, {"role": "user", "content": "Go"}]) == [
        {"role": "user", "content": "Go"}
    ]


@pytest.mark.parametrize(("output", "content"), [({"a": 1}, '{"a": 1}'), (None, None), (3, "3"), ("", "")])
def test_an_output_may_be_any_json(output, content):
    assert messages_of([{"type": "custom_tool_call_output", "call_id": "c", "output": output}])[0]["content"] == content


def test_calls_without_arguments_have_none():
    for arguments in (None, "", {}):
        (message,) = messages_of([CALL | {"arguments": arguments}])
        assert message["tool_calls"][0]["function"]["arguments"] in ("{}", "")


@pytest.mark.parametrize("item", [{}, {"type": "compaction"}, {"type": "message", "role": "tool"}, {"role": None}])
def test_an_item_that_cannot_be_read_is_named(item):
    with pytest.raises(ValueError, match="item 1: the"):
        messages_of([CALL, item])


def test_input_is_listed_as_openai_lists_it():
    items = [
        {"id": None, "role": "user", "content": "Go", "status": None},
        {"role": "assistant", "content": "So"},
        CALL | {"id": "mine"},
    ]
    first, second, third = with_ids(items, "resp_12")
    assert first == {
        "id": "item_12_in0",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "Go"}],
    }
    assert second["content"] == [{"type": "output_text", "text": "So", "annotations": []}]
    assert (third["id"], third["status"]) == ("mine", "completed")
