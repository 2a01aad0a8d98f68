"""Lookup: what followed the longest suffix of the text the last time it occurred. It costs no model pass.

Prompt lookup as a drafter: Saxena 2023; with a suffix automaton: Hu et al. 2024.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from outrider.backends.cpu import KvCache
from outrider.drafters.protocol import Ask, Floats
from outrider.drafters.suffix import Cursor, Match, SuffixIndex
from outrider.drafters.tree import HISTORY, ROOT, Situation
from outrider.sampling.choice import TokenChooser

Chance = Callable[[int, str, Situation, float], float]
"""(sequence, source, situation, first guess) -> the estimated chance; see `controller.Calibration` and `Level`."""

MIN_MATCH = 2
"""A single token's last successor is right too rarely to be worth a row."""
_MIN_HISTORY_MATCH = 3
_MOST_SCOPES = 1024
"""Scopes with a history at most, however little text each has: an empty index takes memory too."""
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

    def open(
        self,
        sequence: int,
        tokens: list[int],
        cache: KvCache,  # noqa: ARG002
        chooser: TokenChooser,  # noqa: ARG002
        scope: str | None,  # noqa: ARG002
    ) -> None:
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
    """Proposes what followed the match in the texts of earlier requests of the same scope, prompt and answer.

    Args:
        capacity: most tokens kept, of all scopes together. The texts of a scope are indexed in two generations of half
            that size; when the younger is full, the older is dropped. Where all scopes together have too many, the
            least recently used one loses its older generation. An index takes some 600 bytes a token.
    """

    name = HISTORY

    def __init__(self, chance: Chance, capacity: int) -> None:
        self._chance, self._capacity, self._half = chance, capacity, capacity // 2
        self._generations: OrderedDict[str, list[SuffixIndex]] = OrderedDict()  # by scope, least recently used first
        self._kept = 0  # tokens in all of them
        self._sequences: dict[int, _Reading] = {}

    def open(
        self,
        sequence: int,
        tokens: list[int],
        cache: KvCache,  # noqa: ARG002
        chooser: TokenChooser,  # noqa: ARG002
        scope: str | None,
    ) -> None:
        """See `Drafter.open`. Without a scope the sequence takes no part."""
        if scope is not None:
            self._sequences[sequence] = _Reading(tokens, scope)

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
        """The sequence's text becomes history of its scope."""
        reading = self._sequences.pop(sequence, None)
        room = self._half - 1  # of a text, which _BETWEEN follows
        if reading is None or room < 1:
            return
        text = [*reading.tokens[-room:], _BETWEEN]
        generations = self._generations.setdefault(reading.scope, [SuffixIndex()])
        self._generations.move_to_end(reading.scope)
        if len(generations[-1]) + len(text) > self._half:
            generations.append(SuffixIndex())
            if len(generations) > 2:
                self._drop_oldest(reading.scope)
        for token in text:
            generations[-1].append(token)
        self._kept += len(text)
        while self._kept > self._capacity or len(self._generations) > _MOST_SCOPES:
            self._drop_oldest(next(iter(self._generations)))

    def _drop_oldest(self, scope: str) -> None:
        """Drops the oldest generation of a scope, and with its last one the scope."""
        generations = self._generations[scope]
        self._kept -= len(generations.pop(0))
        if not generations:
            del self._generations[scope]

    def _caught_up(self, sequence: int) -> list[Cursor]:
        """A cursor for each generation, at the end of the sequence's text."""
        reading = self._sequences.get(sequence)
        if reading is None or reading.scope not in self._generations:
            return []
        self._generations.move_to_end(reading.scope)
        tokens, current = reading.tokens, []
        for index in self._generations[reading.scope]:
            cursor, read = next(
                ((c, read) for c, read in reading.cursors if c.index is index),
                (Cursor(index), max(len(tokens) - _REACH, 0)),
            )
            for token in tokens[read:]:
                cursor.advance(token)
            current.append((cursor, len(tokens)))
        reading.cursors = current
        return [cursor for cursor, _ in current]


@dataclass
class _Reading:
    """A sequence that is compared with its scope's history."""

    tokens: list[int]
    scope: str
    cursors: list[tuple[Cursor, int]] = field(default_factory=list)  # with the tokens that each has read


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
