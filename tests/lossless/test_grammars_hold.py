"""Answers held to a grammar: they fit it, they end where it ends, and drafting does not change a token of them."""

from __future__ import annotations

import json
import random
import re

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_tokenizer import SPECIAL, speak_json
from lossless.stand_in import StandInDrafter
from tiny_checkpoints import make_assistant, save_folder, save_gguf

from outrider import LLM, Grammar, SamplingParams
from outrider.errors import UsageError
from outrider.sampling.thoughts import Thoughts

PATTERN = "(ab|abc)*x|[a-c]{1,4}"
WORDS = Grammar.lark('start: "[" word ("," word)* "]"\nword: /[a-c]+/ | start')


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory):
    """A tiny model with its drafter; it can write any text."""
    import gguf

    root, model = tmp_path_factory.mktemp("grammars"), tiny("gemma4-e2b").model
    path = save_gguf(model, root / "tiny.gguf", gguf.GGMLQuantizationType.Q4_0)
    assistant = save_folder(make_assistant(model.config.get_text_config(), ordered=True, seed=1), root / "drafter")
    llm = LLM(path, drafter=assistant, threads=2, context=256)
    speak_json(llm)
    return llm


def schemas():
    """Small schemas of every common kind; what they allow is short, so that most answers end."""
    leaf = st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"enum": ["ab", "name", 12, None]},
            {"type": "integer", "minimum": -9, "maximum": 120},
            {"type": "string", "maxLength": 4},
            {"type": "string", "pattern": "^[a-c]{1,3}$"},
            {"const": {"a": [1, 2]}},
        ]
    )

    def larger(inner):
        objects = st.dictionaries(st.sampled_from(["a", "name", "ab"]), inner, min_size=1, max_size=3).map(
            lambda properties: {
                "type": "object",
                "properties": properties,
                "required": sorted(properties)[:2],
                "additionalProperties": False,
            }
        )
        arrays = inner.map(lambda items: {"type": "array", "items": items, "minItems": 1, "maxItems": 3})
        return objects | arrays | st.lists(inner, min_size=2, max_size=2).map(lambda several: {"anyOf": several})

    return st.recursive(leaf, larger, max_leaves=4)


@st.composite
def settings_of_requests(draw):
    """Greedy and sampled, with and without all that acts on logits."""
    return {
        "max_tokens": draw(st.sampled_from([3, 20, 80])),
        "temperature": draw(st.sampled_from([0.0, 0.0, 0.7, 1.5])),
        "top_k": draw(st.sampled_from([0, 0, 20])),
        "min_p": draw(st.sampled_from([0.0, 0.0, 0.05])),
        "presence_penalty": draw(st.sampled_from([0.0, 1.5])),
        "repetition_penalty": draw(st.sampled_from([1.0, 1.3])),
        "logit_bias": draw(st.sampled_from([{}, {3 + ord(" "): -float("inf"), 3 + ord("a"): 5.0}])),
        "min_tokens": draw(st.sampled_from([0, 0, 2])),
        "logprobs": draw(st.sampled_from([None, 2])),
        "seed": draw(st.integers(0, 2**64 - 1)),
    }


def tokens_of(text):
    return [3 + byte for byte in text.encode()]


def answers(llm, prompt, params, draft, right=None):
    """Without drafts, and then with the drafters' own and those of one that is right as often as asked."""
    plain = llm.generate([prompt], SamplingParams(**params, draft="off"))[0]
    own = llm.parts.engine.planner.drafters
    if right is not None:
        stand_in = StandInDrafter(random.Random(params["seed"]), llm.parts.target.vocabulary, right)
        stand_in.know(prompt, plain.token_ids)
        llm.parts.engine.planner.drafters = [*own, stand_in]
    try:
        drafted = llm.generate([prompt], SamplingParams(**params, draft=draft))[0]
    finally:
        llm.parts.engine.planner.drafters = own
    return plain, drafted


def same(a, b):
    return (a.token_ids, a.text, a.finish_reason, a.logprobs) == (b.token_ids, b.text, b.finish_reason, b.logprobs)


