"""The next turn of conversations that templates do not take as they are, and how its answer is held and read."""

from __future__ import annotations

import json

import pytest
from chat.formats import CONTROL, GEMMA3, GEMMA4, save_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from outrider import Grammar, SamplingParams
from outrider.chat.template import ChatTemplate
from outrider.chat.turn import TurnRequest, open_turn
from outrider.errors import UsageError
from outrider.sampling.thoughts import Thoughts
from outrider.tokenizer import Tokenizer

TEMPLATES = {source: ChatTemplate(source, bos="<bos>") for source in (GEMMA3, GEMMA4)}
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + GEMMA3
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": None,
        "strict": None,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
BEGIN, CLOSE = CONTROL.index("<|channel>"), CONTROL.index("<channel|>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_file(save_tokenizer(tmp_path_factory.mktemp("turn") / "tokenizer.json"))


def user(text="hi", **fields):
    return {"role": "user", "content": text, **fields}


def model(text="yes", **fields):
    return {"role": "assistant", "content": text, **fields}


def system(text):
    return {"role": "system", "content": text}


def tool(text, **fields):
    return {"role": "tool", "content": text, **fields}


def called(arguments='{"city": "Oslo"}', number="1"):
    return {"id": number, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def turn(tokenizer, source, *messages, **asked):
    template = TEMPLATES.setdefault(source, ChatTemplate(source, bos="<bos>"))
    return open_turn(template, tokenizer, TurnRequest(messages, **asked))


def prompt(tokenizer, source, *messages, **asked):
    return tokenizer.decode(turn(tokenizer, source, *messages, **asked).ids, skip_special=False)


def turns(*texts):
    """A rendering of Gemma 3's: user and model in turns, and the beginning of the model's."""
    roles = ("user", "model")
    said = [f"<start_of_turn>{roles[i % 2]}\n{text}<end_of_turn>\n" for i, text in enumerate(texts)]
    return "<bos>" + "".join(said) + "<start_of_turn>model\n"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("a"), user("b")], turns("a\n\nb")),
        ([user("a"), model("b"), model("c"), user("d")], turns("a", "b\n\nc", "d")),
        ([system("s"), system("t"), user("a")], turns("s\n\nt\n\na")),
        ([{"role": "developer", "content": "s"}, user("a")], turns("s\n\na")),
        ([user("a"), model("b"), system("s"), user("c")], turns("a", "b", "s\n\nc")),
        ([user("a"), system("s")], turns("a\n\ns")),
        ([model("b"), user("c")], turns("", "b", "c")),
        ([system("s"), model("b"), user("c")], turns("s\n\n", "b", "c")),
        ([user("a"), model(None), user("")], turns("a", "", "")),
        (
            [user("a"), model("b"), tool("4"), user("c")],
            turns("a", "b", RESULT := "The function returned:\n```tool_output\n4\n```\n\nc"),
        ),
        ([user("a"), model("b"), tool("4")], turns("a", "b", RESULT[:-3])),
        (
            [user("a"), model("Hm", tool_calls=[called()]), tool("4", tool_call_id="1"), user("c")],
            turns(
                "a",
                'Hm\n\n{"name": "weather", "parameters": {"city": "Oslo"}}',
                RESULT.replace("The function", "weather"),
            ),
        ),
        (
            [user("a"), model(None, tool_calls=[called(), called("[1]")]), tool("4"), tool("5")],
            turns(
                "a",
                '[{"name": "weather", "parameters": {"city": "Oslo"}}, '
                '{"name": "weather", "parameters": {"value": "[1]"}}]',
                RESULT[:-3] + "\n\n" + RESULT[:-3].replace("4", "5"),
            ),
        ),
    ],
)
def test_what_gemma_3_refuses_is_merged_and_folded(tokenizer, messages, expected):
    assert prompt(tokenizer, GEMMA3, *messages) == expected


def test_a_template_without_a_system_message(tokenizer):
    assert prompt(tokenizer, NO_SYSTEM, system("s"), user("a")) == turns("s\n\na")
    with pytest.raises(UsageError, match=r"does not take these messages: never$"):
        prompt(tokenizer, "{{ raise_exception('never') }}", user())


def test_what_a_template_takes_is_not_changed(tokenizer):
    messages = [system("s"), user("a"), user("b"), model("c"), model("d"), system("t"), user("e")]
    assert prompt(tokenizer, GEMMA4, *messages) == TEMPLATES[GEMMA4].render(messages)


ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
MESSAGES = st.builds(
    lambda role, content, calls: {"role": role, "content": content, "tool_calls": calls},
    ROLES,
    st.sampled_from([None, "", "a", "the <eos>", [{"type": "text", "text": "b"}]]),
    st.lists(st.sampled_from(['{"a', "[1]", '"x"', None, "{}"]).map(called), max_size=2),
)


