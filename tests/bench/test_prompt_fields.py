"""A prompt's grammar, tools, prediction and stop texts: read or refused by name, and part of both answers."""

from __future__ import annotations

import json

import pytest

from outrider import Grammar, SamplingParams
from outrider.bench.pairs import PairDecoder, longest_prompt
from outrider.bench.prompt import Message, Prompt, PromptFormat, Tools, render
from outrider.bench.prompt_file import read_prompt_file, read_prompt_lines
from outrider.errors import UsageError

CALL = {"type": "function", "function": {"name": "call", "parameters": {"type": "object", "properties": {}}}}
NOTE = {"type": "function", "function": {"name": "note", "description": "Keep a note."}}
NAMED = {"type": "function", "function": {"name": "note"}}


def read(**line):
    (prompt,) = read_prompt_lines(json.dumps(line).encode(), "some.jsonl", "own")
    return prompt


@pytest.mark.parametrize(
    ("given", "grammar"),
    [
        ({"json_schema": {"type": "object"}}, Grammar.json_object()),
        ({"json_schema": True}, Grammar.json_schema(True)),
        ({"regex": "a+"}, Grammar.regex("a+")),
        ({"lark": 'start: "a"'}, Grammar.lark('start: "a"')),
    ],
)
def test_a_grammar(given, grammar):
    assert read(prompt="x", grammar=given) == Prompt("own", "x", grammar=grammar)


def test_tools_a_prediction_and_stop_texts():
    hello = (Message("user", "Hello"),)
    messages = [{"role": "user", "content": "Hello"}]
    both = json.dumps([CALL, NOTE])
    assert read(messages=messages, tools=[CALL, NOTE]) == Prompt("own", messages=hello, tools=Tools(both))
    required = read(messages=messages, tools=[CALL, NOTE], tool_choice="required")
    assert required == Prompt("own", messages=hello, tools=Tools(both, "required"))
    assert read(prompt="x", tools=[CALL, NOTE], tool_choice=NAMED).tools == Tools(both, function="note")
    assert read(prompt="x", prediction="a\n", stop="b") == Prompt("own", "x", prediction="a\n", stop=("b",))
    assert read(prompt="x", stop=["b", "c"]).stop == ("b", "c")


GRAMMAR = '"grammar": expected an object with one of "json_schema" (a schema), "regex" (a text) or "lark" (a text)'
TOOLS = '"tools": expected a list of functions as in OpenAI\'s API, which is not empty'
CHOICE = '"tool_choice": expected one of auto, none, required, or {"type": "function", "function": {"name": ...}} with'
STOP = '"stop": expected a text or a list of texts, none of them empty'


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"grammar": "a+"}, GRAMMAR),
        ({"grammar": {}}, GRAMMAR),
        ({"grammar": {"regex": "a", "lark": "b"}}, GRAMMAR),
        ({"grammar": {"json_schema": "{}"}}, GRAMMAR),
        ({"grammar": {"regex": None}}, GRAMMAR),
        ({"grammar": {"ebnf": "a"}}, GRAMMAR),
        ({"grammar": {"regex": ""}}, '"grammar": the regex is empty'),
        ({"tools": {}}, TOOLS),
        ({"tools": []}, TOOLS),
        ({"tools": ["call"]}, '"tools": tools[0] must be {"type": "function"'),
        ({"tools": [CALL, {"type": "function", "function": {"name": "a b"}}]}, '"tools": tools[1] has the name'),
        ({"tools": [CALL], "tool_choice": "any"}, f"{CHOICE} the name of one of the tools (call)"),
        ({"tools": [CALL], "tool_choice": NAMED}, CHOICE),
        ({"tools": [CALL], "tool_choice": {"function": []}}, CHOICE),
        ({"tools": [CALL], "tool_choice": [{}]}, CHOICE),
        ({"tool_choice": "required"}, '"tool_choice": expected with "tools"'),
        ({"prediction": ""}, '"prediction": expected a text that is not empty'),
        ({"prediction": {"type": "content"}}, '"prediction": expected a text that is not empty'),
        ({"stop": ""}, STOP),
        ({"stop": []}, STOP),
        ({"stop": ["a", 3]}, STOP),
    ],
)
def test_a_malformed_field_is_named(tmp_path, fields, expected):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"prompt": "x"}) + "\n" + json.dumps({"prompt": "x", **fields}))
    with pytest.raises(UsageError) as refused:
        read_prompt_file(path)
    assert str(refused.value).startswith(f"{path}, line 2: {expected}")