@settings(max_examples=60, deadline=None)
@given(
    schema=schemas(),
    params=settings_of_requests(),
    draft=st.one_of(st.just("auto"), st.integers(1, 20)),
    right=st.sampled_from([None, 0.0, 0.5, 1.0]),
)
def test_json_fits_its_schema_and_no_draft_changes_it(llm, schema, params, draft, right):
    params["grammar"] = Grammar.json_schema(schema)
    prompt = tokens_of('write {"a": 12, "name": "ab"} or {"a": 12} or ["ab", "ab", "ab"]: ')
    plain, drafted = answers(llm, prompt, params, draft, right)
    assert same(plain, drafted)
    if plain.finish_reason == "stop":
        jsonschema.validate(json.loads(plain.text), schema)
    else:
        assert len(plain.token_ids) == params["max_tokens"]


@settings(max_examples=40, deadline=None)
@given(
    grammar=st.sampled_from([Grammar.regex(PATTERN), WORDS, Grammar.json_object()]),
    params=settings_of_requests(),
    draft=st.one_of(st.just("auto"), st.integers(1, 20)),
    right=st.sampled_from([None, 0.5, 1.0]),
    stop=st.sampled_from([(), ("b,",), ("bc",)]),
    ignore_end=st.booleans(),
)
def test_other_grammars_with_stops_and_ends(llm, grammar, params, draft, right, stop, ignore_end):
    params |= {"grammar": grammar, "stop": stop, "ignore_end": ignore_end}
    plain, drafted = answers(llm, tokens_of("[ab,ab,[c]] abcabcx [ab,ab] "), params, draft, right)
    assert same(plain, drafted)
    if plain.finish_reason == "stop" and not stop and grammar.kind == "regex":
        assert re.fullmatch(PATTERN, plain.text)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_grammar_ends_inside_an_accepted_run(llm, temperature):
    """Every draft is right and goes on past the end: nothing after the end is kept."""
    prompt = tokens_of("abc")
    grammar = Grammar.regex("[ab]{7}c")
    params = {"max_tokens": 40, "temperature": temperature, "seed": 4, "grammar": grammar, "ignore_end": True}
    plain = llm.generate([prompt], SamplingParams(**params, draft="off"))[0]
    assert plain.finish_reason == "stop"
    assert re.fullmatch("[ab]{7}c", plain.text)
    stand_in = StandInDrafter(random.Random(0), llm.parts.target.vocabulary, 1.0)
    stand_in.know(prompt, [*plain.token_ids, *tokens_of("abcabc")])
    own, llm.parts.engine.planner.drafters = llm.parts.engine.planner.drafters, [stand_in]
    try:
        found = [llm.generate([prompt], SamplingParams(**params, draft=20))[0] for _ in range(5)]
    finally:
        llm.parts.engine.planner.drafters = own
    assert all(same(plain, out) for out in found)
    assert any(out.stats.accepted for out in found)


def test_requests_with_and_without_grammars_share_a_pass(llm):
    prompt = tokens_of('{"a": 12} {"a": 12} ')
    several = [
        SamplingParams(max_tokens=20, grammar=Grammar.json_object(), seed=1, temperature=1.0, draft=4),
        SamplingParams(max_tokens=20, draft=4),
        SamplingParams(max_tokens=20, grammar=Grammar.regex(PATTERN), draft=4),
    ]
    alone = [llm.generate([prompt], params)[0] for params in several]
    running = [llm.parts.engine.add(list(prompt), params) for params in several]
    while any(request.finish_reason is None for request in running):
        llm.parts.engine.step()
    assert all(same(request.output(), out) for request, out in zip(running, alone, strict=True))


def test_a_wrong_grammar_is_refused_and_leaves_nothing_behind(llm):
    with pytest.raises(UsageError, match="the regex cannot be used"):
        llm.generate([[5, 6]], SamplingParams(grammar=Grammar.regex("(")))
    with pytest.raises(UsageError, match="the regex cannot be used"):
        llm.parts.engine.add([5, 6], SamplingParams(grammar=Grammar.regex("(")))
    assert not llm.parts.engine._running
    assert llm.generate([[5, 6]], SamplingParams(max_tokens=2, ignore_end=True))[0].finish_reason == "length"


def test_a_grammar_that_becomes_too_much_work_says_so(llm, monkeypatch):
    from outrider.sampling import constraint

    monkeypatch.setitem(constraint._LIMITS, "max_items_in_row", 30)
    params = SamplingParams(grammar=Grammar.lark('start: s "!"\ns: s s | "a" | "b"'), logit_bias={3 + ord("a"): 100})
    with pytest.raises(UsageError, match=r"the grammar cannot go on after \d+ tokens: "):
        llm.generate([[5, 6]], params)
    assert not llm.parts.engine._running