@given(messages=st.lists(MESSAGES, min_size=1, max_size=7), source=st.sampled_from([GEMMA3, GEMMA4, NO_SYSTEM]))
def test_no_history_locks_a_conversation(tokenizer, messages, source):
    ids = turn(tokenizer, source, *messages, tools=[WEATHER]).ids
    assert ids[0] == CONTROL.index("<bos>")
    assert CONTROL.index("<eos>") not in ids


def test_tools_are_described_where_the_template_does_not(tokenizer):
    text = prompt(tokenizer, GEMMA3, system("Be kind."), user("a"), tools=[WEATHER])
    lead, _, rest = text.partition("The functions:\n")
    assert lead.startswith("<bos><start_of_turn>user\nBe kind.\n\nYou can call functions.")
    assert '{"name": function name, "parameters": dictionary of argument name and its value}' in lead
    described, _, end = rest.partition("\n\na<end_of_turn>")
    function = WEATHER["function"]
    assert json.loads(described) == [{"name": "weather", "parameters": function["parameters"]}]
    assert end == "\n<start_of_turn>model\n"
    asked = turn(tokenizer, GEMMA3, user("a"), tools=[WEATHER])
    assert asked.markers.json_calls == {"weather"}
    assert asked.params(SamplingParams()).grammar is None
    assert "You can call" not in prompt(tokenizer, GEMMA3, user("a"), tools=[WEATHER], tool_choice="none")


def test_demanded_calls_in_json(tokenizer):
    held = turn(tokenizer, GEMMA3, user(), tools=[WEATHER], function="weather").params(SamplingParams()).grammar
    (option,) = json.loads(held.text)["anyOf"]
    assert option["properties"] == {"name": {"const": "weather"}, "parameters": WEATHER["function"]["parameters"]}


def test_references_of_a_schema_stay_its_own(tokenizer):
    def schema(kind):
        own = {"$ref": "#/$defs/it"}
        return {"properties": {"enum": own, "a": {"$ref": "#"}}, "const": own, "$defs": {"it": {"type": kind}}}

    tools = [{"function": {"name": kind, "parameters": schema(kind)}} for kind in ("string", "integer")]
    asked = turn(tokenizer, GEMMA3, user(), tools=tools)
    held = json.loads(asked.params(SamplingParams(grammar=Grammar.json_schema(schema("null")))).grammar.text)
    *calls, form = held["anyOf"]
    for at, kind, found in (
        ("#/anyOf/0/properties/parameters", "string", calls[0]["properties"]["parameters"]),
        ("#/anyOf/1/properties/parameters", "integer", calls[1]["properties"]["parameters"]),
        ("#/anyOf/2", "null", form),
    ):
        moved = schema(kind)
        moved["properties"] = {"enum": {"$ref": f"{at}/$defs/it"}, "a": {"$ref": at}}
        assert found == moved


@pytest.mark.parametrize("source", [GEMMA3, GEMMA4])
def test_the_answer_goes_on_with_the_last_message(tokenizer, source):
    text = prompt(tokenizer, source, user("a"), model("The answer \n"), continue_final_message=True)
    assert text.endswith("model\nThe answer \n")
    assert prompt(tokenizer, source, user("a"), model(""), continue_final_message=True).endswith("model\n")
    assert prompt(tokenizer, source, user("a"), model("b"), add_generation_prompt=False).endswith(
        ("<end_of_turn>\n", "<turn|>\n")
    )
    with pytest.raises(UsageError, match="the last one is not"):
        prompt(tokenizer, source, user("a"), continue_final_message=True)
    with pytest.raises(UsageError, match="leaves out the message"):
        prompt(tokenizer, "{{ messages[0].content }}", user("a"), model("b"), continue_final_message=True)


@pytest.mark.parametrize(
    ("asked", "thinks"),
    [
        ({}, False),
        ({"template_kwargs": {"enable_thinking": True}}, True),
        ({"template_kwargs": {"enable_thinking": "true"}}, True),
        ({"template_kwargs": {"enable_thinking": " False"}}, False),
        ({"template_kwargs": {"enable_thinking": "false"}, "reasoning_effort": "high"}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "xhigh"}, True),
        ({"thinking_budget": 100}, True),
        ({"thinking_budget": 0, "reasoning_effort": "high"}, False),
        ({"thinking_budget": 100, "template_kwargs": {"enable_thinking": "false"}}, False),
    ],
)
def test_whether_the_model_thinks(tokenizer, asked, thinks):
    assert TurnRequest((), **asked).thinks is thinks
    assert ("<|think|>" in prompt(tokenizer, GEMMA4, user(), **asked)) is thinks