@pytest.mark.parametrize("fields", [{"grammar": {"regex": "a"}}, {"tools": [CALL]}, {"prediction": "a"}, {"stop": "a"}])
def test_turns_have_none_of_them(fields):
    (name,) = fields
    with pytest.raises(UsageError, match=f'line 1: "{name}": expected with "prompt" or "messages", not with "turns"'):
        read(turns=["x"], **fields)


def test_a_grammar_that_cannot_be_used_names_its_prompt_before_anything_is_decoded(fake):
    llm = fake("demo")

    def check(params):
        if params.grammar == Grammar.regex("("):
            raise UsageError("the regex cannot be used: unclosed group")

    llm.check = check
    prompts = [read(prompt="Once"), read(prompt="Twice", grammar={"regex": "("})]
    with pytest.raises(UsageError, match=r"prompt 2 \(own\), 'Twice'\.\.\.: the regex cannot be used: unclosed group"):
        longest_prompt(prompts, llm, SamplingParams())
    assert llm.asked == []


def test_both_answers_have_the_prompts_own_fields(fake):
    llm = fake("demo")
    prompt = read(prompt="x", grammar={"regex": "a+"}, prediction="aa", stop="b")
    PairDecoder(llm, None, SamplingParams(max_tokens=8)).decode(prompt, ("plain", "drafted"))
    PairDecoder(llm, None, SamplingParams(max_tokens=8)).decode(read(prompt="x"), ("plain", "drafted"))
    for _, params in llm.asked[:2]:
        assert (params.grammar, params.prediction, params.stop) == (Grammar.regex("a+"), "aa", ("b",))
    for _, params in llm.asked[2:]:
        assert (params.grammar, params.prediction, params.stop) == (None, "", ())
    assert [params.draft for _, params in llm.asked] == ["off", "auto"] * 2


def text_of(ids):
    return bytes(ids[1:]).decode()


def test_a_base_model_reads_of_its_tools_and_calls_them_in_json(fake):
    prompt = read(messages=[{"role": "user", "content": "Hello"}], tools=[CALL, NOTE], tool_choice="required")
    ids, params = render(prompt.in_format(PromptFormat.base), fake("demo"), SamplingParams())
    assert text_of(ids).startswith("You can call functions.")
    assert text_of(ids).endswith(f"{json.dumps([CALL['function'], NOTE['function']])}\n\nUser: Hello\n\nAssistant:")
    names = [option["properties"]["name"]["const"] for option in json.loads(params.grammar.text)["anyOf"]]
    assert names == ["call", "note"]


def test_a_named_function_is_the_only_one_that_can_be_called(fake):
    prompt = read(prompt="Hello", tools=[CALL, NOTE], tool_choice=NAMED)
    for prompt_format in PromptFormat.base, PromptFormat.chat:
        _, params = render(prompt.in_format(prompt_format), fake("demo"), SamplingParams())
        assert "note" in params.grammar.text
        assert '"call"' not in params.grammar.text.replace('"call+"', "")


@pytest.mark.parametrize(("choice", "described"), [("auto", True), ("none", False)])
def test_a_call_that_is_not_demanded_leaves_the_answer_free(fake, choice, described):
    ids, params = render(read(prompt="Hello", tools=[NOTE], tool_choice=choice), fake("demo"), SamplingParams())
    assert ("Keep a note." in text_of(ids)) is described
    assert params.grammar is None


def test_a_conversation_keeps_its_fields_in_either_format():
    prompt = read(messages=[{"role": "user", "content": "Hello"}], grammar={"regex": "a"}, prediction="a", stop="b")
    base = prompt.in_format(PromptFormat.base)
    assert base.text == "User: Hello\n\nAssistant:"
    assert base.messages == ()
    for other in base, base.in_format(PromptFormat.chat):
        assert (other.grammar, other.prediction, other.stop) == (prompt.grammar, "a", ("b",))
