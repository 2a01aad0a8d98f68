"""Answers taken apart: calls survive the way through the template, and the cut into pieces does not matter."""

from __future__ import annotations

import itertools
import json

import pytest
from chat.formats import ARGUMENTS
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.chat.calls import MAX_DEPTH, parse_call
from outrider.chat.reader import AnswerReader, Parts
from outrider.chat.template import ChatTemplate

TEMPLATE = ARGUMENTS + "call:{{ messages[0].name }}{ {{- pairs(messages[0].arguments) -}} }"

TEXTS = st.text().filter(lambda text: "<|" not in text and "|>" not in text and not text.endswith("<"))
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_\-.]{0,8}", fullmatch=True)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
MARKS = [
    "\n",
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    '<|"|>',
    "thought\n",
    "call:f{",
    "}",
    "<|",
    "|>",
    "<",
]


def rendered(name, arguments):
    text = ChatTemplate(TEMPLATE, bos="").render([{"name": name, "arguments": arguments}])
    assert text.startswith("call:")
    return text


@given(
    name=st.from_regex(r"[a-zA-Z0-9_.\-]{1,12}", fullmatch=True), arguments=st.dictionaries(KEYS, VALUES, max_size=4)
)
def test_arguments_come_back_as_they_were_rendered(name, arguments):
    call = parse_call(rendered(name, arguments))
    assert call is not None
    assert call.name == name
    found = json.loads(call.arguments)
    assert found == arguments
    assert json.dumps(found, sort_keys=True) == json.dumps(arguments, sort_keys=True)  # 1 is not 1.0, nor True


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('call:f{a:<|"|>Paris, {x} [y]: "z"\n<|"|>,n:-1.5e3}', {"a": 'Paris, {x} [y]: "z"\n', "n": -1500.0}),
        ("call:f{}", {}),
        (' call:f { a : [1, 2 ,<|"|>x<|"|>] , <|"|>b:c<|"|>: {} } ', {"a": [1, 2, "x"], "b:c": {}}),
        ("call:f{city:New York,zip:00501}", {"city": "New York", "zip": "00501"}),
        ("call:f{a:null,b:None,c:true,d:false}", {"a": None, "b": None, "c": True, "d": False}),
        ("call:f{a:1e999}", {"a": "1e999"}),
    ],
)
def test_calls_as_models_write_them(text, arguments):
    assert json.loads(parse_call(text).arguments) == arguments


@pytest.mark.parametrize(
    "text",
    [
        "",
        "call:",
        "call:f",
        "call:f{",
        "call:f{a}",
        "call:f{a:}",
        "call:f{:1}",
        "call:f{a:1",
        "call:f{a:1}}",
        "call:f{a:1} and more",
        'call:f{a:<|"|>x}',
        'call:f{a:<|"|>x<|"|>y}',
        "call:f{a:1 b:2,}",
        "call:f[1]",
        "call:f g{}",
        "f{a:1}",
        "call:f{a:" + "[" * 100_000,
        "call:f{a:" + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}",
    ],
)
def test_what_is_no_call_is_none(text):
    assert parse_call(text) is None


@given(st.text(alphabet=st.sampled_from(list('call:f{}[],:"<|>x1 ')), max_size=60))
def test_no_text_crashes(text):
    call = parse_call("call:f{" + text)
    assert call is None or isinstance(json.loads(call.arguments), dict)


def read(pieces, **options):
    reader = AnswerReader(**{"channels": True, "tools": True, **options})
    whole = Parts()
    for parts in [*(reader.push(piece) for piece in pieces), reader.flush()]:
        whole.content += parts.content
        whole.reasoning += parts.reasoning
        whole.calls += parts.calls
    assert reader.calls == len(whole.calls)
    return whole


@settings(max_examples=300)
@given(
    parts=st.lists(st.sampled_from(MARKS) | st.text(max_size=5), max_size=14),
    cuts=st.lists(st.integers(0, 80), max_size=12),
    channels=st.booleans(),
    tools=st.booleans(),
)
def test_any_cut_gives_the_same_parts(parts, cuts, channels, tools):
    text = "".join(parts)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    whole = read([text], channels=channels, tools=tools)
    assert read(pieces, channels=channels, tools=tools) == whole
    assert read(list(text), channels=channels, tools=tools) == whole
    if not channels and not tools:
        assert whole == Parts(content=text)