def test_variables_reach_the_template_and_take_nothing_from_it(tokenizer):
    source = "{{ bos_token }}{{ messages[0].content }}{{ mood }}{{ reasoning_effort }}"
    variables = {"mood": "<eos>", "bos_token": "x", "messages": []}
    ids = turn(tokenizer, source, user("a"), template_kwargs=variables, reasoning_effort="low").ids
    assert tokenizer.decode(ids, skip_special=False) == "<bos>a<eos>low"
    assert [token for token in ids if token in tokenizer.hidden] == [CONTROL.index("<bos>")]


@pytest.mark.parametrize(
    ("asked", "messages", "thought", "expected"),
    [
        ({}, [user()], None, Thoughts(BEGIN, CLOSE)),
        ({"reasoning_effort": "high"}, [user()], None, Thoughts(BEGIN, CLOSE)),
        ({"thinking_budget": 9}, [user()], None, Thoughts(BEGIN, CLOSE, budget=9)),
        ({"thinking_budget": 0}, [user()], None, Thoughts(BEGIN, CLOSE, budget=0)),
        ({"reasoning_effort": "high"}, [user(), tool("4")], "thought\n", Thoughts(BEGIN, CLOSE, opened=True)),
        ({}, [user(), tool("4")], None, Thoughts(BEGIN, CLOSE)),  # opened and closed by the template
        (
            {"continue_final_message": True},
            [user("<|channel>"), model("<|channel>thought\n")],
            None,
            Thoughts(BEGIN, CLOSE),
        ),
    ],
)
def test_thoughts_that_the_prompt_opens(tokenizer, asked, messages, thought, expected):
    found = turn(tokenizer, GEMMA4, *messages, **asked)
    assert found.markers.thought == thought
    assert found.params(SamplingParams()).thoughts == expected
    assert (
        turn(tokenizer, GEMMA3, user(), **{**asked, "continue_final_message": False}).params(SamplingParams()).thoughts
        is None
    )


@pytest.mark.parametrize(
    ("asked", "grammar", "budget"),
    [
        ({}, Grammar.regex("a"), 0),
        ({"reasoning_effort": "low"}, Grammar.regex("a"), None),
        ({"reasoning_effort": "low", "thinking_budget": 5}, Grammar.regex("a"), 5),
        ({"tools": [WEATHER], "tool_choice": "required"}, None, 0),
        ({"tools": [WEATHER], "function": "weather", "reasoning_effort": "low"}, None, None),
    ],
)
def test_no_thought_comes_before_a_form_unless_asked_for(tokenizer, asked, grammar, budget):
    params = turn(tokenizer, GEMMA4, user(), **asked).params(SamplingParams(grammar=grammar))
    assert params.thoughts.budget == budget
    assert (params.grammar == grammar) is (grammar is not None)


def test_a_form_together_with_tools(tokenizer):
    asked = turn(tokenizer, GEMMA4, user(), tools=[WEATHER])
    held = asked.params(SamplingParams(grammar=Grammar.json_object(), stop_token_ids=(5,)))
    assert held.grammar.text.startswith("start: call+ | form\n")
    assert held.stop_token_ids == (5, CONTROL.index("<|tool_response>"))
    for source in (GEMMA3, GEMMA4):
        with pytest.raises(UsageError, match="a grammar of this kind and tools exclude each other"):
            turn(tokenizer, source, user(), tools=[WEATHER]).params(SamplingParams(grammar=Grammar.lark('start: "a"')))
        alone = turn(tokenizer, source, user(), tools=[WEATHER], tool_choice="none")
        assert alone.params(SamplingParams(grammar=Grammar.json_object())).grammar == Grammar.json_object()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"reasoning_effort": "extreme"},
            "reasoning_effort must be one of none, minimal, low, medium, high, xhigh, max, not",
        ),
        ({"tools": [{"name": "f"}]}, r"tools\[0\] must be"),
        ({"tools": ["f"]}, r"tools\[0\] must be"),
    ],
)
def test_wrong_asks_are_explained(asked, says):
    with pytest.raises(UsageError, match=says):
        TurnRequest((), **asked)
