"""A drafter that knows the answer and is right as often as a test wants, in trees of any shape."""

from __future__ import annotations

import random
from collections.abc import Sequence

from outrider.drafters.protocol import Ask, Drafter, SequenceState
from outrider.drafters.tree import ROOT


class StandInDrafter(Drafter):
    """Proposes random trees around the known answer.

    Args:
        vocabulary: wrong tokens are drawn from it.
        right: the chance that a place's right token is among its proposals: 1 forces right drafts, 0 wrong ones.
    """

    name = "stand-in"

    def __init__(self, rng: random.Random, vocabulary: int, right: float) -> None:
        self._rng, self._vocabulary, self._right = rng, vocabulary, right
        self._answers: dict[tuple[int, ...], list[int]] = {}
        self._known: dict[int, list[int]] = {}

    def know(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """What a prompt will be answered with; has to be told before the request is opened."""
        self._answers[tuple(prompt)] = [*prompt, *answer]

    def open(self, sequence: SequenceState) -> None:
        """See `Drafter.open`."""
        self._known[sequence.number] = self._answers.get(tuple(sequence.tokens), [])

    def propose(self, asks: Sequence[Ask]) -> None:
        """A tree for every ask: paths of random length from random nodes, most of them along the answer."""
        for ask in asks:
            tokens, answer = ask.sequence.tokens, self._known[ask.sequence.number]
            draft = ask.draft
            for _ in range(self._rng.randint(0, 4)):
                parent = self._rng.randint(ROOT, len(draft) - 1) if self._rng.random() < 0.5 else ROOT
                depth = 0 if parent == ROOT else draft.nodes[parent].depth + 1
                while depth < ask.budget and self._rng.random() < 0.85:
                    place = len(tokens) + depth
                    token = answer[place] if place < len(answer) else None
                    if token is None or self._rng.random() >= self._right:
                        wrong = self._rng.randrange(self._vocabulary - 1)
                        token = wrong + (token is not None and wrong >= token)
                    parent = draft.add(parent, token, self._rng.random(), self.name, (depth,))
                    depth += 1

    def close(self, sequence: SequenceState) -> None:
        """See `Drafter.close`."""
        del self._known[sequence.number]