def test_thought_content_and_calls():
    whole = read(
        ["<|channel>thought\nWhy?\n<channel|>So:<|tool_call>call:f{a:1}<tool_call|><|tool_call>call:g{}<tool_call|>."]
    )
    assert whole.reasoning == "Why?"
    assert whole.content == "So:."
    assert [(call.name, call.arguments) for call in whole.calls] == [("f", '{"a": 1}'), ("g", "{}")]


def test_what_is_not_finished_or_malformed():
    assert read(["<|channel>thought\nand then"]) == Parts(reasoning="and then")
    assert read(["<|channel>thoug"]) == Parts(reasoning="thoug")
    assert read(["<|channel>thought\nA\n"]) == Parts(reasoning="A\n")
    assert read(["<|channel>thought\n\n\n<channel|>"]) == Parts(reasoning="\n")
    assert read(["<|channel>other\nx<channel|>y"]) == Parts(content="y", reasoning="other\nx")
    assert read(["a<|tool_call>call:f{"]) == Parts(content="acall:f{")
    assert read(['a <|tool_call>{x:<|"|>y<|"|><tool_call|> b']) == Parts(content='a {x:"y" b')
    assert read(["a<channel|>b<tool_call|>"]) == Parts(content="ab")
    assert read(["<|tool_call>{<|channel>x<channel|>"]) == Parts(content="{x")


@given(st.lists(st.sampled_from([mark for mark in MARKS if mark[0] + mark[-1] == "<>"] + ["a ", "call:f{}", "\n"])))
def test_no_control_token_of_the_format_is_content(pieces):
    content = read(["".join(pieces)]).content
    assert not [mark for mark in MARKS if mark[0] + mark[-1] == "<>" and mark in content]


@pytest.mark.parametrize("thought", ["", "thou", "thought\n", "thought\nfirst, "])
def test_an_answer_that_begins_within_a_thought(thought):
    rest = "thought\n".removeprefix(thought) if "thought\n".startswith(thought) else ""
    text = rest + "because<channel|>4 degrees"
    assert read([text], thought=thought) == Parts(content="4 degrees", reasoning="because")
    assert read(list(text), thought=thought) == Parts(content="4 degrees", reasoning="because")
    assert read(["on and on"], thought=thought).content == ""


CALLED = '{"name": "f", "parameters": {"a": 1}}'


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (CALLED, [("f", '{"a": 1}')]),
        (f"\n```json\n{CALLED}\n```\n", [("f", '{"a": 1}')]),
        (f"```tool_call\n[{CALLED}, {CALLED}]```", [("f", '{"a": 1}')] * 2),
        ('{"name": "g"}', [("g", "{}")]),
        ('{"name": "h", "parameters": {}}', []),
        ('{"name": ["f"], "parameters": {}}', []),
        ('{"name": "f", "parameters": [1]}', []),
        (f"[{CALLED}, 1]", []),
        ("[1, 2]", []),
        (CALLED[:-2], []),
        (CALLED + " and so on", []),
        ("```python\nprint()\n```", []),
        ("Well: " + CALLED, []),
        ("``", []),
        ("[" * 100_000, []),
    ],
)
def test_calls_in_json_are_the_whole_answer(text, calls):
    options = {"tools": False, "channels": False, "json_calls": {"f", "g"}}
    for pieces in ([text], [*text[:200], text[200:]]):
        whole = read(pieces, **options)
        assert [(call.name, call.arguments) for call in whole.calls] == calls
        assert whole.content == ("" if calls else text)


def test_text_that_is_no_call_is_not_held_back():
    reader = AnswerReader(channels=False, tools=False, json_calls={"f"})
    assert reader.push("  ").content == ""
    assert reader.push("Well").content == "  Well"
    assert reader.push(" {").content == " {"
