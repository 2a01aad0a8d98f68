"""Functions and thoughts, through the official client."""

from __future__ import annotations

import itertools
import json
import random

import httpx
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_tokenizer import SPECIAL

from outrider import Grammar, SamplingParams
from outrider.chat.calls import parse_call
from outrider.chat.grammar import Function, grammar_of_calls
from outrider.chat.markers import Markers
from outrider.chat.template import ChatTemplate
from outrider.engine.outputs import Piece, RequestOutput, RequestStats
from outrider.errors import UsageError
from outrider.server.openai.chat import TurnWriter

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says it",
        "parameters": {
            "type": "object",
            "properties": {
                "unit": {"type": "string", "enum": ["ab", "abc"]},
                "days": {"type": "integer"},
                "exact": {"type": "boolean"},
            },
            "required": ["unit", "exact"],
        },
        "strict": False,
    },
}
TIME = {"type": "function", "function": {"name": "get-time"}}
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "abc"}], "seed": 3, "max_tokens": 200}


def joined(chunks):
    """A stream's deltas put together as clients do."""
    message = {"content": "", "reasoning_content": "", "tool_calls": {}}
    for chunk in chunks:
        for choice in chunk.choices:
            delta = choice.delta
            message["content"] += delta.content or ""
            message["reasoning_content"] += getattr(delta, "reasoning_content", None) or ""
            for call in delta.tool_calls or ():
                known = message["tool_calls"].setdefault(call.index, {"name": "", "arguments": "", "id": call.id})
                known["name"] += call.function.name or ""
                known["arguments"] += call.function.arguments or ""
    return message, chunks[-1].choices[0].finish_reason


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"get_weather", "get-time"}),
        ({"type": "function", "function": {"name": "get_weather"}}, {"get_weather"}),
        ({"type": "function", "function": {"name": "get-time"}}, {"get-time"}),
    ],
)
def test_a_demanded_call_is_made(json_client, temperature, choice, names):
    ask = {**ASK, "tools": [WEATHER, TIME], "tool_choice": choice, "temperature": temperature}
    found = []
    for drafting in ("off", "auto", 5):
        extra = {"drafting": drafting}
        (whole,) = json_client.chat.completions.create(**ask, parallel_tool_calls=False, extra_body=extra).choices
        chunks = list(
            json_client.chat.completions.create(**ask, parallel_tool_calls=False, stream=True, extra_body=extra)
        )
        message, reason = joined(chunks)
        assert whole.finish_reason == reason == "tool_calls"
        assert whole.message.content is None
        assert message["content"] == ""
        (call,) = whole.message.tool_calls
        assert call.id.startswith("call_")
        (streamed,) = message["tool_calls"].values()
        assert (call.function.name, call.function.arguments) == (streamed["name"], streamed["arguments"])
        found.append((call.function.name, call.function.arguments))
    assert len(set(found)) == 1
    name, arguments = found[0]
    assert name in names
    if name == "get_weather":
        jsonschema.validate(json.loads(arguments), WEATHER["function"]["parameters"])
        assert set(json.loads(arguments)) <= {"unit", "days", "exact"}
    else:
        assert arguments == "{}"


def test_tools_and_results_reach_the_template(json_llm, json_client, monkeypatch):
    rendered = []
    encode = json_llm.tokenizer.encode_marked
    monkeypatch.setattr(json_llm.tokenizer, "encode_marked", lambda ps: rendered.append("".join(ps)) or encode(ps))
    called = {"id": "call_1", "type": "function", "function": {"name": "get-time", "arguments": '{"zone": "abc"}'}}
    messages = [
        {"role": "user", "content": "abc"},
        {"role": "assistant", "content": None, "tool_calls": [called], "reasoning_content": "Hm"},
        {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
    ]
    ask = {**ASK, "messages": messages, "tools": [TIME], "max_tokens": 4}
    json_client.chat.completions.create(**ask)
    (text,) = rendered
    assert text == (
        "<|tool>get-time:{}<tool|>user: abc\n<|channel>thought\nHm<channel|>"
        "<|tool_call>call:get-time{[('zone', 'abc')]}<tool_call|>assistant: \ntoolcall_1: 12:00\n"
    )
    rendered.clear()
    json_client.chat.completions.create(**ask, tool_choice="none")
    assert "<|tool>" not in rendered[0]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [TIME, TIME]}, "two functions called get-time"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "names the function x"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": [TIME], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [TIME], "grammar": 'start: "a"'}, "a grammar of this kind and tools exclude each other"),
        ({"functions": [{"name": "x"}]}, "functions is not supported: use tools"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort must be one of none, minimal, low, medium, high"),
        ({"thinking_budget": -1}, "thinking_budget"),
        ({"continue_final_message": True}, "the last one is not"),
        ({"messages": [{"role": "user"}, {"role": "nobody"}]}, "messages[1] has the role 'nobody'"),
    ],
)
def test_wrong_tools_are_explained(json_url, body, says):
    ask = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    found = httpx.post(f"{json_url}/v1/chat/completions", json={**ask, **body})
    assert found.status_code == 400
    assert says in found.json()["error"]["message"]