@pytest.mark.parametrize("draft", ["off", 6])
def test_stop_tokens_beside_a_grammar(llm, draft):
    """One that is text comes where the grammar allows its text; a control token, where the grammar may end."""
    x, control = 3 + ord("x"), 259
    text = {"grammar": Grammar.regex("a{3}xa{3}"), "stop_token_ids": [x], "logit_bias": {x: 100.0}}
    for drafted in answers(llm, [2, 5], {"seed": 1, "max_tokens": 20, **text}, draft, right=1.0):
        assert (drafted.text, drafted.token_ids[-1], drafted.finish_reason) == ("aaa", x, "stop")
    ended = {"grammar": Grammar.regex("(abc){2,9}"), "stop_token_ids": [control], "logit_bias": {control: 100.0}}
    for drafted in answers(llm, [2, 5], {"seed": 1, "max_tokens": 40, **ended}, draft, right=1.0):
        assert (drafted.text, drafted.token_ids[-1], drafted.finish_reason) == ("abcabc", control, "stop")


THINK, ANSWER = 259 + SPECIAL.index("<|channel>"), 259 + SPECIAL.index("<channel|>")


@settings(max_examples=40, deadline=None)
@given(
    params=settings_of_requests(),
    draft=st.one_of(st.just("auto"), st.integers(1, 20)),
    right=st.sampled_from([None, 0.5, 1.0]),
    opened=st.booleans(),
    budget=st.sampled_from([None, 0, 1, 7]),
    grammar=st.sampled_from([None, Grammar.regex(PATTERN), Grammar.json_object()]),
    stop=st.sampled_from([(), ("b,",), ("a",)]),
)
def test_thoughts_with_budgets_forms_and_stops(llm, params, draft, right, opened, budget, grammar, stop):
    """The budget is exact, the form follows the thought, no stop text is found in it; and no draft changes a token."""
    params["logit_bias"] = {THINK: 6.0, ANSWER: -2.0}
    params |= {"thoughts": Thoughts(THINK, ANSWER, opened, budget), "grammar": grammar, "stop": stop}
    params |= {"keep_special": SPECIAL}
    plain, drafted = answers(llm, tokens_of("[ab,ab,[c]] abcabcx [ab,ab] "), params, draft, right)
    assert same(plain, drafted)
    assert plain.stats.reasoning_tokens == drafted.stats.reasoning_tokens
    inside, used = opened, 0
    for token in plain.token_ids:
        if used == budget:
            assert token == ANSWER if inside else token != THINK
        used += inside and token != ANSWER
        inside = token != ANSWER if inside else token == THINK
    tokens = ([THINK] if opened else []) + list(plain.token_ids)
    thought = tokens[1 : tokens.index(ANSWER) if ANSWER in tokens else None] if tokens[:1] == [THINK] else []
    if grammar is not None:
        assert plain.stats.reasoning_tokens == len(thought)
        answer = plain.text.partition("<channel|>")[2] if tokens[:1] == [THINK] else plain.text
        if plain.finish_reason == "stop" and not stop and ANSWER in tokens:
            assert re.fullmatch(PATTERN, answer) if grammar.kind == "regex" else isinstance(json.loads(answer), dict)


@pytest.mark.parametrize("draft", ["off", 6])
def test_a_stop_text_is_found_behind_the_thought_alone(llm, draft):
    """The biases write "a" in the thought, and close it after five tokens by the budget; then "ba" stops."""
    a, b = 3 + ord("a"), 3 + ord("b")
    thoughts = Thoughts(THINK, ANSWER, opened=True, budget=5)
    params = {"thoughts": thoughts, "stop": ("a",), "logit_bias": {a: 100.0}, "max_tokens": 20, "seed": 1}
    for out in answers(llm, [2, b], params, draft, right=1.0):
        assert out.token_ids == (a, a, a, a, a, ANSWER, a)
        assert (out.text, out.finish_reason, out.stats.reasoning_tokens) == ("aaaaa", "stop", 5)


def test_a_stop_token_of_the_prompt_ended_nothing(llm):
    x = 3 + ord("x")
    out = llm.generate([[2, x]], SamplingParams(grammar=Grammar.regex("()"), stop_token_ids=(x,), ignore_end=True))[0]
    assert (out.token_ids, out.finish_reason, out.stop_reason) == ((), "stop", None)
