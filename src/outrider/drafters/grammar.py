"""Grammar: the tokens that an answer's form demands, and those among which it leaves a choice. It costs no model pass.

The grammar knows the bytes that must follow; they are proposed as the tokenizer writes them. Where a token may end
otherwise, as a quote does that a colon follows, or where an answer branches (the values of an enum, the next key, white
space or none), the alternatives are proposed by how often they were chosen after such a token.

Forced tokens: Guidance's "token fast-forwarding"; here they are drafts, so that the model's own spelling counts.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np

from outrider.drafters.habits import Habits
from outrider.drafters.protocol import Ask, Drafter, SequenceState
from outrider.drafters.tree import ROOT
from outrider.sampling.choice import TokenChooser
from outrider.sampling.constraint import PackedMask
from outrider.tokenizer import Tokenizer

_CONTROL = re.compile(rb"\xff\[(\d+)\]")
_BRANCHES = 3
"""Alternatives proposed in one place."""
_FEW = 32
"""Allowed tokens up to which the longest are proposed although none of them was chosen before."""
_MANY = 2048
"""Allowed tokens above which a place is free text, about which a grammar knows nothing."""
_WORDS = (("e", "the", "ing"), (" e", " the", " ing"))
"""A place that allows all of one row is free text. A mask, which would show it too, takes far longer there."""
_PLACES = 8
"""Places that one draft looks at: each takes some 0.1 ms."""
_FORCED, _HABIT, _LONGEST = range(3)
"""The first feature of a proposal: by what it was made."""
_FORCED_GUESS = 0.9


class GrammarDrafter(Drafter):
    """Proposes forced tokens, and a branch for each of a few alternatives."""

    name = "grammar"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        rows = [[token for word in row for token in tokenizer.encode(word, add_bos=False)[:1]] for row in _WORDS]
        self._words = [row for row in rows if row]
        self._habits = Habits(tokenizer)

    def open(self, sequence: SequenceState) -> None:
        if sequence.chooser.constrained and sequence.draft != "off":
            self._habits.open(sequence)

    def propose(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            if ask.sequence in self._habits:
                self._habits.count(ask.sequence)
                self._grow(ask)

    def close(self, sequence: SequenceState) -> None:
        self._habits.close(sequence)

    def _grow(self, ask: Ask) -> None:
        """Adds nodes from place to place, the likeliest place first."""
        places: list[tuple[float, int, list[int]]] = [(-1.0, ROOT, [])]
        for _ in range(_PLACES):
            if not places:
                return
            negative, node, path = heapq.heappop(places)
            reach = -negative
            path = self._along_forced(ask.sequence.chooser, path)
            for token in path[ask.draft.nodes[node].depth + 1 if node != ROOT else 0 : ask.budget]:
                node, reach = self._add(ask, node, reach, token, (_FORCED,), _FORCED_GUESS)
            if len(path) >= ask.budget:
                continue
            for token, features, guess in self._alternatives(ask.sequence, path):
                if token in ask.sequence.chooser.suppressed:
                    continue
                child, chance = self._add(ask, node, reach, token, features, guess)
                if len(path) + 1 < ask.budget and (ask.fixed or ask.pays(chance, 0.0)):
                    heapq.heappush(places, (-chance, child, [*path, token]))

    def _add(
        self, ask: Ask, parent: int, reach: float, token: int, features: tuple[int, ...], guess: float
    ) -> tuple[int, float]:
        """The node of a token, and the chance that it is reached and accepted."""
        chance = ask.chances.chance(self.name, features, guess)
        return ask.draft.add(parent, token, chance, self.name, features), reach * chance

    def _along_forced(self, chooser: TokenChooser, path: list[int]) -> list[int]:
        """A path with the tokens of the bytes that must follow. The last of them is left out: it may be the beginning
        of a longer one."""
        tokens: list[int] = []
        for number, part in enumerate(_CONTROL.split(chooser.forced(path))):
            if number % 2:
                tokens.append(int(part))
            elif part:
                tokens += self._tokenizer.encode(part.decode("utf-8", "ignore"), add_bos=False)
        more = list(takewhile(lambda token: token not in chooser.suppressed, tokens[:-1]))
        return [*path, *more] if more and chooser.possible([*path, *more]) else path

    def _alternatives(self, sequence: SequenceState, path: list[int]) -> Iterator[tuple[int, tuple[int, ...], float]]:
        """Tokens that may come next and are likely to, with the features of each and a first guess of its chance."""
        chooser = sequence.chooser
        if any(chooser.allowed(path, row) == row for row in self._words):
            return
        allowed = chooser.packed(path)
        if allowed is None or (number := _size(allowed)) > _MANY:
            return
        followed = self._habits.after(sequence, path)
        counts = Counter({token: count for token, count in followed.items() if _has(allowed, token)})
        if total := counts.total():
            for rank, (token, count) in enumerate(counts.most_common(_BRANCHES)):
                share = count / (total + 1)
                yield token, (_HABIT, rank, int(8 * share)), share
            return
        longest = self._longest(_tokens(allowed)) if number <= _FEW else []
        for token in longest[:_BRANCHES]:
            yield token, (_LONGEST, min(len(longest), _BRANCHES + 1)), 1 / len(longest)

    def _longest(self, allowed: Sequence[int]) -> list[int]:
        """The allowed tokens that are no beginning of another."""
        known = (token for token in allowed if token < self._tokenizer.vocab_size)
        pieces = {self._tokenizer.piece(token, skip_special=False): token for token in known}
        beginnings = {piece[:end] for piece in pieces for end in range(len(piece))}
        return [token for piece, token in pieces.items() if piece not in beginnings]


def _has(mask: PackedMask, token: int) -> bool:
    return token >> 3 < len(mask) and bool(mask[token >> 3] >> (token & 7) & 1)


def _size(mask: PackedMask) -> int:
    """The number of tokens of a mask."""
    return int(np.bitwise_count(mask.view(np.uint32)).sum())


def _tokens(mask: PackedMask) -> list[int]:
    """The tokens of a mask of few."""
    filled = np.flatnonzero(mask)
    bits = np.unpackbits(mask[filled, None], axis=1, bitorder="little")
    which, bit = np.nonzero(bits)
    tokens: list[int] = (8 * filled[which] + bit).tolist()
    return tokens
