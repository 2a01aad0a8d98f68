"""Prediction: a text that the client expects back, followed across edits. It costs no model pass.

OpenAI's "predicted outputs" has the same form. Where the answer leaves the text, the likeliest place to go on is that
which agrees with most of the answer's last tokens, and of several the nearest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from outrider.drafters.protocol import Ask, Drafter, SequenceState
from outrider.drafters.tree import ROOT

_MOST_AGREED = 32
"""Tokens in a row that are compared to rank the places where an answer may go on."""
_MOST_PLACES = 64
"""Places that are compared, the nearest ones: in a text that repeats itself there may be thousands."""
_MOST_LOST = 8
"""Tokens after which a text that was left is proposed no more, until a place agrees."""
_FIRST_GUESS, _LOST_GUESS = 0.9, 0.3
_REPLACED, _INSERTED = 7, 8
"""Features of a text that was left: as many tokens were replaced, or others inserted."""


class Follower:
    """The place in a predicted text that an answer has reached.

    Attributes:
        at: index of the token of the text that comes next.
        agreed: tokens in a row that the answer repeats.
        lost: tokens of the answer since it left the text.
    """

    def __init__(self, text: Sequence[int]) -> None:
        self.text, self.answer = text, list[int]()
        self.at = self.agreed = self.lost = 0
        self._after: defaultdict[tuple[int, int], list[int]] = defaultdict(list)  # two tokens -> the places behind them
        for place, pair in enumerate(pairwise(text), start=2):
            self._after[pair].append(place)

    def append(self, token: int) -> None:
        """Adds the next token of the answer."""
        self.answer.append(token)
        if not self.lost and self.at < len(self.text) and self.text[self.at] == token:
            self.at, self.agreed = self.at + 1, self.agreed + 1
            return
        self.agreed, self.lost = 0, self.lost + 1
        expected, (before, last) = self.at + self.lost, [-1, *self.answer][-2:]
        places = self._after.get((before, last), [])
        middle = bisect_left(places, expected)
        near = places[max(middle - _MOST_PLACES // 2, 0) : middle + _MOST_PLACES // 2]
        ranked = [(self._agreed(at), -abs(at - expected), at) for at in near]
        if ranked:
            self.agreed, _, self.at = max(ranked)
            self.lost = 0

    def _agreed(self, at: int) -> int:
        """How many tokens before a place of the text equal the answer's last ones."""
        most = min(_MOST_AGREED, at, len(self.answer))
        return next((n for n in range(most) if self.text[at - 1 - n] != self.answer[-1 - n]), most)


class PredictionDrafter(Drafter):
    """Proposes what follows in the text. Once the answer has left it: what follows if as many tokens were replaced, and
    what follows if others were inserted."""

    name = "prediction"

    def __init__(self) -> None:
        self._followers: dict[int, tuple[Follower, int]] = {}  # with the sequence's tokens that are read

    def open(self, sequence: SequenceState) -> None:
        if sequence.prediction:
            self._followers[sequence.number] = Follower(sequence.prediction), len(sequence.tokens)

    def propose(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            sequence = ask.sequence
            if sequence.number in self._followers:
                follower, read = self._followers[sequence.number]
                for token in sequence.tokens[read:]:
                    follower.append(token)
                self._followers[sequence.number] = follower, len(sequence.tokens)
                self._continue(ask, follower)

    def close(self, sequence: SequenceState) -> None:
        self._followers.pop(sequence.number, None)

    def _continue(self, ask: Ask, follower: Follower) -> None:
        if not follower.lost:
            self._add(ask, follower.text[follower.at :], _FIRST_GUESS, min(follower.agreed.bit_length(), 6))
        elif follower.lost <= _MOST_LOST:
            self._add(ask, follower.text[follower.at + follower.lost :], _LOST_GUESS, _REPLACED)
            self._add(ask, follower.text[follower.at :], _LOST_GUESS, _INSERTED)

    def _add(self, ask: Ask, tokens: Sequence[int], guess: float, kind: int) -> None:
        """A chain, up to a token that is never chosen. Each accepted token makes the next likelier, so the features are
        the kind of place and the depth."""
        parent = ROOT
        for depth, token in enumerate(tokens[: ask.budget]):
            if token in ask.sequence.chooser.suppressed:
                return
            features = (kind, min(depth.bit_length(), 4))
            chance = ask.chances.chance(self.name, features, guess if depth == 0 else _FIRST_GUESS)
            parent = ask.draft.add(parent, token, chance, self.name, features)