def test_parameters_too_deep_for_a_grammar(json_llm):
    schema = {"type": "string"}
    for _ in range(60):
        schema = {"type": "object", "properties": {"a": schema}}
    value = 1
    for _ in range(900):
        value = [value]
    for deep in (schema, {"type": "object", "properties": {"a": {"enum": [value]}}}):
        with pytest.raises(UsageError, match="nest deeper than 32"):
            grammar_of_calls([Function(name="f", parameters=deep)], json_llm.tokenizer, several=False)


def test_types_that_repeat_do_not_multiply(json_llm):
    schema = {"type": "string"}
    for _ in range(15):
        schema = {"type": ["array", "array", ["array"]], "items": schema}
    functions = [Function("f", {"type": "object", "properties": {"a": schema}, "required": [[], "a"]})]
    assert len(grammar_of_calls(functions, json_llm.tokenizer, several=False).text) < 3000


def test_a_template_with_tools_of_another_format_says_so(json_llm, json_url, monkeypatch):
    monkeypatch.setattr(json_llm.parts.prompts, "template", ChatTemplate("{{ tools }}", bos="<bos>"))
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [TIME]}
    found = httpx.post(f"{json_url}/v1/chat/completions", json=body)
    assert found.status_code == 400
    assert "writes tools in another format" in found.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_are_apart(json_client, stream):
    """A grammar makes the tiny model think; control tokens are in neither text."""
    grammar = 'start: <|channel> "thought\\n" /[a-c]{6}/ <channel|> /[0-9]{3}/'
    found = json_client.chat.completions.create(**ASK, stream=stream, extra_body={"grammar": grammar})
    if stream:
        message, reason = joined(list(found))
        content, thought = message["content"], message["reasoning_content"]
    else:
        (choice,) = found.choices
        content, thought, reason = choice.message.content, choice.message.reasoning_content, choice.finish_reason
    assert reason == "stop"
    assert len(content) == 3
    assert content.isdigit()
    assert len(thought) == 6
    assert set(thought) <= set("abc")


@pytest.mark.parametrize("form", [{"regex": "[0-9]{3}"}, {"response_format": {"type": "json_object"}}])
def test_a_form_holds_after_the_thought(json_llm, json_client, form):
    think = json_llm.tokenizer.special_tokens(["<|channel>"])
    ask = {**ASK, "max_tokens": 400, "temperature": 1}
    kwargs = {"chat_template_kwargs": {"enable_thinking": True}, **form}
    # The thought ends at once, or the answer begins at once: either way the form holds.
    end = json_llm.tokenizer.special_tokens(["<channel|>"])
    for bias in ({str(*think): 100, str(*end): 100}, {str(*think): -100}):
        found = json_client.chat.completions.create(**ask, logit_bias=bias, extra_body=kwargs)
        (choice,) = found.choices
        assert choice.message.content[:1] in ("{" if "response_format" in form else "0123456789")
        if "regex" in form:
            assert len(choice.message.content) == 3
            assert choice.finish_reason == "stop"
    found = json_client.chat.completions.create(**ask, extra_body={"regex": "[0-9]{3}"})
    assert found.choices[0].message.content.isdigit()  # without thinking there is no thought


def test_wrong_forms_are_named_as_they_were_given(json_url):
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "chat_template_kwargs": {"enable_thinking": True},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "thing"}}},
    }
    error = httpx.post(f"{json_url}/v1/chat/completions", json=body).json()["error"]
    assert error["message"] == "the JSON schema cannot be used: Invalid type: thing"
    assert error["param"] == "response_format"


def schemas():
    names = st.sampled_from(["a", "B", "city", "x-y", "Zip_1", "a:b", "c[]", "", " d{", '"e",'])
    leaf = st.sampled_from(
        [
            {"type": "string"},
            {"type": "integer"},
            {"type": "number"},
            {"type": "boolean"},
            {"type": "null"},
            {"enum": ["ab", 'q"\n\\', "", 3, None, True, [1, "x"]]},
            {"const": "ü<>"},
            {"type": ["integer", "null"]},
        ]
    )

    def larger(inner):
        objects = st.tuples(st.dictionaries(names, inner, max_size=3), st.booleans()).map(
            lambda both: {
                "type": "object",
                "properties": both[0],
                "required": sorted(both[0])[: 2 * both[1]],
                "additionalProperties": False,
            }
        )
        return objects | inner.map(lambda items: {"type": "array", "items": items})

    properties = st.dictionaries(names, st.recursive(leaf, larger, max_leaves=3), max_size=3)
    return st.tuples(properties, st.booleans()).map(
        lambda both: {
            "type": "object",
            "properties": both[0],
            "required": sorted(both[0])[: 3 * both[1]],
            "additionalProperties": False,
        }
    )


