"""What a grammar demands is proposed, and its few alternatives; the model's own spelling counts."""

from __future__ import annotations

import json

import pytest
from drafters.sequences import Half

from outrider import LLM, Grammar, SamplingParams
from outrider.drafters.grammar import GrammarDrafter
from outrider.drafters.protocol import Ask, SequenceState
from outrider.drafters.tree import ROOT
from outrider.sampling.choice import TokenChooser

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "color": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer"},
    },
    "required": ["name", "color", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llm():
    return LLM("demo", drafter=None, threads=1, context=1024)


class Talk:
    """An answer under a grammar, and the drafter that reads along."""

    def __init__(self, llm: LLM, grammar: Grammar, prompt: str = "x") -> None:
        self.llm, ends = llm, llm.config.end_token_ids
        constraint = llm.parts.grammars.constraint(grammar, ends)
        params = SamplingParams(grammar=grammar)
        self.chooser = TokenChooser(params, (), ends, constraint)
        self.drafter = GrammarDrafter(llm.tokenizer)
        tokens = llm.tokenizer.encode(prompt)
        self.state = SequenceState(1, tokens, None, self.chooser, len(tokens) + 1000)  # type: ignore[arg-type]
        self.drafter.open(self.state)

    def say(self, text: str) -> None:
        for token in self.llm.tokenizer.encode(text, add_bos=False):
            self.state.tokens.append(token)
            self.chooser.push(token)
            self.proposed()

    def proposed(self, budget: int = 15) -> set[str]:
        """The texts of all paths of a draft."""
        ask = Ask(self.state, budget, Half(), fixed=True)
        self.drafter.propose([ask])
        assert all(node.depth < budget for node in ask.draft)
        paths: list[str] = []
        for node in ask.draft:
            before = "" if node.parent < 0 else paths[node.parent]
            paths.append(before + self.llm.tokenizer.piece(node.token, skip_special=False).decode())
        return set(paths)


def likeliest(talk: Talk) -> str:
    """The text of the path that begins with the first proposal and goes on with the first of each place."""
    ask = Ask(talk.state, 15, Half(), fixed=True)
    talk.drafter.propose([ask])
    text, node = "", ROOT
    while (node := next((i for i, of in enumerate(ask.draft) if of.parent == node), ROOT)) != ROOT:
        text += talk.llm.tokenizer.piece(ask.draft.nodes[node].token).decode()
    return text


def test_a_key_that_must_follow_is_proposed(llm):
    talk = Talk(llm, Grammar.json_schema(SCHEMA))
    talk.say('{"')
    assert any(path.startswith("name") for path in talk.proposed())


def test_every_value_of_an_enum_is_proposed(llm):
    talk = Talk(llm, Grammar.json_schema(SCHEMA))
    talk.say('{"name": "Ann", "color": "')
    assert {"red", "green", "blue"} <= {path.rstrip('",') for path in talk.proposed()}


def test_the_rest_of_a_value_leads_on_to_the_next_key(llm):
    talk = Talk(llm, Grammar.json_schema(SCHEMA))
    talk.say('{"name": "Ann", "color": "gr')
    assert any(path.startswith('een", "count') for path in talk.proposed())


def test_nothing_is_proposed_within_a_free_text(llm):
    talk = Talk(llm, Grammar.json_schema(SCHEMA))
    talk.say('{"name": "An')
    assert talk.proposed() == set()


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_a_draft_keeps_to_its_budget(llm, budget):
    talk = Talk(llm, Grammar.regex("[ab] that which must follow in any case[.]"))
    talk.say("a")
    assert talk.proposed(budget)


def test_white_space_is_proposed_as_the_answer_has_it(llm):
    talk = Talk(llm, Grammar.json_schema({"type": "array", "items": {"enum": ["on", "off"]}, "minItems": 9}))
    talk.say('["on",\n  "off",\n  "on')
    assert any(path.startswith('",\n  "') for path in talk.proposed())


def test_a_regex_is_proposed_to_where_it_branches(llm):
    talk = Talk(llm, Grammar.regex("The answer is (yes|no)\\."))
    paths = talk.proposed()
    assert any(path.startswith("The answer is") for path in paths)


def test_a_control_token_that_must_come_is_proposed(llm):
    token = llm.tokenizer.control_ids["<end_of_turn>"]
    talk = Talk(llm, Grammar.lark(f'start: "ab" <[{token}]> "cd"'))
    talk.say("ab")
    ask = Ask(talk.state, 15, Half(), fixed=True)
    talk.drafter.propose([ask])
    assert any(node.token == token for node in ask.draft)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_saves_passes_and_changes_nothing(llm, temperature):
    params = {"max_tokens": 90, "temperature": temperature, "seed": 3, "grammar": Grammar.json_schema(SCHEMA)}
    prompt = "A record about a red ball named Tom, of which there are 3:\n"
    (drafted,) = llm.generate(prompt, SamplingParams(**params))
    (plain,) = llm.generate(prompt, SamplingParams(**params, draft="off"))
    assert drafted.token_ids == plain.token_ids
    assert drafted.stats.accepted_by_source["grammar"] > 5
    if plain.finish_reason == "stop":
        assert set(json.loads(plain.text)) == {"name", "color", "count"}


def test_only_punctuation_is_remembered_from_answer_to_answer(llm):
    talk = Talk(llm, Grammar.json_schema(SCHEMA))
    talk.say('{"name": "secret", "color": "green", "count": 4711}')
    pieces = {llm.tokenizer.piece(token) for counts in talk.drafter._habits._of_all.values() for token in counts}
    assert pieces
    assert not any(piece.strip(b' \n\t{}[]",:') for piece in pieces)
    talk.drafter.close(talk.state)
    assert not talk.drafter._habits._answers


def test_a_line_is_indented_as_deep_as_it_is_nested(llm):
    item = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}
    talk = Talk(llm, Grammar.json_schema({"type": "array", "items": item, "minItems": 9}))
    talk.say('[\n  {\n    "a": 1\n  },\n  {\n    "a": 1\n  },\n')
    assert likeliest(talk).startswith('  {\n    "a')
    talk.say("  {\n")
    assert likeliest(talk).startswith('    "a')
