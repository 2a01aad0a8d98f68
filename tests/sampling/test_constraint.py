"""A grammar's word on the next token: the same however it is asked, and untouched by what was only proposed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider import Grammar, SamplingParams
from outrider.errors import UsageError
from outrider.sampling.choice import TokenChooser
from outrider.sampling.constraint import GrammarCompiler

WORDS = [bytes([i]) for i in range(256)]
WORDS += [b'{"', b'":', b"true", b'"}', b"ab", b"abc", b"12", b"<end>", b"<|x>"]
WORDS += [b"a", b"ab", b""]  # twice the same, as bytes and letters are in Gemma's; and a gap
END, SPECIAL = 263, 264
VOCABULARY = 272

GRAMMARS = [
    Grammar.json_object(),
    Grammar.json_schema({"type": "object", "properties": {"a": {"enum": ["ab", 12, True]}}, "required": ["a"]}),
    Grammar.json_schema({"type": "array", "items": {"type": "integer"}, "maxItems": 3}),
    Grammar.regex("(abc|ab12)*x"),
    Grammar.lark('start: item+\nitem: "ab" /[0-9]+/ | "(" start ")"'),
]


@pytest.fixture(scope="module")
def compiler():
    def piece(token):
        if not WORDS[token]:
            raise UsageError("no such token")
        return WORDS[token]

    return GrammarCompiler(piece, len(WORDS), [END, SPECIAL], VOCABULARY)


def walk(constraint, rng, steps):
    """Random allowed tokens; the masks before each."""
    masks, tokens = [], []
    for _ in range(steps):
        if constraint.complete:
            break
        masks.append(constraint.mask())
        token = int(rng.choice(np.flatnonzero(masks[-1])))
        tokens.append(token)
        if token == END:
            break
        constraint.push(token)
    return masks, tokens


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.text[:20])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_mask_is_what_is_allowed_token_by_token(compiler, grammar, seed):
    rng = np.random.default_rng(seed)
    constraint = compiler.constraint(grammar, [END])
    for _ in range(6):
        if constraint.complete:
            break
        mask = constraint.mask()
        assert mask.shape == (VOCABULARY,)
        assert [constraint.allows(token) for token in range(VOCABULARY)] == mask.tolist()
        token = int(rng.choice(np.flatnonzero(mask)))
        if token == END:
            break
        constraint.push(token)
    assert constraint.problem is None


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.text[:20])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_proposals_leave_no_trace(compiler, grammar, seed):
    """Between the steps any paths are asked about: right ones, wrong ones, impossible ones."""
    rng = np.random.default_rng(seed)
    masks, tokens = walk(compiler.constraint(grammar, [END]), rng, 12)
    asked = compiler.constraint(grammar, [END])
    for at, token in enumerate(tokens):
        for _ in range(int(rng.integers(0, 4))):
            right = tokens[at : at + int(rng.integers(0, 6))]
            right = right[: right.index(END)] if END in right else right
            found = asked.after(right)
            if at + len(right) < len(masks):
                assert found.tolist() == masks[at + len(right)].tolist()
                assert asked.possible(right)
                every = rng.permutation(VOCABULARY).tolist()
                assert asked.allowed(right, every) == [token for token in every if found[token]]
            wrong = [*right, *(int(t) for t in rng.integers(0, VOCABULARY, 3))]
            assert asked.possible(wrong) == (asked.after(wrong) is not None)
        assert asked.mask().tolist() == masks[at].tolist()
        asked.push(token)
    assert asked.problem is None


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 0, 3]),
    penalty=st.sampled_from([0.0, 1.0]),
    grammar=st.sampled_from(GRAMMARS),
)
def test_the_short_way_chooses_what_the_whole_mask_would(compiler, seed, temperature, top_k, penalty, grammar):
    rng = np.random.default_rng(seed)
    params = SamplingParams(temperature=temperature, top_k=top_k, presence_penalty=penalty, seed=seed, grammar=grammar)
    constraint = compiler.constraint(grammar, [END])
    chooser = TokenChooser(params, [1], [END], constraint)
    free = TokenChooser(params, [1], [END])
    for position in range(8):
        logits = rng.normal(0, 4, VOCABULARY).astype(np.float32)
        mask = constraint.mask()
        logits[rng.choice(np.flatnonzero(mask))] += rng.choice([0, 12])
        expected = logits.copy()
        if free.needs_logits:
            free._adjustments.apply(expected)
        expected[~mask] = -np.inf
        expected = free._sample(expected, position)
        assert chooser.choose(int(logits.argmax()), logits, position) == expected
        if expected == END:
            break
        chooser.push(expected)
        free.push(expected)
        if chooser.complete:
            break


def test_biases_cannot_break_a_grammar(compiler):
    bias = dict.fromkeys(range(VOCABULARY), -np.inf)
    grammar = Grammar.regex("abc")
    params = SamplingParams(temperature=1.0, logit_bias=bias, grammar=grammar)
    chooser = TokenChooser(params, [1], [END], compiler.constraint(grammar, [END]))
    logits = np.zeros(VOCABULARY, np.float32)
    logits[260] = 1  # "ab", before "abc" and "a"
    assert chooser.choose(0, logits.copy(), 0) == 260
    chooser.push(260)
    assert chooser.choose(0, logits.copy(), 1) == ord("c")
    chooser.push(ord("c"))
    assert chooser.complete
    assert chooser.choose(0, logits.copy(), 2) == END


def test_whitespace_in_json_has_an_end(compiler):
    for text, fits in (("[\n  1, 2\n]", True), ("[1,2]", True), ("[  1]", False), ("[\n\n1]", False), (" [1]", False)):
        constraint = compiler.constraint(GRAMMARS[2], [])
        for byte in text.encode():
            if not constraint.allows(byte):
                break
            constraint.push(byte)
        assert constraint.complete == fits


def test_a_token_without_text_never_comes(compiler):
    constraint = compiler.constraint(Grammar.regex("a*"), [END])
    assert np.flatnonzero(constraint.mask()).tolist() == [ord("a"), END, 265]
    assert not constraint.allows(267)


def test_special_tokens_come_only_where_they_are_named(compiler):
    free = compiler.constraint(Grammar.regex("(.|\n)*"), [END])
    assert not free.mask()[SPECIAL]
    named = compiler.constraint(Grammar.lark('start: <|x> "a"'), [])
    assert np.flatnonzero(named.mask()).tolist() == [SPECIAL]
    named.push(SPECIAL)
    assert np.flatnonzero(named.mask()).tolist() == [ord("a"), 265]
    named.push(ord("a"))
    assert named.complete
    assert not named.mask().any()  # nothing ends it: no end token is known


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        (lambda: Grammar.json_schema({"type": "thing"}), "the JSON schema cannot be used: Invalid type: thing"),
        (lambda: Grammar.json_schema({"type": "array", "uniqueItems": True}), 'Unimplemented keys: ["uniqueItems"]'),
        (lambda: Grammar.json_schema({"$ref": "http://127.0.0.1:9/x.json"}), "does not fetch resources"),
        (lambda: Grammar.json_schema({"enum": []}), "Unsatisfiable schema"),
        (lambda: Grammar.regex("("), "the regex cannot be used"),
        (lambda: Grammar.regex(""), "the regex is empty"),
        (lambda: Grammar.regex("(" * 50_000), "the regex cannot be used"),
        (lambda: Grammar.regex("x" * 300_000), "has 300000 bytes, more than 262144"),
        (lambda: Grammar.lark("start: nothing"), 'unknown name: "nothing"'),
        (lambda: Grammar.lark("start: a\na: start"), "the grammar matches no text at all"),
        (lambda: Grammar.lark("start: " + "(" * 50_000), "too deeply nested"),
        (lambda: Grammar.json_schema({"a": float}), "the JSON schema is no JSON"),
        (lambda: Grammar.regex("\ud800"), "half a surrogate pair"),
    ],
)
def test_wrong_grammars_are_explained(compiler, grammar, says):
    with pytest.raises(UsageError) as caught:
        compiler.compile(grammar())
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500


HOSTILE = {
    "many properties": lambda: Grammar.json_schema(
        {"properties": {f"p{i}": {"type": "string", "pattern": f"[a-z]{{1,{i % 300 + 1}}}x"} for i in range(3000)}}
    ),
    "many objects": lambda: Grammar.json_schema(
        {
            "anyOf": [
                {"type": "object", "properties": {f"k{j}": {"type": "string", "maxLength": j + i} for j in range(20)}}
                for i in range(150)
            ]
        }
    ),
    "many words": lambda: Grammar.json_schema({"enum": [f"word {i * i}" for i in range(10_000)]}),
    "many rules": lambda: Grammar.lark("start: " + " | ".join(f'"x{i}" start' for i in range(12_000)) + ' | ""'),
    "many states": lambda: Grammar.regex("(.*a.{40}){20}b"),
    "many repeats": lambda: Grammar.regex("((a{1,100}b){1,100}c){1,100}"),
    "a long text": lambda: Grammar.json_schema({"type": "string", "maxLength": 10_000_000}),
    "all at once": lambda: Grammar.lark("start: A\nA: " + " & ".join(f"/(.*{c}.*){{3}}/" for c in "abcdefghij")),
    "none of these": lambda: Grammar.lark("start: A\nA: ~/(.*a.{12}b.*)/ & ~/(.*c.{12}d.*)/"),
    "ambiguous": lambda: Grammar.lark('start: s "!"\ns: s s | "a" | "b" | s s s'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_hold_nothing_up(compiler, name):
    started = time.process_time()
    try:
        constraint = compiler.constraint(HOSTILE[name](), [END])
    except UsageError:
        constraint = None
    assert time.process_time() - started < 10  # at most 0.7 s where this was written
    rng = np.random.default_rng(0)
    for _ in range(30):
        if constraint is None or constraint.complete:
            break
        started = time.process_time()
        allowed = np.flatnonzero(constraint.mask())
        assert time.process_time() - started < 2  # at most 0.05 s
        if not len(allowed) or (token := int(rng.choice(allowed))) == END:
            break
        constraint.push(token)


def test_a_grammar_that_is_too_much_work_is_refused_or_ends(compiler):
    """Neither hours nor gigabytes: the limits are of work, so they fall at the same token every time."""
    ends = []
    for _ in range(2):
        try:
            constraint = compiler.constraint(Grammar.regex("(.*a.{40}){20}b"), [END])
        except UsageError as error:
            ends.append(str(error))
            continue
        _, tokens = walk(constraint, np.random.default_rng(1), 50)
        ends.append((len(tokens), constraint.problem))
    assert ends[0] == ends[1]
