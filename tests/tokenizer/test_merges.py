"""One merge for each token gives what all merges give, in any vocabulary."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from gemma4_tables import every_split
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference
from tokenizers import models

from outrider.checkpoints import TokenizerTables
from outrider.tokenizer import Tokenizer
from outrider.tokenizer.merges import find_merges

WORDS = st.lists(st.text("ab", min_size=2, max_size=7), unique=True, max_size=14)
TEXTS = st.lists(st.text("ab", max_size=40), min_size=1, max_size=8)


def tables_of(words: list[str], merges: list[str] | None) -> TokenizerTables:
    """Words in the order of their scores, or with merges."""
    tokens = ["<bos>", "a", "b", *words]
    return TokenizerTables(
        model="llama" if merges is None else "gemma4",
        tokens=tokens,
        scores=None if merges is not None else -np.arange(len(tokens), dtype=np.float32),
        token_types=np.array([3] + [1] * (len(tokens) - 1), np.int32),
        merges=merges,
        bos_token_id=0,
        eos_token_id=0,
        unknown_token_id=None,
        add_bos=False,
        add_space_prefix=False,
        chat_template=None,
    )


def joined_by_score(text: str, ranks: dict[str, int]) -> list[str]:
    """SentencePiece in a few lines."""
    parts = list(text)
    while True:
        found = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        if min(found, default=len(ranks)) == len(ranks):
            return parts
        at = found.index(min(found))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@given(words=WORDS, texts=TEXTS)
@settings(max_examples=400, deadline=None)
def test_scores_are_followed_as_sentencepiece_follows_them(words, texts):
    tables = tables_of(words, None)
    ranks = {word: rank for rank, word in enumerate(words)}
    tokenizer = Tokenizer.from_tables(tables)
    for text in texts:
        assert [tables.tokens[token] for token in tokenizer.encode(text)] == joined_by_score(text, ranks)


@given(words=WORDS, texts=TEXTS, data=st.data())
@settings(max_examples=400, deadline=None)
def test_merges_are_followed_as_bpe_follows_them(words, texts, data):
    merges = data.draw(st.permutations(every_split(["a", "b", *words])))
    merges = merges[: data.draw(st.integers(0, len(merges)))]
    tables = tables_of(words, merges)
    vocabulary = {token: number for number, token in enumerate(tables.tokens)}
    reference = Reference(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    tokenizer = Tokenizer.from_tables(tables)
    for text in texts:
        assert tokenizer.encode(text) == reference.encode(text).ids


def test_a_token_has_one_merge_or_none():
    # "ba" comes first, so "aba" is "a" + "ba" and never "ab" + "a", and "abb" is never made.
    tables = tables_of(["ba", "ab", "aba", "bab", "babb"], None)
    pairs = [(tables.tokens[left], tables.tokens[right]) for left, right in find_merges(tables).tolist()]
    assert pairs == [("b", "a"), ("a", "b"), ("a", "ba"), ("ba", "b"), ("bab", "b")]
