"""History: lookup in the texts of earlier requests of the same scope."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from outrider.drafters.lookup import add_chain
from outrider.drafters.protocol import Ask, Drafter, SequenceState
from outrider.drafters.suffix import Cursor, SuffixIndex
from outrider.drafters.tree import HISTORY

_MIN_MATCH = 3
_MOST_SCOPES = 1024
"""Most scopes with a history, however short: an empty index takes memory too."""
_REACH = 64
"""Last tokens of a text that are matched when it is first compared with an index."""
_BETWEEN = -1
"""Separates two texts: no token equals it."""


class HistoryDrafter(Drafter):
    """Proposes what followed the match in the texts of earlier requests of the same scope, prompt and answer.

    Args:
        capacity: most tokens kept, of all scopes together. The texts of a scope are indexed in two generations of half
            that size; when the younger is full, the older is dropped. Where all scopes together have too many, the
            least recently used one loses its older generation. An index takes some 600 bytes a token.
    """

    name = HISTORY

    def __init__(self, capacity: int) -> None:
        self._capacity, self._half = capacity, capacity // 2
        self._generations: OrderedDict[Hashable, list[SuffixIndex]] = (
            OrderedDict()
        )  # by scope, least recently used first
        self._kept = 0  # tokens in all of them
        self._readings: dict[int, _Reading] = {}

    def open(self, sequence: SequenceState) -> None:
        if sequence.scope is not None:
            self._readings[sequence.number] = _Reading(sequence.tokens, sequence.scope)

    def propose(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            for cursor in self._cursors(ask.sequence.number):
                match = cursor.match()
                if match is None or match.length < _MIN_MATCH:
                    continue
                following = cursor.index.tokens[match.end + 1 : match.end + 1 + ask.budget]
                if _BETWEEN in following:
                    following = following[: following.index(_BETWEEN)]
                add_chain(ask, following, match, self.name)

    def close(self, sequence: SequenceState) -> None:
        reading = self._readings.pop(sequence.number, None)
        room = self._half - 1  # for the text, which _BETWEEN follows
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

    def _drop_oldest(self, scope: Hashable) -> None:
        """Drops the oldest generation of a scope, and with its last one the scope."""
        generations = self._generations[scope]
        self._kept -= len(generations.pop(0))
        if not generations:
            del self._generations[scope]

    def _cursors(self, number: int) -> list[Cursor]:
        """A cursor for each generation, advanced to the end of the sequence's text."""
        reading = self._readings.get(number)
        if reading is None or reading.scope not in self._generations:
            return []
        self._generations.move_to_end(reading.scope)
        tokens, current = reading.tokens, []
        for index in self._generations[reading.scope]:
            known = ((cursor, read) for cursor, read in reading.cursors if cursor.index is index)
            cursor, read = next(known, (Cursor(index), max(len(tokens) - _REACH, 0)))
            for token in tokens[read:]:
                cursor.advance(token)
            current.append((cursor, len(tokens)))
        reading.cursors = current
        return [cursor for cursor, _ in current]


@dataclass
class _Reading:
    """A sequence that is compared with its scope's history; `cursors` with the tokens that each has read."""

    tokens: list[int]
    scope: Hashable
    cursors: list[tuple[Cursor, int]] = field(default_factory=list)
