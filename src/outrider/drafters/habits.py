"""Habits: the tokens that followed others in answers of a form, such as line breaks, indentation and brackets."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from outrider.drafters.protocol import SequenceState
from outrider.tokenizer import Tokenizer

_PUNCTUATION = re.compile(rb"[\s{}\[\]\",:]+")
_WORD, _NUMBER = -1, -2
"""Stand for tokens that are not punctuation where habits of all answers are counted."""
_NEAR = 4
"""How much more a count weighs that is of the same answer, or after the same two tokens and at the same nesting."""
_DEEPEST, _MOST_KINDS = 8, 4096
"""Bounds of what is counted over all answers, which may be anyone's: of the nesting, and of the kinds of place."""

_Kind = tuple[int, ...]


@dataclass
class _Answer:
    """An answer's own habits: `read` tokens of its sequence are counted, whose brackets are nested `depth` deep."""

    read: int
    depth: int = 0
    after: defaultdict[_Kind, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))


class Habits:
    """Counts each token after the one before it, and after the two before it at the same nesting of brackets.

    What is counted over all answers are tokens of punctuation alone, which say nothing about a text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._of_all: defaultdict[tuple[str | None, _Kind], Counter[int]] = defaultdict(Counter)  # by adapter, kind
        self._answers: dict[int, _Answer] = {}  # by sequence
        self._read = lru_cache(maxsize=4096)(lambda token: _read(token, tokenizer.piece(token)))

    def open(self, sequence: SequenceState) -> None:
        """Begins an answer after the sequence's tokens."""
        self._answers[sequence.number] = _Answer(len(sequence.tokens))

    def close(self, sequence: SequenceState) -> None:
        """Drops what was counted of this answer alone."""
        self._answers.pop(sequence.number, None)

    def __contains__(self, sequence: SequenceState) -> bool:
        return sequence.number in self._answers

    def count(self, sequence: SequenceState) -> None:
        """Counts the answer's new tokens."""
        answer, tokens = self._answers[sequence.number], sequence.tokens
        for at in range(answer.read, len(tokens)):
            two, token = tokens[max(at - 2, 0) : at], tokens[at]
            kind, nesting = self._read(token)
            for own, of_all in zip(_kinds(two, answer.depth), self._kinds_of_all(two, answer.depth), strict=True):
                answer.after[own][token] += 1
                if kind == token:
                    self._of_all[sequence.lora, of_all][token] += 1
            answer.depth += nesting
        answer.read = len(tokens)
        if len(self._of_all) > _MOST_KINDS:
            self._of_all.clear()

    def after(self, sequence: SequenceState, path: Sequence[int]) -> Counter[int]:
        """What followed in the same situation as after `path`, by how often it did."""
        answer = self._answers[sequence.number]
        two = [*sequence.tokens[-2:], *path][-2:]
        depth = answer.depth + sum(self._read(token)[1] for token in path)
        found = Counter[int]()
        weight = 1
        for own, of_all in zip(_kinds(two, depth), self._kinds_of_all(two, depth), strict=True):
            for token, count in self._of_all.get((sequence.lora, of_all), {}).items():
                found[token] += weight * count
            for token, count in answer.after.get(own, {}).items():
                found[token] += _NEAR * weight * count
            weight *= _NEAR
        return found

    def _kinds_of_all(self, two: Sequence[int], depth: int) -> Iterator[_Kind]:
        return _kinds([self._read(token)[0] for token in two], depth)


def _kinds(two: Sequence[int], depth: int) -> Iterator[_Kind]:
    """The kinds of a place after two tokens, from coarse to fine."""
    yield (two[-1],)
    yield (*two, min(max(depth, 0), _DEEPEST))


def _read(token: int, piece: bytes) -> tuple[int, int]:
    """The kind of a token where answers are not told apart, and by how much it nests what follows deeper."""
    if _PUNCTUATION.fullmatch(piece):
        return token, sum(piece.count(bracket) for bracket in b"{[") - sum(piece.count(bracket) for bracket in b"}]")
    return _NUMBER if piece.strip().isdigit() else _WORD, 0
