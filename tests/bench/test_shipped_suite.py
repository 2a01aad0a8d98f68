"""The prompts that ship: sixteen categories in two formats, twenty of each, and every one of its own."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import pytest

from outrider.bench.agent_prompts import AGENT_CATEGORIES
from outrider.bench.prompt import PromptFormat
from outrider.bench.suite import (
    CATEGORIES,
    DRAFTER_CATEGORIES,
    choose_prompts,
    compose,
    questions,
    retrieval_prompts,
    sections,
    shipped_prompts,
)

FORMS = pytest.mark.parametrize("prompt_format", [PromptFormat.base, PromptFormat.chat])


ALL = (*CATEGORIES, *AGENT_CATEGORIES)


def all_prompts(prompt_format):
    return shipped_prompts(categories=ALL, prompt_format=prompt_format)


def said(prompt):
    """What a prompt says, whatever its format."""
    return prompt.text or "\n".join(message.content for message in prompt.messages)


@FORMS
def test_twenty_prompts_of_every_category(prompt_format):
    assert list(Counter(prompt.category for prompt in all_prompts(prompt_format)).items()) == [
        (name, 20) for name in ALL
    ]


def test_no_prompt_is_there_twice():
    texts = Counter(
        said(prompt).strip()
        for prompt_format in (PromptFormat.base, PromptFormat.chat)
        for prompt in all_prompts(prompt_format)
    )
    assert [text for text, number in texts.items() if number > 1] == []


def test_base_prompts_are_texts_to_go_on_from():
    for prompt in all_prompts(PromptFormat.base):
        assert prompt.messages == ()
        # A space at the end is the beginning of the next token. A line that has ended may do so.
        assert prompt.text.strip()
        assert not prompt.text.endswith((" ", "\t", "\n\n\n")), prompt


def test_chat_prompts_end_with_a_users_message():
    for prompt in all_prompts(PromptFormat.chat):
        assert prompt.text == ""
        assert prompt.messages[-1].role == "user"


@FORMS
def test_retrieval_prompts_have_three_to_four_and_a_half_thousand_tokens(prompt_format):
    """At some 4 characters each, with room for documents that have more or fewer."""
    prompts = retrieval_prompts(prompt_format)
    assert [len(said(prompt)) for prompt in prompts if not 9_000 <= len(said(prompt)) <= 20_000] == []


@FORMS
def test_a_retrieval_prompt_holds_its_passage_at_its_depth(prompt_format):
    for prompt, line in zip(retrieval_prompts(prompt_format), questions(), strict=True):
        assert 0 <= line["depth"] <= 1
        before, found, after = said(prompt).partition(f"\n\n{line['passage']}\n\n")
        assert found, line
        assert line["passage"] not in before + after
        assert after.endswith(line[prompt_format.value])
        title, *parts = sections(line["document"])
        assert before.split("\n\n")[0] == title
        assert before.count("\n\n") == round(line["depth"] * len(parts))


def test_retrieval_asks_at_all_depths():
    assert {min(int(4 * line["depth"]), 3) for line in questions()} == {0, 1, 2, 3}


def test_no_two_retrieval_prompts_begin_alike_for_long():
    texts = [said(prompt) for prompt in retrieval_prompts(PromptFormat.base)]
    for one, other in combinations(texts, 2):
        start = len(one) // 5
        assert one[:start] != other[:start]


def test_the_suite_is_the_same_every_time():
    for prompt_format in (PromptFormat.base, PromptFormat.chat):
        assert all_prompts(prompt_format) == all_prompts(prompt_format)
    line = questions()[0]
    one, again, other = (compose(line["document"], line["passage"], line["depth"], seed) for seed in (0, 0, 1))
    assert one == again
    assert one != other
    assert sorted(one.split("\n\n")) == sorted(other.split("\n\n"))


def test_the_drafters_figures_are_over_short_categories_that_ship():
    assert [name for name in CATEGORIES if name in DRAFTER_CATEGORIES] == list(DRAFTER_CATEGORIES)
    assert "retrieval" not in DRAFTER_CATEGORIES
    assert {prompt.category for prompt in shipped_prompts(1)} == set(DRAFTER_CATEGORIES)


@FORMS
def test_usually_four_of_each_are_decoded(prompt_format):
    chosen = Counter(prompt.category for prompt in choose_prompts("shipped", (), None)(prompt_format))
    assert chosen == dict.fromkeys(CATEGORIES, 4)


@FORMS
def test_what_agents_send_is_decoded_when_it_is_named(prompt_format):
    named = ["rewrites", "prose", "tool-calls"]
    chosen = Counter(prompt.category for prompt in choose_prompts("shipped", named, 20)(prompt_format))
    assert list(chosen.items()) == [("prose", 20), ("tool-calls", 20), ("rewrites", 20)]


def test_the_whole_suite_goes_through_the_command(fake, call):
    fake.chat = object()
    ran = call("bench", "decode", "demo", "--json", "--prompts", "1", "--seconds", "0")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert {name: of["prompts"] for name, of in found["categories"].items()} == dict.fromkeys(CATEGORIES, 1)
    assert list(found["categories"]) == list(CATEGORIES)
