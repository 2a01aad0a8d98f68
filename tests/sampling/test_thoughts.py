"""Thoughts: a budget closes them, a form follows them, and what is asked about drafts leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider import Grammar, SamplingParams
from outrider.errors import UsageError
from outrider.sampling.constraint import GrammarCompiler
from outrider.sampling.thoughts import ThoughtConstraint, Thoughts

BEGIN, CLOSE, END, VOCABULARY = 256, 257, 258, 264
FORMS = [None, Grammar.regex("(ab|c)+"), Grammar.lark('start: <|t> "x" <|e> "y"+'), Grammar.json_object()]


@pytest.fixture(scope="module")
def compiler():
    words = [bytes([i]) for i in range(256)] + [b"<|t>", b"<|e>", b"<end>"]
    return GrammarCompiler(lambda token: words[token], len(words), [BEGIN, CLOSE, END], VOCABULARY)


def constraint_of(compiler, form, **thoughts):
    held = None if form is None else compiler.constraint(form, [END])
    return ThoughtConstraint(Thoughts(BEGIN, CLOSE, **thoughts), held, compiler.text_tokens)


def allowed(constraint):
    return np.flatnonzero(constraint.mask()).tolist()


@pytest.mark.parametrize("form", FORMS, ids=["none", "regex", "own thought", "json"])
@given(seed=st.integers(0, 2**32 - 1), opened=st.booleans(), budget=st.sampled_from([None, 0, 1, 3]))
def test_every_way_to_ask_has_one_answer(compiler, form, seed, opened, budget):
    """A random walk; between its steps any paths are asked about."""
    rng = np.random.default_rng(seed)
    asked, plain = (constraint_of(compiler, form, opened=opened, budget=budget) for _ in range(2))
    masks, tokens = [], []
    for _ in range(10):
        mask = plain.mask()
        if plain.complete or not mask.any():
            break
        masks.append(mask)
        likely = [token for token in (BEGIN, CLOSE) if mask[token]]
        token = int(rng.choice(likely if likely and rng.random() < 0.4 else np.flatnonzero(mask)))
        if token == END:
            break
        plain.push(token)
        tokens.append(token)
    for at, mask in enumerate(masks):
        assert asked.mask().tolist() == mask.tolist()
        assert not any(asked.allows(token) and not mask[token] for token in range(VOCABULARY))
        right = tokens[at : at + int(rng.integers(0, 5))]
        if at + len(right) < len(masks):
            after = masks[at + len(right)]
            assert asked.after(right).tolist() == after.tolist()
            assert asked.allowed(right, range(VOCABULARY)) == np.flatnonzero(after).tolist()
        asked.after([*right, *(int(token) for token in rng.integers(0, VOCABULARY, 3))])
        if at < len(tokens):
            asked.push(tokens[at])


def test_a_budget_closes_the_thought_and_no_other_begins(compiler):
    constraint = constraint_of(compiler, None, budget=2)
    for token in (BEGIN, 65, 66):
        assert constraint.allows(token)
        constraint.push(token)
    assert allowed(constraint) == [CLOSE]
    constraint.push(CLOSE)
    assert not constraint.allows(BEGIN)
    assert len(allowed(constraint)) == VOCABULARY - 1
    assert allowed(constraint_of(compiler, None, opened=True, budget=0)) == [CLOSE]
    assert BEGIN not in allowed(constraint_of(compiler, None, budget=0))


def test_a_form_begins_after_one_thought(compiler):
    constraint = constraint_of(compiler, Grammar.regex("ab"))
    assert allowed(constraint) == [ord("a"), BEGIN]
    constraint.push(BEGIN)
    assert allowed(constraint) == [*range(256), CLOSE]  # text and no end: the form has to come
    for token in (ord("x"), CLOSE):
        constraint.push(token)
    assert allowed(constraint) == [ord("a")]
    assert not constraint.complete
    for token in (ord("a"), ord("b")):
        constraint.push(token)
    assert constraint.complete


def test_a_budget_of_0_holds_where_the_form_ends_at_once(compiler):
    empty = compiler.constraint(Grammar.regex("()"), [])
    assert allowed(ThoughtConstraint(Thoughts(BEGIN, CLOSE, budget=0), empty, compiler.text_tokens)) == []


def test_a_form_that_describes_the_thought_is_held_to_from_the_beginning(compiler):
    constraint = constraint_of(compiler, FORMS[2], budget=5)
    for token in (BEGIN, ord("x"), CLOSE, ord("y")):
        assert allowed(constraint) == [token]
        constraint.push(token)
    opened = constraint_of(compiler, FORMS[2], opened=True)
    opened.push(CLOSE)
    assert allowed(opened) == [BEGIN]


def test_wrong_budgets_are_explained():
    with pytest.raises(UsageError, match=r"the thinking budget must be 0 \(no thought\) or more tokens, not -1"):
        Thoughts(1, 2, budget=-1)
    with pytest.raises(UsageError, match="thoughts must be a Thoughts or None"):
        SamplingParams(thoughts=True)
