"""The prompts of agents and editors: every grammar compiles and bounds its answer; every rewrite is a small edit."""

from __future__ import annotations

import json
from difflib import SequenceMatcher

import pytest
from fake_llm import ByteTokenizer

from outrider import SamplingParams
from outrider.bench.agent_prompts import AGENT_CATEGORIES, agent_prompts, rewritten
from outrider.bench.prompt import PromptFormat, render
from outrider.bench.shipped_text import shipped_lines, shipped_text
from outrider.chat.markers import Markers
from outrider.chat.turn import Turn, TurnRequest
from outrider.sampling.constraint import GrammarCompiler

FORMS = pytest.mark.parametrize("prompt_format", [PromptFormat.base, PromptFormat.chat])
HELD = [prompt for category in ("tool-calls", "schemas") for prompt in agent_prompts(category, PromptFormat.base)]


@pytest.fixture(scope="module")
def compiler():
    return GrammarCompiler(lambda token: bytes([token]), 256, (), 256)


@pytest.mark.parametrize("number", range(40))
def test_every_grammar_compiles(compiler, fake, number):
    """A base model's, and the one of a model with control tokens for calls."""
    _, params = render(HELD[number], fake("demo"), SamplingParams())
    compiler.compile(params.grammar)
    tools = HELD[number].tools
    if tools is not None:
        request = TurnRequest((), tools.listed, tools.tool_choice, tools.function)
        turn = Turn([], Markers(tools=True), request, ByteTokenizer())
        compiler.compile(turn.params(SamplingParams()).grammar)


def schemas():
    """The schema of every answer: of the functions that may be called, by their number of alternatives."""
    for prompt in HELD:
        if prompt.tools is not None:
            functions = [tool["function"] for tool in prompt.tools.listed]
            demanded = [of for of in functions if prompt.tools.function in (None, of["name"])]
            yield [of["parameters"] for of in demanded]
        elif prompt.grammar.kind == "json_schema":
            yield [json.loads(prompt.grammar.text)]


def parts(schema):
    """A schema and all schemas in it."""
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("$defs", {}).values()]
    for part in [*inner, *([schema["items"]] if "items" in schema else [])]:
        yield from parts(part)


def test_every_answer_is_bounded():
    for schema in (part for alternatives in schemas() for one in alternatives for part in parts(one)):
        match schema.get("type"):
            case "string":
                assert schema.keys() & {"maxLength", "enum", "pattern"}, schema
            case "number":
                assert {"minimum", "maximum", "multipleOf"} <= schema.keys()
            case "integer":
                assert {"minimum", "maximum"} <= schema.keys()
            case "array":
                assert "maxItems" in schema


def fixed(schema):
    """Whether only scalars can differ between two answers: no optional key, no array, no union, no text at will."""
    return not any(
        part.keys() & {"anyOf", "items"}
        or set(part.get("required", ())) != set(part.get("properties", ()))
        or part.get("maxLength", 0) > 60
        for part in parts(schema)
    )


def test_at_most_a_third_are_objects_of_fixed_keys():
    count = sum(len(alternatives) == 1 and fixed(alternatives[0]) for alternatives in schemas())
    assert 3 <= count <= len(HELD) // 3


def test_all_kinds_of_grammar_and_sizes_of_tool_sets():
    kinds = [prompt.grammar.kind for prompt in HELD if prompt.grammar is not None]
    assert {kind: kinds.count(kind) for kind in kinds} == {"json_schema": 12, "regex": 4, "lark": 4}
    sets = {prompt.tools.text for prompt in HELD if prompt.tools is not None}
    assert sorted(len(json.loads(text)) for text in sets) == [3, 4, 5, 6, 7, 8, 12]
    choices = [prompt.tools.function is None for prompt in HELD if prompt.tools is not None]
    assert choices.count(True) > choices.count(False) > 4


@FORMS
def test_a_rewrite_has_its_file_in_the_prompt_and_as_the_prediction(prompt_format):
    for prompt, line in zip(agent_prompts("rewrites", prompt_format), shipped_lines("rewrites.jsonl"), strict=True):
        before = shipped_text(f"files/{line['file']}.txt") + "\n"
        assert prompt.prediction == before
        assert 40 <= before.count("\n") <= 120
        assert before in (prompt.text or prompt.messages[-1].content)


def test_a_rewrite_is_a_small_edit_that_a_base_model_finds_begun():
    for prompt, line in zip(agent_prompts("rewrites", PromptFormat.base), shipped_lines("rewrites.jsonl"), strict=True):
        after = rewritten(line)
        assert 0.6 < SequenceMatcher(None, prompt.prediction.split("\n"), after.split("\n")).ratio() < 1, line["file"]
        begun = "".join(after.splitlines(keepends=True)[: line["begun"]])
        assert prompt.text.endswith(f" =====\n{begun}")
        assert 0 < line["begun"] < after.count("\n") / 2 + 1
        for stop in prompt.stop:
            assert prompt.text.count(stop) == 2
            assert stop not in after


def test_the_kinds_of_prompt_go_through_the_command(fake, call):
    ran = call(
        *("bench", "decode", "demo", "--json", "--prompts", "20", "--seconds", "0", "--max-tokens", "400"),
        *(option for category in AGENT_CATEGORIES for option in ("--category", category)),
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert {name: of["prompts"] for name, of in found["categories"].items()} == dict.fromkeys(AGENT_CATEGORIES, 20)
    params = [params for _, params in fake.made[0].asked[2:]]
    assert sum(of.grammar is not None for of in params) == 80
    assert sum(bool(of.prediction) for of in params) == 40


@pytest.mark.full
def test_nearly_all_of_the_demos_answers_end_before_400_tokens():
    """A number has no longest form in JSON Schema, and so small a model may write its digits without end."""
    from outrider import LLM

    with LLM("demo") as llm:
        asked = [render(prompt, llm, SamplingParams(max_tokens=400)) for prompt in HELD]
        found = [llm.generate([ids], params)[0].finish_reason for ids, params in asked]
    assert found.count("stop") >= len(HELD) - 2