@settings(max_examples=40, deadline=None)
@given(schema=schemas(), seed=st.integers(0, 2**32 - 1))
def test_demanded_calls_fit_their_schemas(json_llm, schema, seed):
    """Any walk through the grammar that comes to its end is a call that the parser reads and the schema allows."""
    import numpy as np

    functions = [Function(name="f", parameters=schema)]
    grammar = grammar_of_calls(functions, json_llm.tokenizer, several=False)
    constraint = json_llm.parts.grammars.constraint(grammar, [])
    rng, text = random.Random(seed), b""
    quote = 259 + SPECIAL.index('<|"|>')
    for _ in range(300):
        if constraint.complete:
            break
        allowed = np.flatnonzero(constraint.mask()).tolist()
        ends = [t for t in allowed if t == quote or json_llm.tokenizer.piece(t) in (b"}", b"]", b",")]
        token = rng.choice(ends if ends and rng.random() < 0.7 else allowed)
        constraint.push(token)
        text += json_llm.tokenizer.piece(token, skip_special=False)
    if not constraint.complete:
        return
    text = text.decode("utf-8", "replace")
    assert text.startswith("<|tool_call>call:f{")
    call = parse_call(text.removeprefix("<|tool_call>").removesuffix("<tool_call|>"))
    jsonschema.validate(json.loads(call.arguments), schema)


def test_no_number_that_a_call_can_hold_is_infinite(json_llm):
    schema = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    grammar = grammar_of_calls([Function(name="f", parameters=schema)], json_llm.tokenizer, several=False)
    for number, allowed in (("6e0120", False), ("6e309", False), ("1e199", True), ("9" * 20 + "e199", True)):
        constraint = json_llm.parts.grammars.constraint(grammar, [])
        tokens = json_llm.tokenizer.encode(f"<|tool_call>call:f{{x:{number}}}", add_bos=False, parse_special=True)
        assert all(constraint.allows(token) and not constraint.push(token) for token in tokens) is allowed


def test_the_example_that_needs_no_hypothesis(json_llm):
    schema = {"type": "object", "properties": {"b": {"type": "string"}, "A": {"type": "integer"}}, "required": ["b"]}
    grammar = grammar_of_calls([Function(name="f", parameters=schema)], json_llm.tokenizer, several=True)
    for text in (
        '<|tool_call>call:f{b:<|"|>x, {<|"|>}<tool_call|>',
        '<|tool_call>call:f{A:12,b:<|"|><|"|>}<tool_call|><|tool_call>call:f{',
    ):
        constraint = json_llm.parts.grammars.constraint(grammar, [])
        for token in json_llm.tokenizer.encode(text, add_bos=False, parse_special=True):
            assert constraint.allows(token)
            constraint.push(token)
    constraint = json_llm.parts.grammars.constraint(grammar, [])
    for token in json_llm.tokenizer.encode("<|tool_call>call:f{", add_bos=False, parse_special=True):
        constraint.push(token)
    assert not constraint.allows(3 + ord("}"))  # b is required
    for mark in ('<|"|>', "<tool_call|>"):  # their texts would end the string, or the call, for the parser
        constraint = json_llm.parts.grammars.constraint(grammar, [])
        for token in json_llm.tokenizer.encode('<|tool_call>call:f{b:<|"|>', add_bos=False, parse_special=True):
            constraint.push(token)
        for token in json_llm.tokenizer.encode(mark[:-1], add_bos=False):
            constraint.push(token)
        assert not constraint.allows(3 + ord(">"))
        assert constraint.allows(259 + SPECIAL.index('<|"|>'))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 90), max_size=8))
def test_streams_of_calls_add_up(cuts):
    text = (
        "<|channel>thought\nFirst<channel|>Now: <|tool_call>call:f{a:1}<tool_call|>"
        "<|tool_call>call:g{<tool_call|><|tool_call>call:h{}<tool_call|>"
    )
    markers = Markers(channels=True, tools=True)
    out = RequestOutput((1,), (2,), text, "stop", RequestStats())
    whole = TurnWriter(None, markers.reader(), logprobs=False).whole(0, out).model_dump()
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    writer, chunks = TurnWriter(None, markers.reader(), logprobs=False), []
    for at, end in itertools.pairwise(places):
        piece = Piece(text[at:end], (), (), (), (), "stop" if end == len(text) else None)
        chunks.append(writer.part(0, piece).model_dump())
    deltas = [chunk["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == whole["message"]["content"]
    assert whole["message"]["content"] == "Now: call:g{"
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "First"
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in calls] == [0, 1]
    assert [call["function"] for call in calls] == [call["function"] for call in whole["message"]["tool_calls"]]
    assert chunks[-1]["finish_reason"] == whole["finish_reason"] == "tool_calls"


def test_hidden_control_tokens_stay_hidden_but_for_those_asked_for(json_llm):
    grammar = Grammar.lark('start: <|channel> "a" <|tool_call>')
    for keep, text in (((), "a"), (("<|channel>",), "<|channel>a"), (("nothing",), "a")):
        out = json_llm.generate([[5]], SamplingParams(grammar=grammar, keep_special=keep))[0]
        assert out.text == text
