"""A suffix automaton over tokens: finds the longest suffix of a text that occurred before.

Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text". Appending a token takes amortized
constant time, and so does the match.
"""

from __future__ import annotations

from typing import NamedTuple

_RECENT_LINKS = 16
"""Shorter suffixes whose last occurrence is updated per token; longer chains arise only in long runs of one token."""


class Match(NamedTuple):
    """An earlier occurrence of the text's suffix: its length, the position of its last token, and how many different
    tokens followed such text."""

    length: int
    end: int
    successors: int


class SuffixIndex:
    """The suffix automaton of one growing token sequence. At most two states a token."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._next: list[dict[int, int]] = [{}]
        self._link: list[int] = [-1]
        self._length: list[int] = [0]
        self._end: list[int] = [-1]  # position of the last token of the state's latest occurrence
        self._last = 0
        self._match: Match | None = None

    def append(self, token: int) -> None:
        """Adds one token."""
        position = len(self.tokens)
        self.tokens.append(token)
        state = self._new(self._length[self._last] + 1, {}, -1, position)
        at = self._last
        while at != -1 and token not in self._next[at]:
            self._next[at][token] = state
            at = self._link[at]
        if at == -1:
            self._link[state] = 0
        else:
            target = self._next[at][token]
            whole = self._length[target] == self._length[at] + 1
            self._link[state] = target if whole else self._split(at, target, token)
        self._last = state
        self._update_match(position)

    def __len__(self) -> int:
        return len(self.tokens)

    def match(self) -> Match | None:
        """The longest suffix that also occurred before; None if there is none."""
        return self._match

    def _update_match(self, position: int) -> None:
        """Stores the longest earlier occurrence, then makes this position the latest of every suffix."""
        at = self._link[self._last]
        self._match = Match(self._length[at], self._end[at], len(self._next[at])) if at > 0 else None
        for _ in range(_RECENT_LINKS):
            if at <= 0:
                break
            self._end[at] = position
            at = self._link[at]

    def _split(self, at: int, target: int, token: int) -> int:
        clone = self._new(self._length[at] + 1, dict(self._next[target]), self._link[target], self._end[target])
        self._link[target] = clone
        while at != -1 and self._next[at].get(token) == target:
            self._next[at][token] = clone
            at = self._link[at]
        return clone

    def _new(self, length: int, following: dict[int, int], link: int, end: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._length.append(length)
        self._end.append(end)
        return len(self._length) - 1


class Cursor:
    """Matches the suffix of another text against an index, which may grow meanwhile."""

    def __init__(self, index: SuffixIndex) -> None:
        self.index = index
        self._state = 0
        self._length = 0  # of the other text's longest suffix that is in the index

    def advance(self, token: int) -> None:
        """Appends `token` to the other text."""
        index = self.index
        self._settle()
        while self._state and token not in index._next[self._state]:
            self._state = index._link[self._state]
            self._length = index._length[self._state]
        if token in index._next[self._state]:
            self._state = index._next[self._state][token]
            self._length += 1
        else:
            self._length = 0

    def match(self) -> Match | None:
        """The longest suffix that is in the index; None if there is none."""
        self._settle()
        index, state = self.index, self._state
        return Match(self._length, index._end[state], len(index._next[state])) if self._length else None

    def _settle(self) -> None:
        """A split moves shorter suffixes of a state to its link: follow them."""
        while self._state and self._length <= self.index._length[self.index._link[self._state]]:
            self._state = self.index._link[self._state]
