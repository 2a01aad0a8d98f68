"""Prompt lookup: the tokens that followed the last earlier occurrence of the longest suffix. It costs no model pass.

Saxena 2023, "Prompt lookup decoding"; with a suffix automaton: Hu et al. 2024, "SAM decoding".
"""

from __future__ import annotations

from collections.abc import Sequence

from outrider.drafters.protocol import Ask, Drafter, SequenceState
from outrider.drafters.suffix import Cursor, Match, SuffixIndex
from outrider.drafters.tree import ROOT

MIN_MATCH = 2
"""A single token's last successor is accepted too rarely to be worth a row."""
_FIRST_GUESS = 0.6
"""Chance of a match's token before any verdict."""
_AMBIGUOUS = 5
_REACH = 16
"""Tokens of the text before a path of proposed tokens that a match of both may cover."""


class LookupDrafter(Drafter):
    """Proposes one chain: the tokens that followed the match in the sequence's own text."""

    name = "lookup"

    def __init__(self) -> None:
        self._indices: dict[int, SuffixIndex] = {}

    def open(self, sequence: SequenceState) -> None:
        self._indices[sequence.number] = SuffixIndex()  # the first `propose` adds the prompt

    def propose(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            index = self._indices[ask.sequence.number]
            for token in ask.sequence.tokens[len(index) :]:
                index.append(token)
            self._continue(ask, index, index.match(), ROOT)
            if trunk := ask.draft.trunk():
                path = [ask.draft.nodes[node].token for node in trunk]
                self._continue(ask, index, _match_after(index, path), trunk[-1])

    def close(self, sequence: SequenceState) -> None:
        del self._indices[sequence.number]

    def _continue(self, ask: Ask, index: SuffixIndex, match: Match | None, parent: int) -> None:
        """Adds what followed the match of a text that ends at a node."""
        room = ask.budget if parent == ROOT else ask.budget - 1 - ask.draft.nodes[parent].depth
        if match is None or match.length < MIN_MATCH or room < 1:
            return
        following = index.tokens[match.end + 1 : match.end + 1 + room]
        if not following:
            return
        # A match that overlaps the end of the text repeats: continue with what was just proposed.
        following = [following[i % len(following)] for i in range(room)]
        add_chain(ask, following, match, self.name, parent)


def _match_after(index: SuffixIndex, path: Sequence[int]) -> Match | None:
    """The match of the text with a path of proposed tokens behind it."""
    cursor = Cursor(index)
    for token in [*index.tokens[-_REACH:], *path]:
        cursor.advance(token)
    return cursor.match()


def add_chain(ask: Ask, tokens: Sequence[int], match: Match, source: str, parent: int = ROOT) -> None:
    """Adds the tokens that followed a match, under a node and up to one that is never chosen.

    Each accepted token makes the match longer, so the coarse feature is match length plus depth. The fine one is the
    depth, or that several tokens followed such text.
    """
    for depth, token in enumerate(tokens):
        if token in ask.sequence.chooser.suppressed:
            return
        fine = min(depth.bit_length(), 4) if depth or match.successors == 1 else _AMBIGUOUS
        features = (_bucket(match.length + depth), fine)
        chance = ask.chances.chance(source, features, _FIRST_GUESS)
        parent = ask.draft.add(parent, token, chance, source, features)


def _bucket(match_length: int) -> int:
    """Matches of similar length share their statistics: 2, 3, 4-5, 6-9, 10-17, longer."""
    return min((match_length - 1).bit_length() if match_length > 3 else match_length, 6)
