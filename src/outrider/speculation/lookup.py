"""Lookup: what followed the longest suffix of the text the last time it occurred. It costs no model pass.

Prompt lookup as a drafter: Saxena 2023; with a suffix automaton: Hu et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outrider.kernels import KvCache
from outrider.sampling.choice import TokenChooser
from outrider.speculation.drafter import Ask, Floats
from outrider.speculation.suffix import Cursor, Match, SuffixIndex
from outrider.speculation.tree import ROOT, Situation

Chance = Callable[[int, str, Situation, float], float]
"""(sequence, source, situation, first guess) -> the estimated chance; see `controller.Calibration` and `Level`."""

MIN_MATCH = 2
"""A single token's last successor is right too rarely to be worth a row."""
_MIN_HISTORY_MATCH = 3
_REACH = 64
"""Tokens that a match in earlier texts is looked for with, when a text is first compared."""
_FIRST_GUESS = 0.6
"""Of a match's chance, before anything is learnt."""
_AMBIGUOUS = 5
_BETWEEN = -1
"""Stands between two texts: no token equals it."""


class LookupDrafter:
    """Proposes one chain: the tokens that followed the match in the sequence's own text."""

    name = "lookup"

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._indices: dict[int, SuffixIndex] = {}
        self._texts: dict[int, list[int]] = {}

    def open(self, sequence: int, tokens: list[int], cache: KvCache, chooser: TokenChooser) -> None:  # noqa: ARG002
        """Indexes the prompt; see `Drafter.open`."""
        self._indices[sequence] = SuffixIndex()
        self._texts[sequence] = tokens

    def propose(self, asks: Sequence[Ask]) -> None:
        """See `Drafter.propose`."""
        for ask in asks:
            index, tokens = self._indices[ask.sequence], self._texts[ask.sequence]
            for token in tokens[len(index) :]:
                index.append(token)
            match = index.match()
            if match is not None and match.length >= MIN_MATCH:
                following = index.tokens[match.end + 1 : match.end + 1 + ask.budget]
                # A match that overlaps the end of the text repeats itself: go on reading what was just proposed.
                following = [following[i % len(following)] for i in range(ask.budget)]
                _add_chain(ask, following, match, self.name, self._chance)

    def observe(self, sequence: int, hidden: Floats) -> None:
        """Nothing to learn here: the index reads the sequence's tokens itself."""

    def close(self, sequence: int) -> None:
        """See `Drafter.close`."""
        del self._indices[sequence], self._texts[sequence]


class HistoryDrafter:
    """Proposes what followed the match in texts that are complete: earlier requests, prompt and answer.

    Args:
        capacity: most tokens kept. The texts are indexed in two generations of half that size; when the younger is
            full, the older is dropped. An index takes some 600 bytes a token.
    """

    name = "history"

    def __init__(self, chance: Chance, capacity: int) -> None:
        self._chance, self._half = chance, capacity // 2
        self._generations = [SuffixIndex()]
        self._texts: dict[int, list[int]] = {}
        self._cursors: dict[int, list[tuple[Cursor, int]]] = {}  # with the tokens that each has read

    def open(self, sequence: int, tokens: list[int], cache: KvCache, chooser: TokenChooser) -> None:  # noqa: ARG002
        """See `Drafter.open`."""
        self._texts[sequence] = tokens
        self._cursors[sequence] = []

    def propose(self, asks: Sequence[Ask]) -> None:
        """See `Drafter.propose`."""
        for ask in asks:
            matches = [(match, cursor.index) for cursor in self._caught_up(ask.sequence) if (match := cursor.match())]
            for match, index in matches:
                following = index.tokens[match.end + 1 : match.end + 1 + ask.budget]
                if _BETWEEN in following:
                    following = following[: following.index(_BETWEEN)]
                if match.length >= _MIN_HISTORY_MATCH:
                    _add_chain(ask, following, match, self.name, self._chance)

    def observe(self, sequence: int, hidden: Floats) -> None:
        """Nothing to learn here."""

    def close(self, sequence: int) -> None:
        """The sequence's text becomes history."""
        del self._cursors[sequence]
        text = self._texts.pop(sequence)[-self._half :]
        if len(self._generations[-1]) + len(text) > self._half:
            self._generations = [*self._generations[-1:], SuffixIndex()]
        for token in (*text, _BETWEEN):
            self._generations[-1].append(token)

    def _caught_up(self, sequence: int) -> list[Cursor]:
        """A cursor for each generation, at the end of the sequence's text."""
        tokens, known = self._texts[sequence], self._cursors[sequence]
        current = []
        for index in self._generations:
            cursor, read = next(
                ((c, read) for c, read in known if c.index is index), (Cursor(index), max(len(tokens) - _REACH, 0))
            )
            for token in tokens[read:]:
                cursor.advance(token)
            current.append((cursor, len(tokens)))
        self._cursors[sequence] = current
        return [cursor for cursor, _ in current]


def _add_chain(ask: Ask, tokens: Sequence[int], match: Match, source: str, chance: Chance) -> None:
    """Adds the tokens that followed a match.

    Each token that comes true makes the match longer, so later ones count as continuing a longer match; the finer part
    of their situation is whether the text went on in several ways there, and how deep they lie.
    """
    parent = ROOT
    for depth, token in enumerate(tokens):
        where = min(depth.bit_length(), 4) if depth or match.successors == 1 else _AMBIGUOUS
        situation = (_size(match.length + depth), where)
        estimate = chance(ask.sequence, source, situation, _FIRST_GUESS)
        parent = ask.draft.add(parent, token, estimate, source, situation)


def _size(match_length: int) -> int:
    """Matches of similar length share their statistics: 2, 3, 4-5, 6-9, 10-17, longer."""
    return min((match_length - 1).bit_length() if match_length > 3 else match_length, 6)
